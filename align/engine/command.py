"""What the commands of both branches do alike: start and end processes, open and check a run folder, find weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from align.config.checks import check_device
from align.config.errors import ConfigError
from align.config.shared import OutputConfig, TrainingConfig
from align.engine.checkpoint import latest, read
from align.engine.distributed import Processes, start_accelerator
from align.engine.folder import RunFolder
from align.engine.saving import check_model

if TYPE_CHECKING:
    from accelerate import Accelerator

    from align.engine.adapters import Policy


@contextmanager
def processes_of(training: TrainingConfig) -> Iterator[tuple[Accelerator, Processes]]:
    """The accelerator and the processes of a command; they are given back at its end.

    Raises:
        ConfigError: the device cannot do what the settings ask for.
    """
    accelerator = start_accelerator(training.mixed_precision)
    problems = list(check_device(training, accelerator.device.type))
    if problems:
        raise ConfigError(problems)
    try:
        yield accelerator, Processes(accelerator)
    finally:
        accelerator.end_training()


def open_folder(output: OutputConfig, name: str, resume: Path | None, processes: Processes) -> RunFolder:
    """A new run folder, or the one to go on with."""
    if resume is not None:
        return RunFolder.reopen(resume, processes=processes)
    return RunFolder.create(output, default_name=name, processes=processes)


def check_resumable(folder: RunFolder, policy: Policy) -> None:
    """Refuse settings of another model before they replace the run's own config.

    Raises:
        OtherModelError: lists what differs.
    """
    newest = latest(folder.checkpoints) if folder.resumed else None
    if newest is not None:
        check_model(newest, read(newest), policy)


def evaluation_folder(source: Path | None) -> Path:
    """`evaluation/<checkpoint>` in the run folder, or `evaluation` in the working directory for the base alone."""
    if source is None:
        return Path.cwd() / "evaluation"
    run_folder = source.parent.parent if source.parent.name == "checkpoints" else source.parent
    return run_folder / "evaluation" / source.name


def made(folder: Path) -> Path:
    """The folder, which is there afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
