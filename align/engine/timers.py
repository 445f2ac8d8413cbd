"""Seconds per stage of a step, exclusive: the time of an inner stage is not counted in the outer one.

A timeline of marks is kept, (moment, stage that begins there), and summed once per step. On CUDA the marks are events
in the stream, so that measuring does not make the processor wait for the device.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

APART = ("evaluate", "checkpoint", "pictures")
"""Stages that are reported but are no part of a step; whatever runs inside them counts as them."""

MODEL_WORK = ("encode", "rollout", "decode", "reward", "forward", "backward")
"""Stages that the method itself needs: network passes, decoding and rewards. The rest of a step is our overhead."""


Mark = TypeVar("Mark")
"""What a clock calls a moment."""


class Clock(Protocol[Mark]):
    """Marks moments and measures between them."""

    def mark(self) -> Mark: ...

    def seconds(self, start: Mark, end: Mark) -> float: ...


class WallClock:
    """The processor's clock."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Events in the current CUDA stream: a mark is passed when the device has done everything before it."""

    def mark(self) -> torch.cuda.Event:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1000


class Timers:
    """Stage times of one process.

    Only the thread that made the object is measured: work of other threads overlaps with it, and what counts is how
    long the training thread waits.

    Args:
        clock: how moments are measured; chosen by `for_device` (Any: only the clock looks into its marks).
    """

    def __init__(self, clock: Clock[Any] | None = None) -> None:
        self._clock: Clock[Any] = clock or WallClock()
        self._thread = threading.get_ident()
        self._open: list[str] = []
        self._marks: list[tuple[object, str]] = [(self._clock.mark(), "")]

    @classmethod
    def for_device(cls, device: torch.device) -> Timers:
        """Timers for work on this device."""
        return cls(CudaClock() if device.type == "cuda" else WallClock())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside as `name`."""
        if threading.get_ident() != self._thread or any(stage in APART for stage in self._open):
            yield
            return
        self._open.append(name)
        self._marks.append((self._clock.mark(), name))
        try:
            yield
        finally:
            self._open.pop()
            self._marks.append((self._clock.mark(), self._open[-1] if self._open else ""))

    def finish_step(self) -> dict[str, float]:
        """Seconds of each stage since the last call, and of the step without the stages that are apart ("step")."""
        self._marks.append((self._clock.mark(), self._open[-1] if self._open else ""))
        spent: dict[str, float] = {}
        for (start, stage), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            spent[stage] = spent.get(stage, 0.0) + self._clock.seconds(start, end)
        self._marks = self._marks[-1:]
        step = sum(seconds for stage, seconds in spent.items() if stage not in APART)
        spent.pop("", None)
        return {**spent, "step": step}


def overhead_share(times: Mapping[str, float]) -> float:
    """Share of a step outside model forward, backward, decode and reward; from `Timers.finish_step` or sums of it.

    1 - (encode + rollout + decode + reward + forward + backward) / step
    """
    work = sum(times.get(stage, 0.0) for stage in MODEL_WORK)
    return 1 - work / times["step"] if times.get("step") else 0.0
