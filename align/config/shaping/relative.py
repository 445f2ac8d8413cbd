"""Which settings compare the samples of a batch with each other, so that a score depends on who else is there.

A baseline (the reward of a greedy rollout, or of the reference policy) is shaped like the rewards that it is compared
with; that is possible only where each sample is shaped by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from align.config.shaping.combine import Chebyshev, Gated, Lexicographic
from align.config.shaping.references import ReferenceCanonical, ReferenceGroup
from align.config.shaping.transforms import Clip, Gate, Impute, Lsc, MinMax, Rank, RobustZScore, ZScore

Options: TypeAlias = Any  # one frozen dataclass per kind; they have nothing in common but `kind`


def _always(options: Options) -> bool:
    return True


RELATIVE: Mapping[type, Callable[[Options], bool]] = {
    ZScore: lambda options: options.scope != "running",
    RobustZScore: _always,
    MinMax: lambda options: options.low is None or options.high is None,
    Rank: _always,
    Clip: lambda options: options.stds is not None,
    Lsc: lambda options: isinstance(options.reference, ReferenceGroup | ReferenceCanonical),
    Impute: _always,
    Gate: lambda options: options.floor is None,
    Chebyshev: _always,
    Gated: lambda options: options.floor is None,
    Lexicographic: _always,
}
"""Settings -> whether a transform or combination looks at other samples; what is not here never does."""


def compares_samples(options: Options) -> bool:
    """Whether the result for one sample depends on the others of its group or batch."""
    rule = RELATIVE.get(type(options))
    return rule is not None and rule(options)
