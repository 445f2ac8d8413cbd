"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol, TextIO

_SECONDS_BETWEEN_LINES = 2.0
_SHOWN = ("reward", "loss", "images_per_second", "pairs_per_second")


class Progress(Protocol):
    """Shows how far a run is."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, message: str) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Shows nothing; for processes other than the main one."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def note(self, message: str) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Plain lines: the first step, the last, and at most one every two seconds between.

    Args:
        done: steps of an earlier part of the run.
        total: steps of the run.
        out: where lines go.
    """

    def __init__(self, done: int, total: int, out: TextIO) -> None:
        self._first, self._total, self._out = done, total, out
        self._began = self._shown = time.monotonic()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if step not in (self._first + 1, self._total) and now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        left = (now - self._began) / max(step - self._first, 1) * (self._total - step)
        self.note(f"step {step}/{self._total}  {headline(metrics)}  ETA {clock(left)}")

    def note(self, message: str) -> None:
        print(message, file=self._out, flush=True)

    def close(self) -> None:
        pass


class Bar:
    """A rich progress bar with reward, images/s and the time that is left."""

    def __init__(self, done: int, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("", total=total, completed=done)
        self._bar.start()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        self._bar.update(self._task, completed=step, description=headline(metrics))

    def note(self, message: str) -> None:
        self._bar.console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        self._bar.stop()


def open_progress(done: int, total: int, *, is_main: bool, out: TextIO | None = None) -> Progress:
    """The bar on a terminal, lines elsewhere, nothing on other processes."""
    stream = sys.stdout if out is None else out
    if not is_main:
        return Silent()
    return Bar(done, total) if stream.isatty() else Lines(done, total, stream)


def headline(metrics: Mapping[str, float]) -> str:
    """The few numbers that fit beside a bar."""
    names = {"images_per_second": "images/s", "pairs_per_second": "pairs/s"}
    return "  ".join(f"{names.get(name, name)} {metrics[name]:.4g}" for name in _SHOWN if name in metrics)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
