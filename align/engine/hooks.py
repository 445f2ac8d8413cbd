"""What a branch adds to a run: held-out evaluation and the pictures of the progress strip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from align.engine.trackers import Picture

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions that the engine calls between steps, on all processes, outside the time of a step.

    Attributes:
        evaluate: step -> metrics (`eval/...`); called before the first step (as step 0), after every `evaluate_every`
            steps and after the last one.
        evaluate_every: 0 = only before and after.
        pictures: step -> pictures for the trackers (it writes its own files); called at the same occasions.
        pictures_every: 0 = never.
    """

    evaluate: Callable[[int], Mapping[str, float]] | None = None
    evaluate_every: int = 0
    pictures: Callable[[int], Sequence[Picture]] | None = None
    pictures_every: int = 0

    def within(self, context: Callable[[], AbstractContextManager[None]]) -> Hooks:
        """The same hooks, each called inside a context."""

        def wrapped(function: Callable[[int], T]) -> Callable[[int], T]:
            def call(step: int) -> T:
                with context():
                    return function(step)

            return call

        evaluate = None if self.evaluate is None else wrapped(self.evaluate)
        return replace(self, evaluate=evaluate, pictures=None if self.pictures is None else wrapped(self.pictures))

    def evaluation_due(self, step: int, last: int) -> bool:
        """Whether the evaluation follows this step."""
        return self.evaluate is not None and _due(step, self.evaluate_every, last)

    def pictures_due(self, step: int, last: int) -> bool:
        """Whether the strip is drawn after this step."""
        return self.pictures is not None and self.pictures_every > 0 and _due(step, self.pictures_every, last)


def _due(step: int, every: int, last: int) -> bool:
    return step in (0, last) or (every > 0 and step % every == 0)
