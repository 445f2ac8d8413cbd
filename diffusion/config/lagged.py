"""How a lagged copy of the policy follows the trained one. Torch-free.

After each step, copy <- d copy + (1 - d) current; a schedule says which share d the copy keeps of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import Count, Decay, NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class ConstantLag:
    """The same share after every step."""

    kind: Literal["constant"] = "constant"
    """Selects this schedule."""
    decay: Decay = 0.0
    """Share that the copy keeps; 0 makes it the policy at the beginning of each step."""


@dataclass(frozen=True, kw_only=True)
class LinearLag:
    """After step s: min(max_decay, per_step * max(s - start, 0))."""

    kind: Literal["linear"] = "linear"
    """Selects this schedule."""
    per_step: NonNegativeFloat = 0.001
    """Growth of the share with each step."""
    max_decay: Decay = 0.3
    """Largest share that the copy keeps."""
    start: Count = 0
    """Until this step the copy follows at once."""


LagSchedule = Annotated[ConstantLag | LinearLag, Field(discriminator="kind")]
