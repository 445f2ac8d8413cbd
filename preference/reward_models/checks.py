"""Contradictions in the settings of a reward model's run, found before anything heavy is imported. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from pathlib import Path

from align.config import checks as shared
from align.config.errors import Problem
from align.errors import AlignError
from preference.data import read_pairs
from preference.models.locate import locate
from preference.reward_models.config import (
    RatingsConfig,
    RewardBtConfig,
    RewardModelRun,
    RewardPairsConfig,
    RewardRidgeConfig,
    RewardTrainingConfig,
)
from preference.reward_models.data import heldout_ratings, training_ratings
from preference.tables import is_local

FROZEN = ("micro_batch_size",)
"""Training settings that a ridge regression reads."""


def contradictions(config: RewardModelRun, processes: int = 1) -> Iterator[Problem]:
    """Every contradiction of a run.

    Args:
        config: its settings.
        processes: how many processes it will run on.
    """
    return chain(
        shared.check_recipe(config.recipe),
        _check_model(config),
        _check_data_kind(config),
        _check_attributes(config),
        _check_heldout(config),
        _check_rows(config),
        _check_frozen(config),
        _check_updates(config, processes),
        shared.check_optimizer(config.optimizer, config.training),
        _check_precision(config),
        shared.check_output(config.output),
        _check_evaluation(config),
    )


def _check_model(config: RewardModelRun) -> Iterator[Problem]:
    try:
        locate(config.model.path)
    except AlignError as error:
        yield Problem(keys=("model.path",), message=error.message, way_out=error.way_out)
    if config.model.quantization is not None:
        yield Problem(
            keys=("model.quantization",),
            message="a reward model is saved with its adapter folded in, which quantised weights cannot take up.",
            way_out="Use `quantization: null`.",
        )


def _check_data_kind(config: RewardModelRun) -> Iterator[Problem]:
    wants_pairs = isinstance(config.algorithm, RewardBtConfig)
    if wants_pairs != isinstance(config.data, RewardPairsConfig):
        wanted = "pairs" if wants_pairs else "ratings"
        yield Problem(
            keys=("algorithm.kind", "data.kind"),
            message=f"`{config.algorithm.kind}` learns from {wanted}, but `data.kind` is {config.data.kind}.",
            way_out=f"Set `data.kind: {wanted}`, or choose another method.",
        )


def _check_attributes(config: RewardModelRun) -> Iterator[Problem]:
    data = config.data
    if not isinstance(data, RatingsConfig):
        return
    if not data.attributes:
        yield Problem(
            keys=("data.attributes",),
            message="there is no attribute to learn.",
            way_out="Add some, such as `attributes: {helpfulness: {lowest: 0, highest: 4, levels: 5}}`.",
        )
    for name, scale in data.attributes.items():
        problem = scale.problem()
        if problem is not None:
            way_out = "For ratings 0, 1, 2, 3, 4 write `{lowest: 0, highest: 4, levels: 5}`."
            yield Problem(keys=(f"data.attributes.{name}",), message=f"`{name}`: {problem}.", way_out=way_out)
    gate = getattr(config.algorithm, "gate", None)
    if gate is not None and gate.penalised is not None and gate.penalised not in data.attributes:
        yield Problem(
            keys=("algorithm.gate.penalised",),
            message=f"`algorithm.gate.penalised` names no attribute of `data.attributes`: {gate.penalised}.",
            way_out=f"Name one of {', '.join(data.attributes)}, or leave it out.",
        )


def _check_heldout(config: RewardModelRun) -> Iterator[Problem]:
    """Held-out rows that are trained on: the same split of the same source, or a file, which has no splits."""
    data = config.data
    if data.train == data.heldout and (data.train_split == data.heldout_split or Path(data.train).is_file()):
        yield Problem(
            keys=("data.train", "data.heldout"),
            message=f"training and held-out rows are the same ({data.train}): evaluation would not show new ones.",
            way_out="Split the file, or set `data.heldout: null` to go without held-out rows.",
        )


def _check_rows(config: RewardModelRun) -> Iterator[Problem]:
    """Local files that cannot be read or used, and fewer rows than a step takes; the hub is read by the run only."""
    data = config.data
    if isinstance(data, RatingsConfig) and any(scale.problem() for scale in data.attributes.values()):
        return
    if isinstance(data, RatingsConfig) and not data.attributes:
        return
    if is_local(data.train):
        try:
            found = training_ratings(data) if isinstance(data, RatingsConfig) else read_pairs(data.train, data)
        except AlignError as error:
            yield Problem(keys=("data.train",), message=f"`data.train`: {error.message}", way_out=error.way_out)
        else:
            if len(found) < config.rows_per_step and not isinstance(config.algorithm, RewardRidgeConfig):
                yield _too_few(config, len(found))
    if data.heldout is not None and is_local(data.heldout):
        try:
            if isinstance(data, RatingsConfig):
                heldout_ratings(data)
            else:
                read_pairs(data.heldout, data, split=data.heldout_split)
        except AlignError as error:
            yield Problem(keys=("data.heldout",), message=f"`data.heldout`: {error.message}", way_out=error.way_out)


def _too_few(config: RewardModelRun, rows: int) -> Problem:
    key = "data.pairs_per_step" if isinstance(config.data, RewardPairsConfig) else "data.answers_per_step"
    return Problem(
        keys=(key, "data.train"),
        message=f"a step takes {config.rows_per_step} different rows, but {config.data.train} has {rows}.",
        way_out=f"Set `{key}` to at most {rows}, or add rows.",
    )


def _check_frozen(config: RewardModelRun) -> Iterator[Problem]:
    """A ridge regression takes no steps: settings about them would be ignored, so they are refused."""
    if not isinstance(config.algorithm, RewardRidgeConfig):
        return
    usual = RewardTrainingConfig()
    for name in (item.name for item in fields(usual) if item.name not in FROZEN):
        if getattr(config.training, name) != getattr(usual, name):
            yield Problem(
                keys=(f"training.{name}", "algorithm.kind"),
                message=f"`reward_ridge` is solved in closed form and takes no steps, but `training.{name}` is set.",
                way_out="Remove it.",
            )
    if config.evaluation.every:
        yield Problem(
            keys=("evaluation.every", "algorithm.kind"),
            message="`reward_ridge` takes no steps to evaluate after, but `evaluation.every` is set.",
            way_out="Remove it: it is evaluated once.",
        )


def _check_precision(config: RewardModelRun) -> Iterator[Problem]:
    """Number formats of a network that is trained; a frozen one computes in its own."""
    if not isinstance(config.algorithm, RewardRidgeConfig):
        yield from shared.check_precision(config.training, config.model.dtype, config.model.lora)


def _check_updates(config: RewardModelRun, processes: int) -> Iterator[Problem]:
    """The rows of a step must divide over its optimiser updates, and each process needs one in each update."""
    rows, updates = config.rows_per_step, config.training.updates_per_rollout
    if isinstance(config.algorithm, RewardRidgeConfig):
        return
    if rows % updates or rows // updates < processes:
        key = "data.pairs_per_step" if isinstance(config.data, RewardPairsConfig) else "data.answers_per_step"
        yield Problem(
            keys=(key, "training.updates_per_rollout"),
            message=(
                f"{rows} rows a step are to serve {updates} equal updates on {processes} processes: each process needs "
                "one of them in each update."
            ),
            way_out=f"Set `{key}` to a multiple of {updates} that is at least {updates * processes}.",
        )


def _check_evaluation(config: RewardModelRun) -> Iterator[Problem]:
    if config.evaluation.every and config.data.heldout is None:
        yield Problem(
            keys=("evaluation.every", "data.heldout"),
            message="`evaluation.every` is set, but nothing is held out.",
            way_out="Name held-out rows in `data.heldout`, or remove it.",
        )
