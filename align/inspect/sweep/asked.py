"""Directions that conditions stand for, as runs name them: `relevance 80, brevity -60`. No IO.

Where a run mixes rewards into its objectives (`algorithm.objectives`), asking for v asks for `C^T v` of the rewards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PART = re.compile(r"(.+) (-?\d+)")
"""An objective and its component in hundredths."""


def asked_of(condition: str, config: Mapping[str, Any]) -> dict[str, float]:
    """What a condition asks of each reward; empty where it is no direction.

    Args:
        condition: of a point.
        config: of its run, as YAML holds it (Any: nested plain data).
    """
    parts = [PART.fullmatch(part) for part in condition.split(", ")] if condition else []
    found = {part[1]: int(part[2]) / 100 for part in parts if part is not None}
    if not found or len(found) < len(parts):
        return {}
    algorithm = config.get("algorithm")
    mixes = algorithm.get("objectives") if isinstance(algorithm, Mapping) else None
    if not isinstance(mixes, Mapping):
        return found
    rewards: dict[str, float] = {}
    for objective, component in found.items():
        mix = mixes.get(objective)
        for reward, share in (mix if isinstance(mix, Mapping) else {}).items():
            rewards[str(reward)] = rewards.get(str(reward), 0.0) + component * float(share)
    return rewards
