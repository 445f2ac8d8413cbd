"""What is wrong with a configuration, all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from align.errors import AlignError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a configuration.

    Attributes:
        keys: the dotted settings involved, e.g. `("rollout.group_size", "training.updates_per_rollout")`.
        message: what was expected and what was found.
        way_out: what to do.
        places: where the keys were set, e.g. `("my.yaml, line 12",)`; filled in by the loader.
    """

    keys: tuple[str, ...]
    message: str
    way_out: str = ""
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{'; '.join(self.places)}: " if self.places else ""
        way_out = f"\n    {self.way_out}" if self.way_out else ""
        return f"{where}{self.message}{way_out}"


class ConfigError(AlignError):
    """A configuration that cannot be run, with every problem that was found in it."""

    def __init__(self, problems: Sequence[Problem], source: str = "") -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        of = f" in {source}" if source else " in the configuration"
        lines = [f"{count}{of}", *(f"  - {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines))
