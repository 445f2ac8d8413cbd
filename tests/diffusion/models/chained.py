"""Methods on a denoising chain without a run folder, on a flow model and on one that predicts noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from align.config.pipeline import Grpo, PipelineConfig, Rloo
from align.engine.adapters import Policy
from align.engine.distributed import Processes
from align.engine.random import keyed_normal
from align.engine.timers import Timers
from align.rewards.scorer import Scorer
from align.shaping.pipeline import SignalPipeline
from diffusion.assemble import ALGORITHMS, make_policy
from diffusion.chain import ChainMethod
from diffusion.chain_batch import ChainBatch
from diffusion.collect import Collector
from diffusion.config import DdimSampler, DiffusionRun, FlowGrpoConfig, FlowSdeSampler, LoopConfig
from diffusion.models.base import DiffusionModel
from diffusion.prompts import PromptSet

from .assembled import RUN
from .miniature import PROMPTS, miniature
from .miniature_unet import miniature_sd15

FLOW = replace(
    RUN,
    rollout=replace(RUN.rollout, sampler=FlowSdeSampler(noise_level=0.7)),
    pipeline=PipelineConfig(base=Grpo(scale="group", unbiased=False)),
    algorithm=FlowGrpoConfig(),
)
"""Flow-GRPO on the SD3 miniature: 2 prompts of 4 pictures, 5 steps, 4 of them trained."""
NOISE = replace(FLOW, rollout=replace(FLOW.rollout, sampler=DdimSampler(eta=1.0)))
"""The same on the SD1.5 miniature, which predicts noise, with DDIM."""
LOOP = replace(FLOW, pipeline=PipelineConfig(base=Rloo()), algorithm=LoopConfig())


@dataclass
class Chained:
    """The parts of a run that the method touches."""

    config: DiffusionRun
    model: DiffusionModel
    policy: Policy
    method: ChainMethod

    def disturb(self, seed: str = "disturb", scale: float = 0.05) -> None:
        """Move the trained weights, as after some training."""
        with torch.no_grad():
            for number, weight in enumerate(self.policy.trainable_parameters().values()):
                weight.add_(scale * keyed_normal(tuple(weight.shape), torch.tensor([number]), seed)[0])

    def gradient(self, passes: Iterable[ChainBatch]) -> torch.Tensor:
        """Gradient of the mean loss over all rows and steps of these passes, as one vector."""
        passes = list(passes)
        total = sum(piece.unit_count() for piece in passes)
        weights = self.policy.trainable_parameters().values()
        for weight in weights:
            weight.grad = None
        for piece in passes:
            out = self.method.loss(piece)
            (out.loss * out.count / total).backward()
        return torch.cat([torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for w in weights])

    def loss(self, batch: ChainBatch) -> float:
        """Mean loss over all rows and steps of a batch."""
        with torch.no_grad():
            outs = [self.method.loss(piece) for piece in batch.passes()]
        return float(sum(out.loss * out.count for out in outs) / sum(out.count for out in outs))


def chained(
    config: DiffusionRun = FLOW,
    *,
    model: DiffusionModel | None = None,
    reward: Callable | None = None,
    processes: Processes | None = None,
    **algorithm: object,
) -> Chained:
    """The parts for a configuration; keywords change the algorithm's settings.

    Args:
        config: the run; its sampler decides which miniature is taken where no model is given.
        model: another miniature.
        reward: a function of `images` in place of the configured one.
        processes: of the collector.
        algorithm: settings.
    """
    config = replace(config, algorithm=replace(config.algorithm, **algorithm))
    model = model or (miniature_sd15() if isinstance(config.rollout.sampler, DdimSampler) else miniature())
    policy = make_policy(config, model, keep_reference=True)
    scorer = Scorer(config.rewards)
    if reward is not None:
        (only,) = scorer.rewards
        scorer.rewards = (replace(only, function=reward, accepts=frozenset({"images"}), needs=()),)
    timer = Timers().stage
    collector = Collector(
        config,
        model=model,
        prompts=PromptSet(prompts=PROMPTS, columns={}),
        scorer=scorer,
        pipeline=SignalPipeline(config.pipeline),
        processes=processes or Processes(),
        timer=timer,
    )
    method = ALGORITHMS[type(config.algorithm)](collector, model=model, policy=policy, timer=timer)
    assert isinstance(method, ChainMethod)
    return Chained(config, model, policy, method)
