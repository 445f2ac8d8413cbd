"""The plan of a reward model's run: its arithmetic in rows that a person can check. Torch-free."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from align.config.lengths import with_steps
from align.inspect.plan import Plan, Row, Section, differences_from
from preference.arithmetic import batches, process_slice, times_with_interval
from preference.data import read_pairs
from preference.reward_models.config import (
    RatingsConfig,
    RewardBtConfig,
    RewardModelRun,
    RewardPairsConfig,
    RewardRegressionConfig,
    RewardRidgeConfig,
)
from preference.reward_models.data import training_ratings


def plan(config: RewardModelRun, processes: int = 1) -> Plan:
    """What a run is going to do.

    Args:
        config: its settings, already checked.
        processes: how many processes it runs on.
    """
    frozen = isinstance(config.algorithm, RewardRidgeConfig)
    config = config if frozen else _counted(config)
    return Plan(
        title=f"{config.algorithm.kind} on {config.model.path}",
        sections=(
            Section(title="What is trained", rows=_what(config)),
            Section(title="What it reads", rows=_reads(config)),
            Section(title="Each step", rows=_pass(config) if frozen else _step(config, processes)),
            Section(title="The whole run", rows=(*(() if frozen else _run(config)), *_evaluation(config))),
        ),
        recipe=config.recipe,
        differences=() if config.recipe is None else differences_from(config, config.recipe),
    )


def _counted(config: RewardModelRun) -> RewardModelRun:
    """Epochs as steps; rows are read for that alone."""
    if config.training.epochs is None:
        return config
    data = config.data
    rows = training_ratings(data) if isinstance(data, RatingsConfig) else read_pairs(data.train, data)
    return with_steps(config, len(rows), config.rows_per_step)


@singledispatch
def loss_text(algorithm: Any) -> str:
    """The loss in words (`Any`: the members of `RewardAlgorithm`)."""
    return str(algorithm.kind)


@loss_text.register
def _(algorithm: RewardBtConfig) -> str:
    parts = [
        "-log sigma(r_chosen - r_rejected" + (f" - {algorithm.margin_column})" if algorithm.margin_column else ")")
    ]
    if algorithm.label_smoothing:
        parts.append(f"label smoothing {algorithm.label_smoothing:g}")
    if algorithm.centre_weight:
        parts.append(f"{algorithm.centre_weight:g} (r_chosen + r_rejected)^2")
    return " + ".join(parts)


@loss_text.register
def _(algorithm: RewardRegressionConfig) -> str:
    how = {"micro": "over all labels", "macro": "first within each attribute"}
    return f"squared errors, mean {how[algorithm.averaging]}"


@loss_text.register
def _(algorithm: RewardRidgeConfig) -> str:
    return "ridge regression in closed form" + ("" if algorithm.gate is None else ", then a gate on pairs")


def _what(config: RewardModelRun) -> tuple[Row, ...]:
    lora = config.model.lora
    trained = "all weights" if lora is None else f"LoRA rank {lora.rank}, alpha {lora.alpha:g}, and the head"
    if isinstance(config.algorithm, RewardRidgeConfig):
        trained = "the head only; the model is frozen"
    return (
        Row(label="model", value=config.model.path, note=f"{trained}; attention {config.model.attention}"),
        Row(label="heads", value=f"{len(config.names)}", note=", ".join(config.names)),
        Row(label="loss", value=loss_text(config.algorithm)),
    )


def _reads(config: RewardModelRun) -> tuple[Row, ...]:
    data = config.data
    rows = [Row(label=data.kind, value=data.train, note="to train on")]
    if data.heldout is not None:
        rows.append(Row(label="held out", value=data.heldout, note=f"split {data.heldout_split}"))
    if isinstance(data, RatingsConfig):
        rows += [
            Row(label=name, value=f"{scale.lowest:g} to {scale.highest:g}", note=f"{scale.levels} levels")
            for name, scale in data.attributes.items()
        ]
    return (*rows, Row(label="longest", value=f"{data.max_length:,}", note="tokens of prompt and answer"))


def _step(config: RewardModelRun, processes: int) -> tuple[Row, ...]:
    rows, updates = config.rows_per_step, config.training.updates_per_rollout
    noun = _noun(config)
    most = max(end - start for start, end in (process_slice(rows // updates, i, processes) for i in range(processes)))
    micro = min(config.training.micro_batch_size, most)
    tokens = micro * (2 if isinstance(config.data, RewardPairsConfig) else 1) * config.data.max_length
    return (
        Row(label=noun, value=f"{rows:,}", note="over all processes"),
        Row(label="optimiser updates", value=f"{updates}", note=f"of {rows // updates} {noun}"),
        Row(
            label="micro-batches",
            value=f"{batches(most, config.training.micro_batch_size)}",
            note=f"in each update, of at most {micro} {noun} and {tokens:,} tokens, on each process",
        ),
    )


def _pass(config: RewardModelRun) -> tuple[Row, ...]:
    return (Row(label="steps", value="none", note=f"one pass over all {_noun(config)}, then a linear system"),)


def _run(config: RewardModelRun) -> tuple[Row, ...]:
    steps = config.training.steps
    return (
        Row(label=_noun(config), value=f"{steps * config.rows_per_step:,}", note=f"{steps} steps"),
        Row(label="optimiser updates", value=f"{steps * config.training.updates_per_rollout:,}"),
        Row(label="checkpoints", value=f"{batches(steps, config.checkpoint.every)}"),
    )


def _evaluation(config: RewardModelRun) -> tuple[Row, ...]:
    if config.data.heldout is None:
        return (Row(label="evaluations", value="none", note="data.heldout is null"),)
    limit = config.evaluation.rows
    count = 1
    if not isinstance(config.algorithm, RewardRidgeConfig):
        count = times_with_interval(config.training.steps, config.evaluation.every)
    what = "all" if limit is None else f"at most {limit:,}"
    return (Row(label="evaluations", value=f"{count}", note=f"of {what} {_noun(config)}"),)


def _noun(config: RewardModelRun) -> str:
    return "pairs" if isinstance(config.data, RewardPairsConfig) else "answers"
