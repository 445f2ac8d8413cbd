"""AWM on the miniature without a run folder: what the tests of the method stand on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from align.config.group_relative import Grpo
from align.config.pipeline import PipelineConfig
from align.config.shared import LoraConfig, RewardConfig, TrainingConfig
from align.engine.adapters import Policy
from align.engine.distributed import Processes
from align.engine.random import keyed_normal
from align.engine.timers import Timers
from align.rewards.scorer import Scorer
from align.shaping.pipeline import SignalPipeline
from diffusion.assemble import ACROSS_PROCESSES, ALGORITHMS, make_policy
from diffusion.awm import Awm
from diffusion.collect import Collector
from diffusion.config import AwmConfig, DiffusionRun, DiscreteTimes, OdeSampler, RolloutConfig, Sd3Model
from diffusion.directions.ask import Asker
from diffusion.directions.assemble import steered
from diffusion.models.base import DiffusionModel
from diffusion.prompts import PromptSet

from .miniature import PROMPTS, miniature

RUN = DiffusionRun(
    model=Sd3Model(path="miniature", lora=LoraConfig(rank=4, alpha=8.0, targets="all_linear")),
    rollout=RolloutConfig(prompts_per_step=2, group_size=4, batch_size=8, num_inference_steps=5, sampler=OdeSampler()),
    rewards=(RewardConfig(function="brightness"),),
    pipeline=PipelineConfig(base=Grpo(scale="group", unbiased=False)),
    algorithm=AwmConfig(times=DiscreteTimes(draws=2)),
    training=TrainingConfig(micro_batch_size=4),
)


@dataclass
class Assembled:
    """The parts of a run that the method touches."""

    config: DiffusionRun
    model: DiffusionModel
    policy: Policy
    awm: Awm

    def disturb(self, seed: str = "disturb", scale: float = 0.2) -> None:
        """Move the trained weights, as after some training."""
        with torch.no_grad():
            for number, weight in enumerate(self.policy.trainable_parameters().values()):
                weight.add_(scale * keyed_normal(tuple(weight.shape), torch.tensor([number]), seed)[0])

    def gradient(self, *micros, counts: int | None = None) -> torch.Tensor:
        """Gradient of the mean loss over the samples of all given micro-batches, as one vector."""
        total = counts or sum(len(micro) for micro in micros)
        for weight in self.policy.trainable_parameters().values():
            weight.grad = None
        for micro in micros:
            out = self.awm.loss(micro)
            (out.loss * out.count / total).backward()
        weights = self.policy.trainable_parameters().values()
        return torch.cat([torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for w in weights])


def with_reward(function: Callable, config: DiffusionRun = RUN, **algorithm: object) -> Assembled:
    """The parts with this function as the only reward, wherever it was defined."""
    parts = assemble(config, **algorithm)
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(item.kind is item.VAR_KEYWORD for item in parameters)
    scorer = parts.awm._collector._scorer
    scorer.rewards = tuple(
        replace(
            reward,
            name=function.__name__,
            function=function,
            accepts=None if takes_any else frozenset(item.name for item in parameters),
            needs=(),
        )
        for reward in scorer.rewards
    )
    return parts


def assemble(config: DiffusionRun = RUN, *, model: DiffusionModel | None = None, **algorithm: object) -> Assembled:
    """The parts for a configuration; keywords change the algorithm's settings. `model` takes the miniature's place."""
    config = replace(config, algorithm=replace(config.algorithm, **algorithm))
    model = model or miniature()
    policy = make_policy(config, model, keep_reference=True)
    model = steered(model)
    timer = Timers().stage
    collector = Collector(
        config,
        model=model,
        prompts=PromptSet(prompts=PROMPTS, columns={"class": ("one", "count", "placed", "size")}),
        scorer=Scorer(config.rewards),
        pipeline=SignalPipeline(config.pipeline),
        processes=Processes(),
        timer=timer,
        reference=policy.reference,
        asker=Asker.of(config),
    )
    method = ALGORITHMS[type(config.algorithm)]
    more = {"processes": Processes()} if method in ACROSS_PROCESSES else {}
    return Assembled(config, model, policy, method(collector, model=model, policy=policy, timer=timer, **more))
