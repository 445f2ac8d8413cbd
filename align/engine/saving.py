"""When a checkpoint is written, what goes into it, and how a run takes it up again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from align.config.shared import CheckpointConfig
from align.engine import checkpoint as files
from align.engine import random_state
from align.engine.adapters import Policy
from align.engine.checkpoint import Checkpoint, State
from align.engine.distributed import Processes
from align.engine.folder import step_number
from align.engine.sharding import gathered, spread_state
from align.errors import AlignError

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """Anything whose flat state belongs into a checkpoint: tensors and JSON scalars by name.

    `Any` when it is loaded: each part gets back what it gave, and may hold less than `State` allows (tensors only ...).
    """

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: Any) -> None: ...


class CheckpointFailedError(AlignError):
    """The last checkpoint of a run could not be written: what was trained is not on the disk."""

    exit_code = 1


class OtherModelError(AlignError):
    """The checkpoint belongs to another model."""


class Saver:
    """Checkpoints of one run.

    Attributes:
        parts: name of a part -> object; "weights" is the policy.

    Args:
        folder: folder of the checkpoints.
        config: when to write and what to keep.
        policy: the trained network.
        processes: the main process writes.
        seed: for the random generators of processes that the checkpoint does not know.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, policy: Policy, processes: Processes, *, seed: int
    ) -> None:
        self.parts: dict[str, Stateful] = {"weights": policy}
        self._folder = folder
        self._config = config
        self._policy = policy
        self._processes = processes
        self._seed = seed

    def due(self, step: int) -> bool:
        """Whether it is this step's turn; the last step of a run has one in any case."""
        return self._config.every > 0 and step % self._config.every == 0

    def save(self, step: int, metrics: Mapping[str, float], *, must: bool) -> str | None:
        """Write the checkpoint of a step; a collective. Returns the reason if it could not be written.

        Raises:
            CheckpointFailedError: it could not be written and `must` is set.
        """
        random_states = self._processes.gather_objects(random_state.capture())
        problem = None
        states = self._states()
        if self._processes.is_main:
            rest = {_random_part(rank): state for rank, state in enumerate(random_states)}
            checkpoint = Checkpoint(step=step, parts=rest, identity=self._policy.identity, metrics=dict(metrics))
            problem = self._write(checkpoint, states)
        for _ in states:  # what the main process gathers, all processes give, also after it has failed
            pass
        problem = self._processes.from_main(problem)
        if problem and must:
            raise CheckpointFailedError(
                f"the checkpoint of step {step} could not be written: {problem}.",
                "Free disk space and resume the run: it goes on from the checkpoint before.",
            )
        return problem

    def _states(self) -> Iterator[tuple[str, State]]:
        """The parts one by one, with whole tensors on the main process; each step is a collective."""
        for name, part in self.parts.items():
            yield name, gathered(part.state_dict(), keep=self._processes.is_main)

    def _write(self, checkpoint: Checkpoint, states: Iterator[tuple[str, State]]) -> str | None:
        try:
            files.write(self._folder, checkpoint, states)
            config = self._config
            files.prune(self._folder, keep_last=config.keep_last, keep_best=config.keep_best, metric=config.best_metric)
        except OSError as error:
            log.error(
                "THE CHECKPOINT OF STEP %d COULD NOT BE WRITTEN: %s. The checkpoint before it is untouched.",
                checkpoint.step,
                error,
            )
            return str(error)
        return None

    def restore(self) -> int | None:
        """Take up the newest checkpoint that is whole. Returns its step, None if there is none."""
        path = None
        if self._processes.is_main:
            files.remove_stale(self._folder)
            path = files.latest(self._folder)
            files.set_aside(self._folder, newer_than=-1 if path is None else step_number(path.name) or 0)
        path = self._processes.from_main(path)
        if path is None:
            return None
        checkpoint = files.read(path)
        check_model(path, checkpoint, self._policy)
        for name, part in self.parts.items():
            if name in checkpoint.parts:
                part.load_state_dict(spread_state(checkpoint.parts[name], like=part.state_dict()))
            else:
                log.warning("%s holds no state of %s; it starts afresh", path, name)
        mine = checkpoint.parts.get(_random_part(self._processes.rank))
        if mine is None:  # more processes than before
            random_state.seed_everything(self._seed + checkpoint.step, self._processes.rank)
        else:
            random_state.restore(mine)
        return checkpoint.step


def check_model(path: Path, checkpoint: Checkpoint, policy: Policy) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        OtherModelError: lists what differs.
    """
    found = files.differences(checkpoint, policy.identity, policy.state_dict())
    if found:
        raise OtherModelError(
            f"checkpoint {path} is of another model: {'; '.join(found)}.",
            "Use the config that the checkpoint was trained with (config.yaml in its run folder).",
        )


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest whole one of a run folder.

    Raises:
        AlignError: there is none.
    """
    if (path / "manifest.json").exists() or path.parent.name == "checkpoints":
        return path
    folder = path if path.name == "checkpoints" else path / "checkpoints"
    found = files.latest(folder)
    if found is None:
        raise AlignError(
            f"expected a checkpoint or a run folder with one at {path}, found none.",
            "Give a folder such as runs/my_run or runs/my_run/checkpoints/step_000050.",
        )
    return found


def load_weights(path: Path, policy: Policy, *, averaged: bool = True) -> str:
    """Put the weights of a checkpoint or run folder into a policy, for evaluation and pictures.

    Args:
        path: checkpoint or run folder.
        policy: made from the same config.
        averaged: take the moving average if the checkpoint has one.

    Returns:
        "ema" or "raw": which weights were taken.
    """
    path = find_checkpoint(path)
    checkpoint = files.read(path)
    check_model(path, checkpoint, policy)
    part = "ema" if averaged and "ema" in checkpoint.parts else "weights"
    policy.load_state_dict({name: value for name, value in checkpoint.parts[part].items() if isinstance(value, Tensor)})
    return "ema" if part == "ema" else "raw"


def _random_part(rank: int) -> str:
    return f"random_{rank:05d}"
