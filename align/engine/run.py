"""A run: what the loop stands on. It knows how to cut, weigh, update, record and save; it contains no formula.

Steps are numbered from 1: pictures, evaluations and checkpoints of step s are of the policy *after* s steps, and step 0
is the policy before training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from align.engine import random_state
from align.engine.accumulation import Accumulator
from align.engine.adapters import Policy
from align.engine.batching import even_cuts
from align.engine.distributed import Processes
from align.engine.ema import Ema
from align.engine.folder import RunFolder
from align.engine.hooks import Hooks
from align.engine.interrupt import Interrupt
from align.engine.optim import Optimizer, UpdateReport
from align.engine.reporting import Reporter, StepNumbers
from align.engine.saving import Saver, Stateful
from align.engine.settings import RunSettings
from align.engine.timers import Timers
from align.engine.trackers import check_trackers
from align.types import Batch, BatchT, LossOutput

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: after which step, and which signal stopped it, if one did."""

    step: int
    interrupted_by: str | None = None


class Run:
    """One training run, on this process.

    Attributes:
        step: steps that are done.
        policy, processes, folder, timers, settings: for the algorithm and the hooks.
        ema: moving average of the trained weights, or None.
        hooks: evaluation and strip; may be set until the loop begins.

    Args:
        accelerator: of `start_accelerator`.
        folder: of `RunFolder.create`, or of `RunFolder.reopen`: then the run goes on where it was.
        policy: the trained network; it is prepared here.
        settings: shared configuration.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: RunFolder,
        policy: Policy,
        settings: RunSettings,
        hooks: Hooks | None = None,
    ) -> None:
        check_trackers(settings.output.trackers)
        training = settings.training
        if training.gradient_checkpointing:
            policy.enable_gradient_checkpointing()
        if training.compile:
            policy.compile()
        policy.prepare(accelerator)
        weights = policy.trainable_parameters()
        self.step = 0
        self.policy = policy
        self.folder = folder
        self.settings = settings
        self.hooks = hooks or Hooks()
        self.processes = Processes(accelerator)
        self.timers = Timers.for_device(self.processes.device)
        self.ema = Ema(weights, training.ema) if training.ema else None
        self._optimizer = Optimizer(
            weights,
            settings.optimizer,
            total_updates=training.steps * training.updates_per_rollout,
            scaler=accelerator.scaler,
        )
        self._accumulator = Accumulator(
            accelerator, policy.network, self.processes, micro_batch_size=training.micro_batch_size
        )
        self._saver = Saver(folder.checkpoints, settings.checkpoint, policy, self.processes, seed=settings.seed)
        self._reports: list[UpdateReport] = []
        self._interrupt = Interrupt()
        self._stopped_by: str | None = None
        self.register("optimizer", self._optimizer)
        if self.ema is not None:
            self.register("ema", self.ema)

    def register(self, name: str, part: Stateful) -> None:
        """Let checkpoints hold this object's state, too."""
        self._saver.parts[name] = part

    def timer(self, stage: str) -> AbstractContextManager[None]:
        """Count the time inside as `time/<stage>`."""
        return self.timers.stage(stage)

    @contextmanager
    def averaged_weights(self) -> Iterator[str]:
        """Inside, the network computes with the moving average, if there is one; no gradient. Yields "ema" or "raw"."""
        if self.ema is None:
            with torch.no_grad():
                yield "raw"
        else:
            with self.policy.swapped(self.ema.weights):
                yield "ema"

    @contextmanager
    def session(self, algorithm: Stateful) -> Iterator[None]:
        """What has to be open while the loop runs. Takes up the newest checkpoint of a folder that was there before."""
        self.register("algorithm", algorithm)
        hooks = self.hooks.within(self._whole_network)
        self._reporter = Reporter(self.processes, self.folder, self.settings, hooks, self.timers)
        with ExitStack() as stack:
            stack.callback(self.folder.close)
            random_state.seed_everything(self.settings.seed, self.processes.rank)
            found = self._saver.restore() if self.folder.resumed else None
            self.step = found or 0
            stack.callback(self._reporter.close)
            self._reporter.open(found)
            stack.enter_context(self._interrupt.listening())
            self.timers.finish_step()
            yield

    @contextmanager
    def _whole_network(self) -> Iterator[None]:
        """Inside, processes may make different numbers of passes without gradient, or none."""
        self.policy.gather()
        try:
            yield
        finally:
            self.policy.reshard()

    def steps(self) -> Iterator[int]:
        """Numbers of the steps that are left, until the last one or until somebody asks for a stop."""
        if self.step == 0:
            self._reporter.before_first_step()
        while self.step < self.settings.training.steps and self._stopped_by is None:
            self.policy.gather(at_next_pass=True)  # processes roll out different numbers of batches
            yield self.step + 1

    def updates(self, batch: BatchT) -> Iterator[tuple[int, BatchT]]:
        """The optimiser updates of a step: their number and their rows on this process."""
        self._reports = []
        for update, cut in enumerate(even_cuts(len(batch), self.settings.training.updates_per_rollout)):
            rows = batch.select(torch.arange(cut.start, cut.stop))
            self._accumulator.begin(rows)
            if update > 0:
                self.policy.gather(at_next_pass=True)
            yield update, rows

    def micro_batches(self, rows: BatchT) -> Iterator[BatchT]:
        """The rows of an update in pieces of `micro_batch_size`."""
        self.policy.reshard()
        return self._accumulator.micro_batches(rows)

    def backward(self, out: LossOutput) -> None:
        """Add the gradient of a micro-batch."""
        with self.timer("backward"):
            self._accumulator.backward(out)

    def optimizer_step(self) -> None:
        """Clip, update the weights and their average."""
        with self.timer("optimizer"):
            self._accumulator.finish()
            number = self._optimizer.updates
            report = self._optimizer.step()
            self.policy.reshard()  # a pass without gradient may have left weights gathered: they are old now
            if self.ema is not None and report.applied:
                self.ema.update(self.policy.trainable_parameters(), number)
            self._reports.append(report)

    def record(self, step: int, batch: Batch, extra: Mapping[str, float]) -> None:
        """Finish a step: hooks, metrics, pictures, checkpoint; a collective.

        Args:
            step: its number.
            batch: this process's rows.
            extra: further metrics, the same on all processes.
        """
        self.policy.reshard()
        # Rows may be pairs: what is counted is what was drawn, where something was.
        drawn = len(batch if batch.samples is None else batch.samples)
        own = StepNumbers(sums=self._accumulator.metrics.sums(), samples=drawn, stop=self._interrupt.received)
        metrics, self._stopped_by = self._reporter.step(step, batch, extra, self._reports, own)
        self.step = step
        last = self.settings.training.steps
        final = step == last or self._stopped_by is not None
        if final or self._saver.due(step):
            with self.timer("checkpoint"):
                self._reporter.flush_to_disk()
                self._reporter.checkpoint_failed = self._saver.save(step, metrics, must=final) is not None
        if self._stopped_by is not None and step < last:
            command = self.settings.resume_command or f"align train {self.folder.path}"
            self._reporter.note(f"{self._stopped_by}: stopped after step {step}, checkpoint written. Go on: {command}")

    def stop_after_step(self, reason: str) -> None:
        """End the run after the step that is under way, or after the next if none is, as a signal would.

        Every process calls it alike: a method that sees no more to gain.
        """
        self._interrupt.received = self._interrupt.received or reason

    def outcome(self) -> Outcome:
        """How the run ended."""
        return Outcome(step=self.step, interrupted_by=self._stopped_by)
