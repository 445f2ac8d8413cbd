"""Contradictions in the settings of a text-to-image run, found before anything heavy is imported. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from itertools import chain
from pathlib import Path
from typing import Any

from align.config import checks as shared
from align.config.check_pipeline import check_pipeline
from align.config.errors import Problem
from align.config.lengths import refuse_epochs
from align.errors import AlignError
from diffusion.check_chain import check_chain
from diffusion.check_directions import check_steering
from diffusion.check_forward import check_forward, check_rewards, check_updates
from diffusion.check_guidance import check_guidance
from diffusion.check_sampling import check_sampling
from diffusion.config import (
    AwmConfig,
    DiffusionDpoConfig,
    DiffusionRun,
    DiscreteTimes,
    NftConfig,
    OnlineDpoConfig,
    PromptsConfig,
    RolloutConfig,
    RolloutTimes,
    RwrConfig,
    SaSolverSampler,
    SftBestConfig,
    SftConfig,
)
from diffusion.inputs import providers_for
from diffusion.models.files import ModelFiles, latent_unit, misfit
from diffusion.models.locate import locate
from diffusion.models.targets import NETWORKS
from diffusion.needs import is_offline
from diffusion.prompts import PromptSet, read_prompts
from diffusion.strata import discrete_strata

PIPELINES = {
    "stable_diffusion": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "sana": "SanaPipeline",
    "qwen_image": "QwenImagePipeline",
}
"""The diffusers class that a folder of each model kind must hold."""


def contradictions(config: DiffusionRun, processes: int = 1) -> Iterator[Problem]:
    """Every contradiction of a run.

    Args:
        config: its settings.
        processes: how many processes it will run on.
    """
    return chain(
        shared.check_recipe(config.recipe),
        _check_model(config),
        _check_prompts(config),
        check_rewards(config),
        check_pipeline(config.rewards, config.pipeline, provided=providers_for(config)),
        iter(()) if is_offline(config) else shared.check_groups(config.pipeline, config.rollout.group_size),
        check_updates(config, processes),
        shared.check_optimizer(config.optimizer, config.training),
        iter(()) if is_offline(config) else refuse_epochs(config.training),
        shared.check_precision(config.training, config.model.dtype, config.model.lora),
        shared.check_output(config.output),
        check_sampler(config.rollout.sampler),
        check_algorithm(config.algorithm, config.rollout),
        check_guidance(config),
        check_sampling(config),
        check_chain(config),
        check_forward(config),
        check_steering(config),
    )


def _check_model(config: DiffusionRun) -> Iterator[Problem]:
    try:
        source = locate(config.model.path, PIPELINES[config.model.kind])
    except AlignError as error:
        yield Problem(keys=("model.path",), message=error.message, way_out=error.way_out)
        return
    if config.rollout.resolution is not None:
        yield from _check_resolution(config, Path(source), config.rollout.resolution)


def _check_resolution(config: DiffusionRun, folder: Path, resolution: int) -> Iterator[Problem]:
    """A size that autoencoder and network cannot halve; for a hub id that is found when the model is loaded."""
    try:
        files = ModelFiles.read(folder, NETWORKS[config.model.kind].part)
        problem = misfit(resolution, files.factor() * latent_unit(config.model, files))
    except (OSError, KeyError, ValueError, StopIteration):
        return
    if problem is not None:
        yield Problem(keys=("rollout.resolution", "model.path"), message=problem[0], way_out=problem[1])


def _check_prompts(config: DiffusionRun) -> Iterator[Problem]:
    """Files that cannot be read, fewer prompts than a step takes, evaluation without its own prompts."""
    prompts = config.prompts
    train = _read("prompts.train", prompts.train)
    heldout = None if prompts.heldout is None else _read("prompts.heldout", prompts.heldout)
    yield from (found for found in (train, heldout) if isinstance(found, Problem))
    if isinstance(train, PromptSet) and len(train) < config.rollout.prompts_per_step:
        yield Problem(
            keys=("rollout.prompts_per_step", "prompts.train"),
            message=(
                f"a step takes {config.rollout.prompts_per_step} different prompts, but {prompts.train} has "
                f"{len(train)}: the step could not be filled."
            ),
            way_out=f"Set `rollout.prompts_per_step` to at most {len(train)}, or add prompts.",
        )
    if prompts.heldout is not None and _same_file(prompts):
        yield Problem(
            keys=("prompts.train", "prompts.heldout"),
            message="training and held-out prompts are the same file: evaluation would not show new prompts.",
            way_out="Split the file, or set `prompts.heldout: null` to go without evaluation.",
        )
    if prompts.heldout is None and (config.evaluation.every or config.evaluation.rewards):
        keys = ("prompts.heldout", "evaluation.every", "evaluation.rewards")
        message = "`evaluation` is set, but there are no held-out prompts (`prompts.heldout: null`)."
        yield Problem(keys=keys, message=message, way_out="Give a file of held-out prompts, or remove these settings.")


def _read(key: str, source: str) -> PromptSet | Problem:
    try:
        return read_prompts(source)
    except (AlignError, OSError) as error:
        message, way_out = (error.message, error.way_out) if isinstance(error, AlignError) else (str(error), "")
        return Problem(keys=(key,), message=f"`{key}`: {message}", way_out=way_out)


def _same_file(prompts: PromptsConfig) -> bool:
    train, heldout = (str(source) for source in (prompts.train, prompts.heldout))
    return train == heldout or (Path(train).is_file() and Path(heldout).is_file() and Path(train).samefile(heldout))


@singledispatch
def check_sampler(sampler: Any) -> Iterator[Problem]:
    """Contradictions within a sampler's settings (`Any`: the members of `Sampler`)."""
    return iter(())


@check_sampler.register
def _(sampler: SaSolverSampler) -> Iterator[Problem]:
    if sampler.noise_from > sampler.noise_until:
        yield Problem(
            keys=("rollout.sampler.noise_from", "rollout.sampler.noise_until"),
            message=(
                f"noise is added for times from {sampler.noise_from:g} to {sampler.noise_until:g}: an empty range, so "
                "there would be none (1 is noise, 0 the clean image)."
            ),
            way_out="Exchange the two, or set `rollout.sampler.noise_level: 0` for a deterministic rollout.",
        )


@singledispatch
def check_algorithm(algorithm: Any, rollout: RolloutConfig) -> Iterator[Problem]:
    """Contradictions within a method's settings, and with its rollouts (`Any`: the members of `Algorithm`)."""
    return iter(())


@check_algorithm.register
def _(algorithm: AwmConfig, rollout: RolloutConfig) -> Iterator[Problem]:
    if algorithm.off_policy and algorithm.lagged is None:
        yield Problem(
            keys=("algorithm.off_policy", "algorithm.lagged"),
            message="off-policy training rolls out with the lagged policy, but that is off (`algorithm.lagged: null`).",
            way_out="Remove `algorithm.lagged: null`, or set `algorithm.off_policy: false`.",
        )
    yield from check_times(algorithm.times, rollout)


@check_algorithm.register
def _(
    algorithm: NftConfig | OnlineDpoConfig | DiffusionDpoConfig | RwrConfig | SftBestConfig | SftConfig,
    rollout: RolloutConfig,
) -> Iterator[Problem]:
    yield from check_times(algorithm.times, rollout)


@singledispatch
def check_times(times: Any, rollout: RolloutConfig) -> Iterator[Problem]:
    """Training times that the rollout's schedule does not have (`Any`: the members of `Times`)."""
    return iter(())


@check_times.register
def _(times: DiscreteTimes, rollout: RolloutConfig) -> Iterator[Problem]:
    steps = rollout.num_inference_steps
    if _fits(steps, times.draws, times):
        return
    most = next((draws for draws in range(times.draws, 0, -1) if _fits(steps, draws, times)), 0)
    enough = next((n for n in range(steps, 100 * steps + 100) if _fits(n, times.draws, times)), None)
    ways = [f"set `algorithm.times.draws` to at most {most}"] if most else []
    ways += [f"set `rollout.num_inference_steps` to at least {enough}"] if enough else ["raise `algorithm.times.until`"]
    yield Problem(
        keys=("algorithm.times.draws", "algorithm.times.until", "rollout.num_inference_steps"),
        message=(
            f"{times.draws} training times are to be drawn from different parts of the schedule, but of its {steps} "
            f"steps too few are trained (until={times.until:g}, initial={times.initial})."
        ),
        way_out=f"Either {', or '.join(ways)}.",
    )


@check_times.register
def _(times: RolloutTimes, rollout: RolloutConfig) -> Iterator[Problem]:
    steps = rollout.num_inference_steps
    if times.draws > steps:
        yield Problem(
            keys=("algorithm.times.draws", "rollout.num_inference_steps"),
            message=f"{times.draws} training times are to be drawn from the {steps} steps of the rollout, each once.",
            way_out=f"Set `algorithm.times.draws` to at most {steps}.",
        )


def _fits(steps: int, draws: int, times: DiscreteTimes) -> bool:
    try:
        return bool(discrete_strata(steps, draws, times.initial, times.until))
    except ValueError:
        return False
