"""Contradictions of the methods that learn from a denoising chain. Torch-free.

One small function per rule; each names the settings involved and a way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from itertools import chain
from typing import Any

from align.config.errors import Problem
from align.config.pipeline import Rloo
from diffusion.chain_steps import latest_trained, trained_count
from diffusion.check_sampling import fitting, has_density, noise_of
from diffusion.config import (
    GUIDANCE_AS_INPUT,
    AllSteps,
    ChainConfig,
    CpsSampler,
    DdimSampler,
    DiffusionRun,
    FlowGrpoConfig,
    LoopConfig,
    RandomSteps,
    ReinforceConfig,
)

SMALLEST_FOR_SUMS = 0.05
"""Ratios of whole densities, log-probabilities summed over a latent, leave a narrower clip range at once."""


def check_chain(config: DiffusionRun) -> Iterator[Problem]:
    """Every contradiction of a method on the chain; none for other methods."""
    algorithm = config.algorithm
    if not isinstance(algorithm, ChainConfig):
        return iter(())
    return chain(*(rule(config, algorithm) for rule in _RULES), check_method(algorithm, config))


# --- rules of every method on the chain -------------------------------------------------------------------------------


def _noise(config: DiffusionRun, algorithm: ChainConfig) -> Iterator[Problem]:
    """A deterministic step has no density, so there is nothing whose logarithm could be trained."""
    sampler = config.rollout.sampler
    key, level = noise_of(sampler)
    if level > 0 and has_density(type(sampler)):
        return
    names = [kind.kind for kind in fitting(config) if has_density(kind)]
    why = f"`{key}` is 0, so its steps are deterministic"
    if not has_density(type(sampler)):
        key, why = "rollout.sampler.kind", "its steps have no log-probability"
    yield Problem(
        keys=("algorithm.kind", key),
        message=(
            f"`{algorithm.kind}` learns from the log-probability of each step, "  # type: ignore[attr-defined]
            f"but the sampler is `{sampler.kind}`: {why}."
        ),
        way_out=f"Set `rollout.sampler.kind` to {' or '.join(names)}, with noise above 0; or choose a method that "
        "learns from the finished picture, such as `algorithm.kind: awm`.",
    )


def _steps(config: DiffusionRun, algorithm: ChainConfig) -> Iterator[Problem]:
    """Some step must be trained."""
    keys = ("algorithm.steps", "rollout.num_inference_steps")
    steps = config.rollout.num_inference_steps
    try:
        latest = latest_trained(algorithm.steps, steps)
    except ValueError as error:
        way_out = "Raise `rollout.num_inference_steps`, or change `algorithm.steps`."
        yield Problem(keys=keys, message=f"no step could be trained: {error}.", way_out=way_out)
        return
    if latest == steps - 1 and isinstance(config.rollout.sampler, CpsSampler):
        name = "share" if isinstance(algorithm.steps, AllSteps) else "latest"
        yield Problem(
            keys=(f"algorithm.steps.{name}", "rollout.sampler.kind"),
            message="the last step is trained, but under `cps` it has no noise, so it has no log-probability.",
            way_out=f"Set `algorithm.steps.{name}: 0.99`, which leaves the last step out.",
        )


def _scale_of_log_prob(config: DiffusionRun, algorithm: ChainConfig) -> Iterator[Problem]:
    """A clip range for means of log-probabilities rejects everything on their sums."""
    clip = getattr(algorithm, "clip_range", None)
    if algorithm.log_prob == "sum" and clip is not None and clip < SMALLEST_FOR_SUMS:
        yield Problem(
            keys=("algorithm.clip_range", "algorithm.log_prob"),
            message=f"log-probabilities are summed over a latent, but the clip range {clip:g} is one for their mean.",
            way_out="Set `algorithm.clip_range` to 0.1 or 0.2, or `algorithm.log_prob: mean`.",
        )


def _unconditional(config: DiffusionRun, algorithm: ChainConfig) -> Iterator[Problem]:
    as_input = isinstance(config.model, GUIDANCE_AS_INPUT)
    if not algorithm.detach_unconditional or (config.rollout.guidance_scale != 1 and not as_input):
        return
    why = "takes guidance as an input of its network" if as_input else "is sampled with guidance 1"
    yield Problem(
        keys=("algorithm.detach_unconditional", "rollout.guidance_scale"),
        message=f"there is no unconditional pass whose gradient could be left out: the model {why}.",
        way_out="Remove `algorithm.detach_unconditional`.",
    )


_RULES = (_noise, _steps, _scale_of_log_prob, _unconditional)


# --- rules of one method ----------------------------------------------------------------------------------------------


@singledispatch
def check_method(algorithm: Any, config: DiffusionRun) -> Iterator[Problem]:
    """Contradictions of one method on the chain (`Any`: its settings)."""
    return iter(())


@check_method.register
def _(algorithm: ReinforceConfig, config: DiffusionRun) -> Iterator[Problem]:
    updates = config.training.updates_per_rollout
    if updates > 1:
        yield Problem(
            keys=("algorithm.kind", "training.updates_per_rollout"),
            message=(
                f"`reinforce` has no ratio, so a rollout serves one update; found {updates}: the later ones would "
                "follow samples of another policy."
            ),
            way_out="Set `training.updates_per_rollout: 1`, or `algorithm.kind: ddpo`.",
        )


@check_method.register
def _(algorithm: LoopConfig, config: DiffusionRun) -> Iterator[Problem]:
    base = config.pipeline.base
    if not isinstance(base, Rloo):
        yield Problem(
            keys=("algorithm.kind", "pipeline.base.kind"),
            message=f"`loop` is the method with the leave-one-out baseline; found `pipeline.base: {base.kind}`.",
            way_out="Set `pipeline.base: {kind: rloo}`; with another baseline the method is `algorithm.kind: ddpo`.",
        )
    if config.rollout.group_size < 2:
        yield Problem(
            keys=("algorithm.kind", "rollout.group_size"),
            message="`loop` compares each picture with the others of its prompt; found one picture per prompt.",
            way_out="Set `rollout.group_size` to 2 or more (the paper: 2 to 4).",
        )


@check_method.register
def _(algorithm: FlowGrpoConfig, config: DiffusionRun) -> Iterator[Problem]:
    yield from _kl(algorithm, config)
    yield from _guard(algorithm, config)
    yield from _branching(algorithm, config)


def _kl(algorithm: FlowGrpoConfig, config: DiffusionRun) -> Iterator[Problem]:
    sampler = config.rollout.sampler
    if algorithm.kl_beta > 0 and algorithm.kl_norm == "released" and isinstance(sampler, CpsSampler | DdimSampler):
        yield Problem(
            keys=("algorithm.kl_norm", "rollout.sampler.kind"),
            message=(
                f"the released form of the KL has the time step of a flow SDE in it, which `{sampler.kind}` does not."
            ),
            way_out="Set `algorithm.kl_norm` to `exact` or `velocity`, with a weight that fits.",
        )
    if algorithm.kl_beta > 0 and algorithm.skip_zero_advantages:
        yield Problem(
            keys=("algorithm.kl_beta", "algorithm.skip_zero_advantages"),
            message="rows of advantage 0 cannot be skipped while a KL term pulls on them, too.",
            way_out="Set `algorithm.skip_zero_advantages: false`, or `algorithm.kl_beta: 0`.",
        )


def _guard(algorithm: FlowGrpoConfig, config: DiffusionRun) -> Iterator[Problem]:
    if algorithm.guard is None:
        return
    if isinstance(config.rollout.sampler, CpsSampler):
        yield Problem(
            keys=("algorithm.guard", "rollout.sampler.kind"),
            message="GRPO-Guard corrects a Gaussian log-probability; that of `cps` is a bare squared difference.",
            way_out="Set `rollout.sampler.kind: flow_sde`, or `algorithm.guard: null`.",
        )
    if algorithm.log_prob == "sum":
        yield Problem(
            keys=("algorithm.guard", "algorithm.log_prob"),
            message="GRPO-Guard's ratio is defined for means over latent elements; found `algorithm.log_prob: sum`.",
            way_out="Set `algorithm.log_prob: mean`, or `algorithm.guard: null`.",
        )


def _branching(algorithm: FlowGrpoConfig, config: DiffusionRun) -> Iterator[Problem]:
    tree, group = algorithm.branching, config.rollout.group_size
    if tree is None:
        return
    if isinstance(algorithm.steps, RandomSteps):
        yield Problem(
            keys=("algorithm.branching", "algorithm.steps.kind"),
            message="rollouts can only part ways at trained steps, and a random subset of steps leaves out some.",
            way_out="Set `algorithm.steps.kind` to all, random_window or sliding_window.",
        )
    try:
        places = trained_count(algorithm.steps, config.rollout.num_inference_steps)
    except ValueError:
        return  # has been told
    if not tree.at or list(tree.at) != sorted(set(tree.at)) or tree.at[-1] >= places:
        yield Problem(
            keys=("algorithm.branching.at", "algorithm.steps"),
            message=f"expected ascending places from 0 to {places - 1} among the trained steps, found {list(tree.at)}.",
            way_out="Correct `algorithm.branching.at`, or set `algorithm.branching: null`.",
        )
    leaves = tree.factor ** len(tree.at)
    if leaves != group:
        yield Problem(
            keys=("algorithm.branching", "rollout.group_size"),
            message=f"{len(tree.at)} splits into {tree.factor} make {leaves} pictures of a prompt, found {group}.",
            way_out=f"Set `rollout.group_size: {leaves}`, or change the splits.",
        )
