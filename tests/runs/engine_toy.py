"""A method small enough to check the engine by: run as a script, it can kill itself at a chosen moment.

    python engine_toy.py '{"directory": "/somewhere", "steps": 6}'

A small network learns to score rows of noise; "pictures" are single grey tones. With `global_noise` it also draws from
the global generators of Python, NumPy and torch, as a user's code might, and it keeps a running baseline. With `pull`
the loss holds the network to its reference and to a lagged copy; with `uneven` processes differ in rows and passes.
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

from align.config.shared import CheckpointConfig, EmaConfig, LoraConfig, OptimizerConfig, OutputConfig, TrainingConfig
from align.engine import checkpoint as checkpoint_files
from align.engine.adapters import Policy
from align.engine.distributed import Processes, start_accelerator
from align.engine.folder import RunFolder
from align.engine.hooks import Hooks
from align.engine.loop import train
from align.engine.random import generator, keyed_normal
from align.engine.run import Outcome, Run
from align.engine.settings import RunSettings
from align.engine.sharding import whole
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
    adapter: str = "full"
    pull: bool = False
    uneven: bool = False
    max_grad_norm: float = 1.0


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
        self.lagged = {name: w.clone() for name, w in run.policy.state_dict().items()} if settings.pull else {}

    def collect(self, step: int) -> ToyBatch:
        self.step = step
        with self.run.timer("rollout"):
            index = my_rows(step, self.settings.updates_per_rollout, self.run.processes, self.settings.uneven)
            x = keyed_normal((FEATURES,), index, 0, step, "x")
            if self.settings.global_noise:
                x = x + 0.1 * (torch.randn(()) + random.gauss(0, 1) + float(np.random.normal()))
            self.moment("collect", step)
            with torch.no_grad():
                reward = torch.cat([self.run.policy.module(rows).squeeze(1) for rows in x.split(2)])
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
        metrics = {"score": score.mean()}
        if self.settings.pull:  # after the pass with gradient: its graph must survive both
            with self.run.policy.reference() as module:
                metrics["from_base"] = ((score - module(micro.x).squeeze(1)) ** 2).mean()
            with self.run.policy.swapped(self.lagged) as module:
                metrics["from_lagged"] = ((score - module(micro.x).squeeze(1)) ** 2).mean()
            loss = loss + 0.1 * metrics["from_base"] + 0.2 * metrics["from_lagged"]
        return LossOutput(loss=loss, count=len(micro), metrics=metrics)

    def after_step(self, step: int) -> dict[str, float]:
        weights = self.run.policy.state_dict()
        total = sum(weight.double().square().sum() for weight in weights.values())
        self.baseline = 0.9 * self.baseline + 0.1 * whole(total)
        for name, weight in self.lagged.items():
            weight.mul_(0.7).add_(weights[name], alpha=0.3)
        return {"baseline": float(self.baseline)}

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"baseline": self.baseline, "steps": self.step, **self.lagged}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self.baseline = state["baseline"]
        for name, weight in self.lagged.items():
            weight.copy_(state[name])


def my_rows(step: int, updates: int, processes: Processes, uneven: bool = False) -> Tensor:
    """Global row numbers of this process: a slice of each update's chunk of a permutation."""
    order = torch.randperm(PROMPTS * GROUP, generator=generator(0, step, "rows"))
    slices = []
    for chunk in order.chunk(updates):
        cuts = [len(chunk) // processes.world + 1] if uneven and processes.world > 1 else processes.world
        slices.append(chunk.tensor_split(cuts)[processes.rank])
    return torch.cat(slices)


class Block(nn.Module):
    """A repeated block; 7 rows cannot be halved evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 7)
        self.down = nn.Linear(7, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class Deep(nn.Module):
    """Two blocks between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 8)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def policy(settings: ToySettings) -> Policy:
    """What is trained: all of a small network, all of a deeper one, or adapters on that."""
    if settings.adapter == "lora":
        return Policy.lora(filled(Deep()), LoraConfig(rank=3, alpha=6.0), ["first", "up", "down"], seed=0)
    if settings.adapter == "deep":
        return Policy.full(filled(Deep()), keep_reference=settings.pull)
    return Policy.full(network())


def network() -> nn.Module:
    """The small one."""
    return filled(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1)))


def filled(module: nn.Module) -> nn.Module:
    """The same weights in every process."""
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
        optimizer=OptimizerConfig(
            learning_rate=0.01,
            schedule="cosine",
            warmup_updates=settings.warmup_updates,
            max_grad_norm=settings.max_grad_norm,
        ),
        training=TrainingConfig(
            steps=settings.steps,
            micro_batch_size=settings.micro_batch_size,
            updates_per_rollout=settings.updates_per_rollout,
            ema=EmaConfig(decay=0.9, every=2),
        ),
        checkpoint=CheckpointConfig(every=settings.checkpoint_every, keep_last=2, keep_best=1),
        output=output,
    )
    run = Run(accelerator, folder, policy(settings), run_settings)

    def evaluate(step: int) -> dict[str, float]:
        x = keyed_normal((FEATURES,), torch.arange(6), 1, "heldout")
        with run.averaged_weights():
            if settings.uneven and processes.is_main:
                run.policy.module(x)  # a pass that the others do not make
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
