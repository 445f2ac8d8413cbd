"""Contradictions in the settings of a run of DPA, found before anything heavy is imported. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from align.config import checks as shared
from align.config.check_directions import check_directions
from align.config.directions import Listed
from align.config.errors import Problem
from align.config.lengths import refuse_epochs
from align.config.needs import explain, needs_of, unmet
from align.config.pipeline import PipelineConfig
from align.errors import AlignError, did_you_mean
from preference.data import read_prompts
from preference.dpa.check_warm import check_warm_start
from preference.dpa.config import DpaRun
from preference.models.locate import locate
from preference.tables import is_local

OF_LOSS = {"beta": "dpo", "tau": "rwr", "estimator": "grpo", "clip_range": "grpo"}
"""Setting -> the loss that reads it."""


def contradictions(config: DpaRun, processes: int = 1) -> Iterator[Problem]:
    """Every contradiction of a run.

    Args:
        config: its settings.
        processes: how many processes it will run on.
    """
    return chain(
        shared.check_recipe(config.recipe),
        _check_model(config),
        _check_prompts(config),
        shared.check_rewards(config.rewards),
        _check_objectives(config),
        _check_directions(config),
        _check_template(config),
        _check_rounds(config, processes),
        _check_loss(config),
        check_warm_start(config),
        shared.check_optimizer(config.optimizer, config.training),
        refuse_epochs(config.training),
        shared.check_precision(config.training, config.model.dtype, config.model.lora),
        shared.check_output(config.output),
        _check_sampling(config),
    )


def _check_model(config: DpaRun) -> Iterator[Problem]:
    try:
        locate(config.model.path)
    except AlignError as error:
        yield Problem(keys=("model.path",), message=error.message, way_out=error.way_out)


def _check_prompts(config: DpaRun) -> Iterator[Problem]:
    data = config.data
    if data.max_prompt_length >= data.max_length:
        yield Problem(
            keys=("data.max_prompt_length", "data.max_length"),
            message=f"a prompt may have {data.max_prompt_length} tokens and, with its answer, {data.max_length}.",
            way_out=f"Set `data.max_prompt_length` to at most {data.max_length - 1}, or raise `data.max_length`.",
        )
    sources = (
        ("data.train", data.train, data.train_split),
        ("data.heldout", data.heldout, data.heldout_split),
        ("evaluation.generate.prompts", config.evaluation.generate.prompts, "train"),
    )
    for key, source, split in sources:
        if source is None or not is_local(source):
            continue
        try:
            read_prompts(source, split=split, column=data.prompt, bad_rows=data.bad_rows)
        except AlignError as error:
            yield Problem(keys=(key,), message=f"`{key}`: {error.message}", way_out=error.way_out)
    same = data.heldout is not None and Path(data.train) == Path(data.heldout)
    if same and data.train_split == data.heldout_split:
        yield Problem(
            keys=("data.train", "data.heldout"),
            message="training and held-out prompts are the same: evaluation would not show new prompts.",
            way_out="Split the file, or set `data.heldout: null`.",
        )


def _check_objectives(config: DpaRun) -> Iterator[Problem]:
    rewards = config.reward_names()
    for number, reward in enumerate(config.rewards):
        if reward.weight != 1:
            yield Problem(
                keys=(f"rewards.{number}.weight",),
                message=f"`rewards.{number}.weight` is {reward.weight:g}, but DPA reads no weights: directions weigh.",
                way_out="Leave it out. For less of a reward, give its component a minus, or make an objective of it: "
                "`algorithm.objectives: {brevity: {length: -1.0}, ...}`; rewards outside `objectives` are metrics.",
            )
    for name, mix in (config.algorithm.objectives or {}).items():
        unknown = [reward for reward in mix if reward not in rewards]
        if unknown or not any(mix.values()):
            found = f"`{unknown[0]}`, which is no reward.{did_you_mean(unknown[0], rewards)}" if unknown else "nothing."
            yield Problem(
                keys=(f"algorithm.objectives.{name}", "rewards"),
                message=f"the objective `{name}` is made of {found}",
                way_out=f"The rewards are {', '.join(rewards) or 'none'}.",
            )
    if config.rewards and len(config.names()) < 2:
        yield Problem(
            keys=("rewards", "algorithm.objectives"),
            message="directions need at least two objectives, found one.",
            way_out="Add a reward; for one objective, train on it: DPO on `align pairs`, or an on-line method.",
        )


def _check_directions(config: DpaRun) -> Iterator[Problem]:
    shown = {"evaluation.directions": config.evaluation.directions}
    return check_directions(config.algorithm.directions, config.names(), "algorithm.directions", shown)


def _check_template(config: DpaRun) -> Iterator[Problem]:
    template, placement = config.algorithm.template, config.algorithm.placement
    missing = [name for name in config.names() if template is not None and f"{{{name}}}" not in template]
    if missing:
        yield Problem(
            keys=("algorithm.template",),
            message=f"the control text has no slot for the objective `{missing[0]}`.",
            way_out=f"Write {{{missing[0]}}} where its number goes.",
        )
    given = config.algorithm.directions
    if placement == "none" and not (isinstance(given, Listed) and len(given.directions) == 1):
        yield Problem(
            keys=("algorithm.placement", "algorithm.directions"),
            message="without a control text the policy cannot know its direction, but several are drawn.",
            way_out="Use `placement: system`, or one direction: `directions: {kind: list, directions: [...]}`.",
        )


def _check_rounds(config: DpaRun, processes: int) -> Iterator[Problem]:
    algorithm, steps = config.algorithm, config.training.steps - config.warm_steps()
    if steps % algorithm.rounds:
        yield Problem(
            keys=("training.steps", "algorithm.rounds"),
            message=f"{steps} steps do not divide over {algorithm.rounds} rounds.",
            way_out=f"Set `training.steps`, without those of a warm start, to a multiple of {algorithm.rounds}.",
        )
    rows, updates = config.data.answers_per_step, config.training.updates_per_rollout
    if rows % updates or rows // updates < processes:
        yield Problem(
            keys=("data.answers_per_step", "training.updates_per_rollout"),
            message=f"{rows} answers a step are to serve {updates} equal updates on {processes} processes.",
            way_out=f"Set `data.answers_per_step` to a multiple of {updates} that is at least {updates * processes}.",
        )
    per_round = algorithm.prompts_per_round or math.inf
    per_round *= algorithm.directions_per_prompt * algorithm.kept_of_group()
    if per_round < rows:
        yield Problem(
            keys=("data.answers_per_step", "algorithm.prompts_per_round"),
            message=f"a round keeps at most {per_round:.0f} answers, and a step reads {rows} different ones.",
            way_out="Raise `algorithm.prompts_per_round`, or lower `data.answers_per_step`.",
        )


def _check_loss(config: DpaRun) -> Iterator[Problem]:
    """Settings of another loss, and an estimator that reads more than scores and groups."""
    algorithm = config.algorithm
    for key, loss in OF_LOSS.items():
        if getattr(algorithm, key) is not None and algorithm.loss != loss:
            yield Problem(
                keys=(f"algorithm.{key}", "algorithm.loss"),
                message=f"`{key}` belongs to `loss: {loss}`.",
                way_out=f"Leave it out, or set `loss: {loss}`.",
            )
    if algorithm.loss == "grpo" and algorithm.replayed() > 0:
        yield Problem(
            keys=("algorithm.replay", "algorithm.loss"),
            message="`loss: grpo` compares with the policy at the round's start, and older answers are not its own.",
            way_out="Leave `replay` out, or use `loss: rwr`.",
        )
    if algorithm.estimator is None:
        return
    missing = unmet(needs_of(PipelineConfig(base=algorithm.estimator, clip=None)), ())
    if missing:
        message, _ = explain(missing, ())
        yield Problem(
            keys=("algorithm.estimator",),
            message=f"`algorithm.estimator`: {message}",
            way_out="Choose one that reads scores and groups only: grpo, dr_grpo, rloo, flow_grpo, ...",
        )


def _check_sampling(config: DpaRun) -> Iterator[Problem]:
    generate = config.evaluation.generate
    for key, share in (("algorithm.top_p", config.algorithm.top_p), ("evaluation.generate.top_p", generate.top_p)):
        if share > 1:
            message = f"`{key}` is a share of probability, found {share:g}."
            yield Problem(keys=(key,), message=message, way_out="Set it to at most 1.")
    if generate.temperature == 0 and generate.seeds > 1:
        yield Problem(
            keys=("evaluation.generate.temperature", "evaluation.generate.seeds"),
            message="at temperature 0 all answers to a prompt are the same.",
            way_out="Set a temperature such as 0.7, or remove `seeds`.",
        )
    if config.evaluation.every and config.data.heldout is None and generate.prompts is None:
        yield Problem(
            keys=("evaluation.every", "data.heldout"),
            message="`evaluation.every` is set, but there are no held-out prompts.",
            way_out="Name them in `data.heldout`, or remove it.",
        )
