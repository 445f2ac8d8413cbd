"""Contradictions in the settings of a language-model run, found before anything heavy is imported. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from align.config import checks as shared
from align.config.errors import Problem
from align.errors import AlignError
from preference.arithmetic import pairs_per_update
from preference.check_algorithm import check_algorithm
from preference.check_candidates import check_candidates
from preference.config import PreferenceRun
from preference.data import Texts, read_prompts
from preference.models.locate import Source, locate
from preference.sources import heldout_texts, training_texts
from preference.tables import is_local


def contradictions(config: PreferenceRun, processes: int = 1) -> Iterator[Problem]:
    """Every contradiction of a run.

    Args:
        config: its settings.
        processes: how many processes it will run on.
    """
    return chain(
        shared.check_recipe(config.recipe),
        _check_model(config),
        _check_lengths(config),
        _check_data(config),
        check_algorithm(config.algorithm),
        check_candidates(config.candidates),
        _check_reference(config),
        _check_updates(config, processes),
        shared.check_optimizer(config.optimizer, config.training),
        shared.check_precision(config.training, config.model.dtype, config.model.lora),
        shared.check_output(config.output),
        _check_evaluation(config),
    )


def _check_model(config: PreferenceRun) -> Iterator[Problem]:
    model = config.model
    source: Source | None = None
    try:
        source = locate(model.path)
    except AlignError as error:
        yield Problem(keys=("model.path",), message=error.message, way_out=error.way_out)
    if model.chat_template is not None and not Path(model.chat_template).is_file():
        message = f"`model.chat_template` expects a Jinja file {model.chat_template}, found none."
        yield Problem(keys=("model.chat_template",), message=message, way_out="Give an existing file, or leave it out.")
    if model.quantization is None:
        return
    rules = (
        (model.lora is None, "model.lora", "all weights are to be trained, but quantised weights cannot be.", "`lora`"),
        (
            model.adapter is not None,
            "model.adapter",
            "an adapter would be merged into quantised weights, which rounds it away and moves the reference.",
            "`quantization: null`, or a model with the adapter merged in already",
        ),
        (
            source is not None and source.gguf is not None,
            "model.path",
            "a GGUF file is read into plain weights, not quantised anew.",
            "`quantization: null`, or the model as safetensors",
        ),
    )
    for broken, key, message, way_out in rules:
        if broken:
            yield Problem(
                keys=("model.quantization", key),
                message=f"`model.quantization` is set, and {message}",
                way_out=f"Use {way_out}.",
            )


def _check_lengths(config: PreferenceRun) -> Iterator[Problem]:
    data = config.data
    if data.max_prompt_length >= data.max_length:
        yield Problem(
            keys=("data.max_prompt_length", "data.max_length"),
            message=(
                f"a prompt may have {data.max_prompt_length} tokens and, with its answer, {data.max_length}: the "
                "answer of a long prompt would have none."
            ),
            way_out=f"Set `data.max_prompt_length` to at most {data.max_length - 1}, or raise `data.max_length`.",
        )


def _check_data(config: PreferenceRun) -> Iterator[Problem]:
    """Files that cannot be read, fewer pairs than a step takes, training pairs that are also held out."""
    data = config.data
    train = _texts("data.train", data.train, lambda: training_texts(config))
    heldout = None if data.heldout is None else _texts("data.heldout", data.heldout, lambda: heldout_texts(config))
    yield from (found for found in (train, heldout) if isinstance(found, Problem))
    if isinstance(train, Texts) and len(train) < data.pairs_per_step:
        yield Problem(
            keys=("data.pairs_per_step", "data.train"),
            message=f"a step takes {data.pairs_per_step} different pairs, but {data.train} has {len(train)}.",
            way_out=f"Set `data.pairs_per_step` to at most {len(train)}, or add pairs.",
        )
    if data.heldout is not None and _same(data.train, data.heldout) and data.train_split == data.heldout_split:
        yield _not_new("are the same file")
    elif data.heldout is not None and _same(data.train, data.heldout) and Path(data.train).is_file():
        yield _not_new("are the same file, which has no splits")


def _not_new(what: str) -> Problem:
    return Problem(
        keys=("data.train", "data.heldout"),
        message=f"training and held-out pairs {what}: evaluation would not show new pairs.",
        way_out="Split the file, or set `data.heldout: null` to go without held-out pairs.",
    )


def _texts(key: str, source: str, read: Callable[[], Texts | None]) -> Texts | Problem | None:
    """The rows of a local source; what is on the hub is read by the run only."""
    if not is_local(source):
        return None
    try:
        return read()
    except AlignError as error:
        return Problem(keys=(key,), message=f"`{key}`: {error.message}", way_out=error.way_out)


def _same(first: str, second: str) -> bool:
    return first == second or (Path(first).exists() and Path(second).exists() and Path(first).samefile(second))


def _check_reference(config: PreferenceRun) -> Iterator[Problem]:
    reference, model = config.reference, config.model
    if not config.algorithm.reads_reference():
        used = [key for key in ("cache", "keep_copy") if getattr(reference, key)]
        used += ["precompute"] if reference.precompute is True else []
        if used:
            yield Problem(
                keys=(*(f"reference.{key}" for key in used), "algorithm.kind"),
                message=f"`{config.algorithm.kind}` needs no reference here, but `reference.{used[0]}` is set.",
                way_out="Remove it.",
            )
        return
    if model.lora is None and reference.precompute is False and not reference.keep_copy:
        yield Problem(
            keys=("model.lora", "reference.precompute", "reference.keep_copy"),
            message=(
                "all weights are trained and the reference is to be asked in each step, but no copy of the weights "
                "from before training is kept."
            ),
            way_out="Set `reference.precompute: true` (no second model in memory), or `reference.keep_copy: true`.",
        )
    if model.lora is not None and reference.keep_copy:
        yield Problem(
            keys=("model.lora", "reference.keep_copy"),
            message="adapters are trained: switched off they leave the reference, so a copy would never be asked.",
            way_out="Remove `reference.keep_copy`.",
        )


def _check_updates(config: PreferenceRun, processes: int) -> Iterator[Problem]:
    """The pairs of a step must divide over its optimiser updates, and each process needs one in each update."""
    pairs, updates = config.data.pairs_per_step, config.training.updates_per_rollout
    if pairs % updates or pairs_per_update(config, processes)[0] < 1:
        yield Problem(
            keys=("data.pairs_per_step", "training.updates_per_rollout"),
            message=(
                f"{pairs} pairs a step are to serve {updates} equal updates on {processes} processes: each process "
                "needs one of them in each update."
            ),
            way_out=f"Set `data.pairs_per_step` to a multiple of {updates} that is at least {updates * processes}.",
        )


def _check_evaluation(config: PreferenceRun) -> Iterator[Problem]:
    evaluation, generate = config.evaluation, config.evaluation.generate
    if evaluation.rewards:
        yield from shared.check_rewards(evaluation.rewards)
    if evaluation.rewards and generate is None:
        yield Problem(
            keys=("evaluation.rewards", "evaluation.generate"),
            message="`evaluation.rewards` score answers, but none are sampled (`evaluation.generate: null`).",
            way_out="Add `evaluation.generate: {max_new_tokens: 128}`, or remove the rewards.",
        )
    if evaluation.every and config.data.heldout is None and generate is None:
        yield Problem(
            keys=("evaluation.every", "data.heldout"),
            message="`evaluation.every` is set, but there are neither held-out pairs nor prompts to answer.",
            way_out="Name held-out pairs in `data.heldout`, or remove it.",
        )
    if generate is None:
        return
    if generate.prompts is None and config.data.heldout is None:
        yield Problem(
            keys=("evaluation.generate.prompts", "data.heldout"),
            message="answers are to be sampled, but there are no prompts and no held-out pairs to take them from.",
            way_out="Give a file in `evaluation.generate.prompts`.",
        )
    if generate.prompts is not None and is_local(generate.prompts):
        try:
            read_prompts(generate.prompts, bad_rows=config.data.bad_rows)
        except AlignError as error:
            yield Problem(keys=("evaluation.generate.prompts",), message=error.message, way_out=error.way_out)
    if generate.temperature == 0 and (generate.seeds > 1 or generate.top_p < 1):
        key = "seeds" if generate.seeds > 1 else "top_p"
        yield Problem(
            keys=("evaluation.generate.temperature", f"evaluation.generate.{key}"),
            message=f"at temperature 0 the likeliest token is taken each time, so `{key}` would change nothing.",
            way_out=f"Set a temperature such as 0.7, or remove `{key}`.",
        )
    if generate.top_p > 1:
        message = f"`evaluation.generate.top_p` is a share of probability, found {generate.top_p:g}."
        yield Problem(keys=("evaluation.generate.top_p",), message=message, way_out="Set it to at most 1.")
