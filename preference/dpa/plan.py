"""The plan of a run of DPA: its arithmetic in rows that a person can check. Torch-free."""

from __future__ import annotations

from align.config.checks import reward_name
from align.config.directions import described, shown_in_words
from align.inspect.plan import Plan, Row, Section, differences_from
from preference.arithmetic import batches, times_with_interval
from preference.dpa.config import DpaRun


def plan(config: DpaRun, processes: int = 1) -> Plan:
    """What a run is going to do.

    Args:
        config: its settings, already checked.
        processes: how many processes it runs on.
    """
    return Plan(
        title=f"dpa on {config.model.path}, {config.algorithm.rounds} rounds, {config.training.steps} steps",
        sections=(
            Section(title="What is trained", rows=_what(config)),
            *_warm_start(config),
            Section(title="Each round", rows=_round(config, processes)),
            Section(title="Each step", rows=_step(config)),
            Section(title="The whole run", rows=(*_run(config), *_evaluation(config))),
        ),
        recipe=config.recipe,
        differences=() if config.recipe is None else differences_from(config, config.recipe),
    )


def _what(config: DpaRun) -> tuple[Row, ...]:
    lora, algorithm = config.model.lora, config.algorithm
    estimator = "grpo" if algorithm.estimator is None else algorithm.estimator.kind
    trained = "all weights" if lora is None else f"LoRA rank {lora.rank}, alpha {lora.alpha:g}"
    losses = {
        "sft": "negative log-likelihood of the best answer",
        "dpo": f"DPO of best against worst, beta {algorithm.beta or 0.1:g}, reference: the round's start",
        "rwr": f"log-likelihood of all answers, weighted by the softmax of their scores / {algorithm.tau or 1.0:g}",
        "grpo": f"clipped surrogate, advantages by {estimator}, ratio within {algorithm.clip_range or 0.2:g} of 1",
    }
    return (
        Row(label="model", value=config.model.path, note=trained),
        Row(label="objectives", value=f"{len(config.names())}", note=", ".join(config.names())),
        Row(label="directions", value=algorithm.directions.kind, note=described(algorithm.directions, config.names())),
        Row(label="control text", value=algorithm.placement, note=algorithm.template or "our words"),
        Row(label="loss", value=algorithm.loss, note=losses[algorithm.loss]),
    )


def _warm_start(config: DpaRun) -> tuple[Section, ...]:
    warm = config.algorithm.warm_start
    if warm is None:
        return ()
    note = f"of {warm.data}, the best of each prompt under its direction, imitated"
    rows = (Row(label="rated answers", value="read", note=note), Row(label="steps", value=f"{warm.steps}"))
    return (Section(title="Warm start", rows=rows),)


def _round(config: DpaRun, processes: int) -> tuple[Row, ...]:
    algorithm = config.algorithm
    prompts = algorithm.prompts_per_round
    shown = "all" if prompts is None else f"{prompts:,}"
    groups = None if prompts is None else prompts * algorithm.directions_per_prompt
    per_group = f"{algorithm.directions_per_prompt} directions x {algorithm.samples} answers"
    note = f"of {config.data.train}, each with {per_group}"
    rows = [Row(label="prompts", value=shown, note=note)]
    if groups is not None:
        answers = groups * algorithm.samples
        chosen = "the best of" if algorithm.kept_of_group() == 1 else "all"
        kept = f"{chosen} {algorithm.samples}, where they differ"
        rows += [
            Row(label="answers", value=f"{answers:,}", note=f"at most {algorithm.max_new_tokens} tokens each"),
            Row(label="kept", value=f"at most {groups * algorithm.kept_of_group():,}", note=kept),
            Row(
                label="batches",
                value=f"{batches(-(-answers // processes), algorithm.batch_size)}",
                note="of sampling, on each process",
            ),
        ]
    return (*rows, Row(label="steps", value=f"{config.steps_per_round()}"))


def _step(config: DpaRun) -> tuple[Row, ...]:
    updates = config.training.updates_per_rollout
    return (
        Row(label="answers", value=f"{config.data.answers_per_step}", note="kept ones, over all processes"),
        Row(label="optimiser updates", value=f"{updates}"),
    )


def _run(config: DpaRun) -> tuple[Row, ...]:
    steps = config.training.steps
    return (
        Row(label="answers to train on", value=f"{steps * config.data.answers_per_step:,}", note=f"{steps} steps"),
        Row(label="checkpoints", value=f"{batches(steps, config.checkpoint.every)}"),
    )


def _evaluation(config: DpaRun) -> tuple[Row, ...]:
    generate = config.evaluation.generate
    source = generate.prompts or config.data.heldout
    if source is None:
        return (Row(label="evaluations", value="none", note="data.heldout is null"),)
    count = times_with_interval(config.training.steps, config.evaluation.every)
    prompts = "all prompts" if generate.limit is None else f"at most {generate.limit:,} prompts"
    shown = shown_in_words(config.shown())
    return (
        Row(label="evaluations", value=f"{count}", note=f"of {prompts} of {source} under {len(shown)} directions"),
        *(Row(label="", value="direction", note=text) for text in shown),
        *(
            Row(label=f"reward {reward_name(reward)}", value="scored", note=reward.function)
            for reward in config.rewards
        ),
    )
