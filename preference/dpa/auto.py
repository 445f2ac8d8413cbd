"""Directions that follow from the prompts: the weights of a preference adapter (PRO) as components."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.adapter.record import find_adapter, read_record
from align.adapter.rows import prompt_text
from align.adapter.use import PromptWeigher
from align.control import Vector
from align.errors import AlignError
from preference.data import Texts
from preference.dpa.control import Control

AUTO = "auto"
"""What `--direction` says for it."""


def inferred_directions(
    control: Control, adapter: str | Path, texts: Texts, *, device: str = "cpu"
) -> tuple[list[Vector], list[dict[str, float]]]:
    """The direction of each prompt, and the weights behind it.

    Args:
        control: objectives of the policy.
        adapter: folder of an adapter, or the run that trained it.
        texts: prompts without a direction in them.
        device: of the adapter's encoder.

    Raises:
        AlignError: no adapter there, one of other objectives, or its encoder is not here.
    """
    check_adapter(control.names, adapter)
    weigher = PromptWeigher.load(adapter, device=device)
    weights = weigher.by_name([prompt_text(row.prompt) or "" for row in texts.rows])
    found = [{name: float(weights[name][place]) for name in control.names} for place in range(len(texts))]
    return [control.vector(one) for one in found], found


def check_adapter(objectives: Sequence[str], adapter: str | Path) -> None:
    """Refuse an adapter that weighs other objectives than the policy was trained for, before anything is loaded.

    Raises:
        AlignError: no adapter there, or one of other objectives.
    """
    known = read_record(adapter).objectives
    if set(known) != set(objectives):
        raise AlignError(
            f"the adapter {find_adapter(adapter)} weighs {', '.join(known)}; this policy was trained for the "
            f"objectives {', '.join(objectives)}.",
            "Train an adapter for these objectives (`objectives:` of its config, docs/pro_adapter.md), or give a "
            "direction by hand: "
            f"`--direction {','.join(f'{name}=1' for name in objectives)}`.",
        )
