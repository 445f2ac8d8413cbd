"""Trackers: the only file that knows TensorBoard, Weights & Biases and Trackio.

metrics.jsonl and the pictures on disk are written whatever is chosen here. A tracker that fails while the run goes on
is dropped with a warning: no run ends because a server is down.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from align.errors import AlignError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture and the text under it."""

    image: Image
    caption: str


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told about the run.

    Attributes:
        folder: run folder.
        project: project on the tracker's server.
        config: resolved settings.
        resume_step: last step that is kept of an earlier part of the run, None for a new run.
    """

    folder: Path
    project: str
    config: Mapping[str, Any]  # Any: nested settings, handed through
    resume_step: int | None


class Tracker(Protocol):
    """Takes numbers and pictures of a step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def pictures(self, step: int, name: str, pictures: Sequence[Picture]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<run>/tensorboard`."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Events of steps that will be run again are hidden by the viewer.
        purge = None if run.resume_step is None else run.resume_step + 1
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        import numpy as np

        for number, picture in enumerate(pictures):
            pixels = np.asarray(picture.image.convert("RGB"))
            self._writer.add_image(f"{name}/{number:03d}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases; a resumed run goes on in the same run there."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb  # pyright: ignore[reportMissingImports]  # an optional extra

        self._library = wandb
        self._run = wandb.init(
            project=run.project,
            name=run.folder.name,
            dir=str(run.folder),
            config=dict(run.config),
            id=_run_id(run.folder),
            resume="allow",
        )
        # Its own step counter only goes forward; a resumed run may go back.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def pictures(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        shown = [self._library.Image(picture.image, caption=picture.caption) for picture in pictures]
        self._run.log({"step": step, name: shown})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio: local first, the names of Weights & Biases."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio  # pyright: ignore[reportMissingImports]  # an optional extra

        self._library = trackio
        self._run = trackio.init(project=run.project, name=run.folder.name, config=dict(run.config), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def pictures(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        shown = {
            f"{name}/{number:03d}": self._library.Image(picture.image, caption=picture.caption)
            for number, picture in enumerate(pictures)
        }
        self._run.log(shown, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
"""Name in `output.trackers` -> class. The name is that of its Python package and of its extra."""

_EXTRAS = ("wandb", "trackio")


class Trackers:
    """Any set of trackers as one.

    Args:
        names: of `output.trackers`.
        run: what they are told.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun) -> None:
        check_trackers(names)
        self._open: dict[str, Tracker] = {name: TRACKERS[name](run) for name in names}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of a step, to every tracker."""
        self._each(lambda tracker: tracker.log(step, metrics))

    def pictures(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        """Pictures of a step, to every tracker."""
        if pictures:
            self._each(lambda tracker: tracker.pictures(step, name, pictures))

    def close(self) -> None:
        """Let every tracker finish."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever it is: the run is worth more than its tracker
                log.warning("tracker %s failed and is switched off: %s: %s", name, type(error).__name__, error)
                del self._open[name]


def check_trackers(names: Sequence[str]) -> None:
    """Raise before the run starts if a tracker is not installed.

    Raises:
        AlignError: names the extra to install.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(f"'align-suite[{name}]'" if name in _EXTRAS else name for name in missing)
        raise AlignError(
            f"output.trackers names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run `pip install {packages}`, or take it out of output.trackers.",
        )


def _run_id(folder: Path) -> str:
    """An id of the run that stays when it is resumed."""
    path = folder / "tracker.json"
    if not path.exists():
        path.write_text(json.dumps({"id": uuid.uuid4().hex}))
    return str(json.loads(path.read_text())["id"])
