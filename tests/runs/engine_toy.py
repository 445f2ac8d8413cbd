"""A method small enough to check the engine by: run as a script, it can kill itself at a chosen moment.

    python engine_toy.py '{"directory": "/somewhere", "steps": 6}'

A small network learns to score rows of noise; "pictures" are single grey tones. With `global_noise` it also draws from
the global generators of Python, NumPy and torch, as a user's code might, and it keeps a running baseline.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from align.config.shared import CheckpointConfig, EmaConfig, OptimizerConfig, OutputConfig, TrainingConfig
from align.engine import checkpoint as checkpoint_files
from align.engine.adapters import Policy
from align.engine.distributed import Processes, start_accelerator
from align.engine.folder import RunFolder
from align.engine.hooks import Hooks
from align.engine.loop import train
from align.engine.random import generator, keyed_normal
from align.engine.run import Outcome, Run
from align.engine.settings import RunSettings
from align.types import LossOutput, RewardTable, Samples, Signal

PROMPTS, GROUP, FEATURES = 3, 4, 5


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """What a scenario varies."""

    directory: str
    steps: int = 6
    micro_batch_size: int = 4
    updates_per_rollout: int = 2
    checkpoint_every: int = 2
    trackers: tuple[str, ...] = ()
    global_noise: bool = True
    kill: str = ""
    kill_step: int = 0
    resume: bool = False
    warmup_updates: int = 3
    images_every: int = 2


@dataclass(frozen=True, kw_only=True)
class ToyBatch:
    """Rows of this process."""

    x: Tensor
    samples: Samples
    rewards: RewardTable
    signal: Signal

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Tensor) -> ToyBatch:
        table, signal = self.rewards, self.signal
        return ToyBatch(
            x=self.x[rows],
            samples=self.samples.select(rows.tolist()),
            rewards=replace(table, values=table.values[rows]),
            signal=replace(signal, scores=signal.scores[rows], advantages=signal.advantages[rows]),
        )


class Toy:
    """The method. `moment` is called at every place where the process may die."""

    def __init__(self, run: Run, settings: ToySettings, moment: Callable[[str, int], None]) -> None:
        self.run, self.settings, self.moment = run, settings, moment
        self.baseline = torch.zeros((), dtype=torch.float64)
        self.step = 0

    def collect(self, step: int) -> ToyBatch:
        self.step = step
        with self.run.timer("rollout"):
            index = my_rows(step, self.settings.updates_per_rollout, self.run.processes)
            x = keyed_normal((FEATURES,), index, 0, step, "x")
            if self.settings.global_noise:
                x = x + 0.1 * (torch.randn(()) + random.gauss(0, 1) + float(np.random.normal()))
            self.moment("collect", step)
            with torch.no_grad():
                reward = self.run.policy.module(x).squeeze(1)
        order = generator(0, step, "groups")
        group_of_row = torch.arange(PROMPTS).repeat_interleave(GROUP)[torch.randperm(PROMPTS * GROUP, generator=order)]
        group_ids = group_of_row[index]
        with self.run.timer("advantage"):
            everyone = self.run.processes.gather_rows(reward.double())
            places = self.run.processes.gather_rows(index)
            ordered = torch.empty_like(everyone)
            ordered[places] = everyone
            means = torch.stack([ordered[group_of_row == group].mean() for group in range(PROMPTS)])
            advantages = (ordered - means[group_of_row])[index].float()
        tones = [Image.new("L", (4, 4), int(100 + 50 * torch.tanh(value))) for value in reward]
        return ToyBatch(
            x=x,
            samples=Samples(
                index=index, group_ids=group_ids, prompts=[f"prompt {g}" for g in group_ids.tolist()], images=tones
            ),
            rewards=RewardTable(names=("tone",), values=reward[:, None], weights=torch.ones(1)),
            signal=Signal(scores=reward, advantages=advantages, stats={"reward": float(ordered.mean())}),
        )

    def prepare_update(self, update: int, rows: ToyBatch) -> None:
        self.passes = 0

    def loss(self, micro: ToyBatch) -> LossOutput:
        self.passes += 1
        if self.passes == 2:
            self.moment("update", self.step)
        score = self.run.policy.network(micro.x).squeeze(1)
        loss = ((score - 1) ** 2 - micro.signal.advantages * score).mean() + 0.01 * self.baseline.float() * score.mean()
        return LossOutput(loss=loss, count=len(micro), metrics={"score": score.mean()})

    def after_step(self, step: int) -> dict[str, float]:
        weights = self.run.policy.state_dict().values()
        self.baseline = 0.9 * self.baseline + 0.1 * sum(weight.double().square().sum() for weight in weights)
        return {"baseline": float(self.baseline)}

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"baseline": self.baseline, "steps": self.step}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self.baseline = state["baseline"]


def my_rows(step: int, updates: int, processes: Processes) -> Tensor:
    """Global row numbers of this process: a slice of each update's chunk of a permutation."""
    order = torch.randperm(PROMPTS * GROUP, generator=generator(0, step, "rows"))
    slices = [chunk.chunk(processes.world)[processes.rank] for chunk in order.chunk(updates)]
    return torch.cat(slices)


def network() -> nn.Module:
    """The same weights in every process."""
    module = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))
    source = generator(0, "network")
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=source))
    return module


def start(settings: ToySettings, moment: Callable[[str, int], None] = lambda place, step: None) -> tuple[Run, Toy]:
    """Everything up to the loop."""
    accelerator = start_accelerator()
    processes = Processes(accelerator)
    output = OutputConfig(
        directory=settings.directory,
        name="toy",
        trackers=settings.trackers,  # type: ignore[arg-type]
        images_every=settings.images_every,
        images_per_step=3,
    )
    if settings.resume:
        folder = RunFolder.reopen(Path(settings.directory) / "toy", processes=processes)
    else:
        folder = RunFolder.create(output, default_name="toy", processes=processes)
        if processes.is_main:
            (folder.path / "config.yaml").write_text("{}\n")
    run_settings = RunSettings(
        optimizer=OptimizerConfig(learning_rate=0.01, schedule="cosine", warmup_updates=settings.warmup_updates),
        training=TrainingConfig(
            steps=settings.steps,
            micro_batch_size=settings.micro_batch_size,
            updates_per_rollout=settings.updates_per_rollout,
            ema=EmaConfig(decay=0.9, every=2),
        ),
        checkpoint=CheckpointConfig(every=settings.checkpoint_every, keep_last=2, keep_best=1),
        output=output,
    )
    run = Run(accelerator, folder, Policy.full(network()), run_settings)

    def evaluate(step: int) -> dict[str, float]:
        x = keyed_normal((FEATURES,), torch.arange(6), 1, "heldout")
        with run.averaged_weights():
            return {"eval/tone/mean": run.policy.module(x).mean().item()}

    run.hooks = Hooks(evaluate=evaluate, evaluate_every=2)
    return run, Toy(run, settings, moment)


def die(*_: object) -> None:
    """Leave without a word, as after a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def killer(settings: ToySettings) -> Callable[[str, int], None]:
    """Arrange for the death that the scenario asks for."""
    rename, measure = os.replace, checkpoint_files._fingerprint
    doomed = f"step_{settings.kill_step:06d}"

    def replace_then_die(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target).name == doomed:
            die()

    if settings.kill == "while the files are written":
        checkpoint_files._fingerprint = lambda path: die() if doomed in path.parent.name else measure(path)
    elif settings.kill == "before the rename":
        os.replace = lambda source, target: die() if Path(target).name == doomed else rename(source, target)
    elif settings.kill == "after the rename":
        os.replace = replace_then_die
    return lambda place, step: die() if (place, step) == (settings.kill, settings.kill_step) else None


def main(text: str) -> Outcome:
    """Run a scenario given as JSON."""
    settings = ToySettings(**json.loads(text))
    moment = killer(settings)
    run, toy = start(settings, moment)
    return train(run, toy)


if __name__ == "__main__":
    main(sys.argv[1])
