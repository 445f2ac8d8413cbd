"""Contradictions of a sampler with the model and with the rest of the rollout. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from align.config.errors import Problem
from diffusion.config import (
    ChainConfig,
    CpsSampler,
    DanceSdeSampler,
    DdimSampler,
    DiffusionRun,
    DpmSolverSampler,
    FlowSdeSampler,
    OdeSampler,
    SaSolverSampler,
    SdxlModel,
    StableDiffusionModel,
)
from diffusion.needs import is_offline

DIFFUSION_PATH = (StableDiffusionModel, SdxlModel)
"""Families whose network predicts noise or v along a noise schedule; all others are flow models."""
FITTING = {
    True: (OdeSampler, DdimSampler),
    False: (OdeSampler, FlowSdeSampler, DanceSdeSampler, CpsSampler, SaSolverSampler, DpmSolverSampler),
}
"""Samplers by whether the model is on the diffusion path."""


def noise_of(sampler: Any) -> tuple[str, float]:
    """Setting of a sampler's noise and its value (`Any`: the members of `Sampler`)."""
    if isinstance(sampler, OdeSampler | DpmSolverSampler):
        return "rollout.sampler.kind", 0.0
    name = "eta" if isinstance(sampler, DdimSampler) else "noise_level"
    return f"rollout.sampler.{name}", getattr(sampler, name)


def has_density(sampler: type) -> bool:
    """Whether the steps of a sampler have a log-probability, given noise."""
    return sampler not in (OdeSampler, SaSolverSampler, DpmSolverSampler)


def fitting(config: DiffusionRun) -> tuple[type, ...]:
    """The samplers of the model's path."""
    return FITTING[isinstance(config.model, DIFFUSION_PATH)]


def check_sampling(config: DiffusionRun) -> Iterator[Problem]:
    """A step rule that the model's path does not have; pictures of a group that could not differ."""
    if is_offline(config):
        return  # draws no pictures to learn from
    sampler = config.rollout.sampler
    if not isinstance(sampler, fitting(config)):
        wanted = fitting(config)
        names = [kind.kind for kind in wanted if has_density(kind) or not isinstance(config.algorithm, ChainConfig)]
        what = "noise, not a velocity" if wanted is FITTING[True] else "a velocity"
        yield Problem(
            keys=("rollout.sampler.kind", "model.kind"),
            message=(
                f"the sampler `{sampler.kind}` does not fit a model of kind `{config.model.kind}`: it predicts {what}."
            ),
            way_out=f"Set `rollout.sampler.kind` to {' or '.join(names)}.",
        )
    key, level = noise_of(sampler)
    if config.rollout.share_initial_noise and level == 0:
        yield Problem(
            keys=("rollout.share_initial_noise", key),
            message="a group starts from the same noise and the sampler adds none: all its pictures would be the same.",
            way_out="Set `rollout.share_initial_noise: false`, or choose a sampler with noise.",
        )
