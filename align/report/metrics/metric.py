"""One row of the table of metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, or a family of them.

    Attributes:
        name: as logged; `<...>` stands for any name.
        title: a few words for a person.
        formula: how it is computed, in plain text.
        meaning: one sentence.
        healthy: the range or the movement one hopes for.
        remedy: what to do otherwise.
    """

    name: str
    title: str
    formula: str
    meaning: str
    healthy: str
    remedy: str

    def matches(self, name: str) -> bool:
        """Whether a logged name is this metric or of this family."""
        pattern = "".join(
            "[^/]+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]*>)", self.name)
        )
        return re.fullmatch(pattern, name) is not None
