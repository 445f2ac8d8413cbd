"""The one training loop of the repository."""

from __future__ import annotations

from align.engine.algorithm import Algorithm
from align.engine.run import Outcome, Run
from align.types import BatchT


def train(run: Run, algorithm: Algorithm[BatchT]) -> Outcome:
    """Train until the last step, or until somebody asks for a stop; the run folder holds everything afterwards."""
    with run.session(algorithm):
        for step in run.steps():
            batch = algorithm.collect(step)
            for update, rows in run.updates(batch):
                with run.timer("forward"):
                    algorithm.prepare_update(update, rows)
                for micro in run.micro_batches(rows):
                    with run.timer("forward"):
                        out = algorithm.loss(micro)
                    run.backward(out)
                run.optimizer_step()
            run.record(step, batch, algorithm.after_step(step))
    return run.outcome()
