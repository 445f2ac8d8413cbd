"""Scales of ratings: from a label to the number that a head is trained on, and back. Torch-free.

    l = (label - lowest) / step,   s = (l + 0.5) / q          middle of the l-th of q equal bins of [0, 1]
    label = lowest + step (q s - 0.5)                         its exact inverse

HelpSteer's 0..4 becomes 0.1, 0.3, 0.5, 0.7, 0.9. A head without bias and a loss of squares then see every attribute in
the same range, whatever scale its raters used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LabelScale:
    """The scale of an attribute.

    Labels between two levels (means over raters) keep their place between them.
    """

    lowest: float = 0.0
    """Smallest label."""
    highest: float = 4.0
    """Largest label."""
    levels: int = 5
    """Equally spaced labels from the smallest to the largest, at least 2; HelpSteer has 5."""

    def problem(self) -> str | None:
        """What is wrong with these numbers; None if nothing."""
        if self.levels < 2:
            return f"a scale needs at least 2 levels, found {self.levels}"
        if not self.lowest < self.highest:
            return f"`lowest` must be below `highest`, found {self.lowest:g} and {self.highest:g}"
        return None

    @property
    def step(self) -> float:
        """Distance of two neighbouring labels."""
        return (self.highest - self.lowest) / (self.levels - 1)

    def holds(self, label: float) -> bool:
        """Whether a label lies on the scale; NaN, which is no label, does."""
        return not (label < self.lowest or label > self.highest)

    def to_unit(self, labels: Any) -> Any:  # Any: a float or a tensor, and the same out
        """s in [0.5 / q, 1 - 0.5 / q]; NaN stays NaN."""
        return ((labels - self.lowest) / self.step + 0.5) / self.levels

    def to_label(self, units: Any) -> Any:
        """The inverse; a head may answer beyond the scale, and that is not cut off."""
        return self.lowest + self.step * (self.levels * units - 0.5)

    def to_json(self) -> dict[str, float | int]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LabelScale:
        """From plain data."""
        return cls(lowest=float(data["lowest"]), highest=float(data["highest"]), levels=int(data["levels"]))
