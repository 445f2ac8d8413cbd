"""The end of a step: hooks, the numbers of all processes in one line, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align.engine.distributed import Processes, merge_means
from align.engine.folder import RunFolder
from align.engine.hooks import Hooks
from align.engine.optim import UpdateReport
from align.engine.progress import open_progress
from align.engine.recorder import Recorder, write_samples
from align.engine.reward_tables import write_table
from align.engine.settings import RunSettings
from align.engine.timers import Timers
from align.engine.trackers import Picture, TrackedRun, Trackers
from align.types import Batch


@dataclass(frozen=True, kw_only=True)
class StepNumbers:
    """What one process knows at the end of a step; this is what travels, once per step.

    Attributes:
        sums: (sum, count) of each metric of the loss.
        samples: rows of this process.
        stop: name of the signal that asked this process to stop, or None.
    """

    sums: dict[str, tuple[float, float]]
    samples: int
    stop: str | None


class Reporter:
    """Puts steps on record. Its methods are collectives; the main process writes.

    Attributes:
        checkpoint_failed: set when a checkpoint could not be written; the next line of metrics says so.
    """

    def __init__(
        self, processes: Processes, folder: RunFolder, settings: RunSettings, hooks: Hooks, timers: Timers
    ) -> None:
        self.checkpoint_failed = False
        self._processes = processes
        self._folder = folder
        self._settings = settings
        self._hooks = hooks
        self._timers = timers
        self._recorder: Recorder | None = None

    def open(self, found: int | None) -> None:
        """Begin to write, after step `found` of an earlier part of the run (None: from the beginning)."""
        if self._processes.is_main:
            self._folder.cut_back(found)
            output, total = self._settings.output, self._settings.training.steps
            tracked = TrackedRun(
                folder=self._folder.path,
                project=output.project,
                config=self._settings.shown,
                resume_step=(-1 if found is None else found) if self._folder.resumed else None,
            )
            progress = open_progress(found or 0, total, is_main=True)
            self._recorder = Recorder(self._folder, Trackers(output.trackers, tracked), progress)
            if found is not None:
                progress.note(f"resumed after step {found} of {total}")
        self._processes.barrier()

    def close(self) -> None:
        """Close the files."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def note(self, message: str) -> None:
        """Tell the person who watches."""
        if self._recorder is not None:
            self._recorder.progress.note(message)

    def flush_to_disk(self) -> None:
        """Lines written so far survive a power cut."""
        if self._recorder is not None:
            self._recorder.flush_to_disk()

    def before_first_step(self) -> None:
        """Hooks on the policy as it is before training, recorded as step 0."""
        found = self._call_hooks(0)
        times = self._timers.finish_step()
        if found and self._recorder is not None:
            del times["step"]
            self._recorder.metrics(0, {**found, **_named(times)})

    def step(
        self, step: int, batch: Batch, extra: Mapping[str, float], updates: Sequence[UpdateReport], own: StepNumbers
    ) -> tuple[dict[str, float], str | None]:
        """Record a step. Returns its metrics (equal on all processes but for times), and the signal to stop, if any."""
        hooked = self._call_hooks(step)
        self._record_samples(step, batch)
        times = self._timers.finish_step()
        with self._timers.stage("record"):
            write_table(
                self._folder,
                step,
                batch,
                steps=self._settings.training.steps,
                megabytes=self._settings.output.reward_tables_mb,
                processes=self._processes,
            )
            everyone = self._processes.gather_objects(own)
            drawn = sum(one.samples for one in everyone)
            metrics = {
                **({} if batch.signal is None else batch.signal.stats),
                **merge_means([one.sums for one in everyone]),
                **extra,
                **update_metrics(updates),
                **hooked,
                f"{getattr(batch, 'noun', 'images')}_per_second": drawn / max(times["step"], 1e-9),
                **_named(times),
            }
            if self.checkpoint_failed:
                metrics["checkpoint_failed"] = 1.0
                self.checkpoint_failed = False
            if self._recorder is not None:
                self._recorder.metrics(step, metrics)
        return metrics, next((one.stop for one in everyone if one.stop), None)

    def _call_hooks(self, step: int) -> dict[str, float]:
        hooks, last = self._hooks, self._settings.training.steps
        found: dict[str, float] = {}
        if hooks.evaluate is not None and hooks.evaluation_due(step, last):
            with self._timers.stage("evaluate"):
                found = dict(hooks.evaluate(step))
        if hooks.pictures is not None and hooks.pictures_due(step, last):
            with self._timers.stage("pictures"):
                self._show(step, "strip", hooks.pictures(step))
        return found

    def _record_samples(self, step: int, batch: Batch) -> None:
        output = self._settings.output
        if output.images_every > 0 and step % output.images_every == 0:
            with self._timers.stage("pictures"):
                pictures = write_samples(self._folder, step, batch, output.images_per_step, self._processes)
                self._show(step, "samples", pictures)

    def _show(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        if self._recorder is not None:
            self._recorder.trackers.pictures(step, name, pictures)


def update_metrics(updates: Sequence[UpdateReport]) -> dict[str, float]:
    """Mean norm of the gradients that were finite, last learning rate, number of updates left out."""
    norms = [update.grad_norm for update in updates if update.applied]
    return {
        "grad_norm": sum(norms) / len(norms) if norms else float("nan"),
        "learning_rate": updates[-1].learning_rate,
        "skipped_updates": float(sum(not update.applied for update in updates)),
    }


def _named(times: Mapping[str, float]) -> dict[str, float]:
    return {f"time/{stage}": seconds for stage, seconds in times.items()}
