"""The run folder: where it is, whose it is, and where everything in it lies.

A lock of the operating system (flock) guards it: it goes with the process that holds it, so a run that was killed never
blocks the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from align.config.shared import OutputConfig
from align.engine.distributed import Processes
from align.errors import AlignError

_BY_STEP = ("samples", "rewards", "images", "evaluations", "evaluations/pictures", "strip")
_LINES_BY_STEP = ("metrics.jsonl", "strip/strip.jsonl")
_TRIES = 10_000


class RunFolder:
    """A run folder that this run holds. Made by `create` or `reopen`, on all processes at once.

    Attributes:
        path: the folder.
        resumed: whether it was there before.
    """

    def __init__(self, path: Path, lock: int | None, *, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self._lock = lock

    @classmethod
    def create(cls, output: OutputConfig, *, default_name: str, processes: Processes) -> RunFolder:
        """A new run folder in `output.directory`.

        Args:
            output: directory and name.
            default_name: name of the config, for runs without a name: `<default_name>-001`, or the first free number.
            processes: the main process makes the folder.

        Raises:
            AlignError: the folder is there already, is in use, or cannot be made.
        """
        directory = Path(output.directory)

        def make() -> Path:
            if output.name is None:
                return _first_free(directory, default_name)
            path = directory / output.name
            if path.exists() and any(path.iterdir()):
                raise _exists(path)
            path.mkdir(parents=True, exist_ok=True)
            return path

        return cls._open(make, processes, resumed=False)

    @classmethod
    def reopen(cls, path: Path, *, processes: Processes) -> RunFolder:
        """The folder of a run that is to go on.

        Raises:
            AlignError: there is no run in it, or another process is at work in it.
        """

        def find() -> Path:
            if not (path / "config.yaml").exists():
                raise AlignError(
                    f"expected a run folder with a config.yaml at {path}, found "
                    f"{'a folder without one' if path.is_dir() else 'no such folder'}.",
                    "Give the folder that `align train` printed when it started.",
                )
            return path

        return cls._open(find, processes, resumed=True)

    @classmethod
    def _open(cls, find: Callable[[], Path], processes: Processes, *, resumed: bool) -> RunFolder:
        path, lock, problem = None, None, None
        if processes.is_main:
            try:
                path = find().resolve()
                lock = _take_lock(path)
            except AlignError as error:
                problem = error
            except OSError as error:
                problem = AlignError(f"the run folder cannot be made: {error}.", "Choose another output.directory.")
        problem = processes.from_main(problem)
        if problem is not None:
            raise problem
        path = processes.from_main(path)
        assert path is not None  # for the type checker: there is a path where there is no problem
        return cls(path, lock, resumed=resumed)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.path / "metrics.jsonl"

    def of_step(self, kind: str, step: int, ending: str = "") -> Path:
        """`<kind>/step_000010<ending>`; its parent folder is there afterwards."""
        path = self.path / kind / f"{step_name(step)}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def cut_back(self, step: int | None) -> None:
        """Remove what was recorded after this step (None: everything), so that a resumed run records it again."""
        for name in _LINES_BY_STEP:
            _cut_lines(self.path / name, step)
        for kind in _BY_STEP:
            for path in (self.path / kind).glob("step_*"):
                number = step_number(path.name)
                if number is not None and (step is None or number > step):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def step_name(step: int) -> str:
    """`step_000010`."""
    return f"step_{step:06d}"


def step_number(name: str) -> int | None:
    """10 for `step_000010` and `step_000010.jsonl`; None for other names."""
    stem = name.partition(".")[0]
    digits = stem.removeprefix("step_")
    return int(digits) if stem.startswith("step_") and digits.isdecimal() else None


def _first_free(directory: Path, name: str) -> Path:
    for number in range(1, _TRIES):
        path = directory / f"{name}-{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AlignError(f"{directory} holds {_TRIES} runs called {name}.", "Set output.name or output.directory.")


def _exists(path: Path) -> AlignError:
    return AlignError(
        f"run folder {path} is there already and not empty.",
        f"Resume it with `align train {path}`, or choose another output.name (null takes the first free number).",
    )


def _take_lock(path: Path) -> int:
    lock = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 1000).decode(errors="replace").strip() or "an unknown process"
        os.close(lock)
        raise AlignError(
            f"run folder {path} is already in use by {holder}.",
            "Wait for that run or stop it; or give this run another output.name.",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
    return lock


def _cut_lines(path: Path, step: int | None) -> None:
    """Keep the JSON lines up to this step; a line that was cut off while it was written goes, too."""
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines() if step is not None and _line_step(line, step + 1) <= step]
    rewritten = path.with_name(f".{path.name}.tmp")
    rewritten.write_bytes(b"".join(line + b"\n" for line in kept))
    os.replace(rewritten, path)


def _line_step(line: bytes, damaged: int) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return damaged
