"""Contradictions of the methods that train on final pictures. Torch-free. One small function per rule."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from align.config import checks as shared
from align.config.errors import Problem
from align.errors import AlignError
from diffusion.arithmetic import samples_per_step
from diffusion.check_sampling import DIFFUSION_PATH
from diffusion.config import (
    GUIDANCE_AS_INPUT,
    AwmConfig,
    DiffusionDpoConfig,
    DiffusionRun,
    NftConfig,
    OnlineDpoConfig,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)
from diffusion.needs import is_offline, row_name, rows_per_step
from diffusion.stored_pictures import read_pictures

ROWS = {
    OnlineDpoConfig: "rollout.prompts_per_step",
    SftBestConfig: "rollout.prompts_per_step",
    DiffusionDpoConfig: "algorithm.pairs_per_step",
    SftConfig: "algorithm.images_per_step",
}
"""Methods whose updates are not cut from all pictures of a rollout, and the setting that says from how many rows."""


def check_forward(config: DiffusionRun) -> Iterator[Problem]:
    """Every rule."""
    rules = (_check_elbo, _check_guidance, _check_clip, _check_comparison, _check_data)
    return chain.from_iterable(rule(config) for rule in rules)


def check_rewards(config: DiffusionRun) -> Iterator[Problem]:
    """As for every run; a method that learns from stored pictures has none."""
    if not is_offline(config):
        yield from shared.check_rewards(config.rewards, config.evaluation.rewards)
        return
    if config.rewards:
        yield Problem(
            keys=("rewards", "algorithm.kind"),
            message=f"`{config.algorithm.kind}` learns from stored pictures and would never ask these rewards.",
            way_out="Move them to `evaluation.rewards`, which scores the held-out pictures.",
        )
    elif config.evaluation.rewards:
        yield from shared.check_rewards(config.evaluation.rewards)


def check_updates(config: DiffusionRun, processes: int) -> Iterator[Problem]:
    """The rows of a step must divide over its optimiser updates, and each process needs one in each update."""
    key = ROWS.get(type(config.algorithm))
    if not is_offline(config):
        yield from shared.check_updates(samples_per_step(config.rollout), config.training, processes)
    if key is None:
        return
    rows, updates, name = rows_per_step(config), config.training.updates_per_rollout, row_name(config)
    if rows % updates or rows // updates < processes:
        yield Problem(
            keys=(key, "training.updates_per_rollout"),
            message=(
                f"`{key}` gives `{config.algorithm.kind}` {rows} {name} a step for {updates} equal updates on "
                f"{processes} processes: each process needs one of them in each update."
            ),
            way_out=f"Set `{key}` to a multiple of {updates} that is at least {updates * processes}.",
        )


def _check_elbo(config: DiffusionRun) -> Iterator[Problem]:
    """A weight of the flow path on a model that has another."""
    elbo = isinstance(config.algorithm, AwmConfig) and config.algorithm.kl_weighting == "elbo"
    if elbo and isinstance(config.model, DIFFUSION_PATH):
        yield Problem(
            keys=("algorithm.kl_weighting", "model.kind"),
            message="`algorithm.kl_weighting: elbo` is the weight of a flow model's SDE, and this model has none.",
            way_out="Set `algorithm.kl_weighting: uniform`.",
        )


def _check_guidance(config: DiffusionRun) -> Iterator[Problem]:
    """DiffusionNFT without classifier-free guidance."""
    two_passes = config.rollout.guidance_scale != 1.0 and not isinstance(config.model, GUIDANCE_AS_INPUT)
    if isinstance(config.algorithm, NftConfig) and two_passes:
        yield Problem(
            keys=("rollout.guidance_scale", "algorithm.kind"),
            message=(
                "DiffusionNFT regresses one network on the pictures that it has drawn; pictures of a guided sampler "
                f"(`rollout.guidance_scale: {config.rollout.guidance_scale:g}`) are drawn by two."
            ),
            way_out="Set `rollout.guidance_scale: 1`; training brings back what guidance gives. Or take `awm`.",
        )


def _check_clip(config: DiffusionRun) -> Iterator[Problem]:
    """DiffusionNFT maps a bounded advantage to 0 ... 1."""
    if isinstance(config.algorithm, NftConfig) and config.pipeline.clip is None:
        yield Problem(
            keys=("pipeline.clip", "algorithm.kind"),
            message="DiffusionNFT maps advantages from +-`pipeline.clip` to 0 ... 1, and there is no such bound.",
            way_out="Set `pipeline.clip`; released: 5.",
        )


def _check_comparison(config: DiffusionRun) -> Iterator[Problem]:
    """Methods that choose among the pictures of a prompt, or weigh them against each other."""
    algorithm = config.algorithm
    compares = isinstance(algorithm, OnlineDpoConfig | SftBestConfig) or (
        isinstance(algorithm, RwrConfig) and algorithm.weights == "exponential"
    )
    if compares and config.rollout.group_size < 2:
        yield Problem(
            keys=("rollout.group_size", "algorithm.kind"),
            message=f"`{algorithm.kind}` compares the pictures of a prompt, but there is one of each.",
            way_out="Set `rollout.group_size` to 2 or more.",
        )


def _check_data(config: DiffusionRun) -> Iterator[Problem]:
    """Stored pictures that cannot be used, or fewer than a step takes."""
    data = getattr(config.algorithm, "data", None)
    if data is None:
        return
    try:
        pictures = read_pictures(data)
    except AlignError as error:
        yield Problem(keys=("algorithm.data",), message=f"`algorithm.data`: {error.message}", way_out=error.way_out)
        return
    key, wanted = ROWS[type(config.algorithm)], rows_per_step(config)
    if len(pictures) < wanted:
        yield Problem(
            keys=(key, "algorithm.data.path"),
            message=f"a step takes {wanted} different {row_name(config)}, but {data.path} has {len(pictures)}.",
            way_out=f"Set `{key}` to at most {len(pictures)}, or add rows.",
        )
