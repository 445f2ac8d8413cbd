"""The plan of a language-model run: its arithmetic in rows that a person can check. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

from align.config.checks import reward_name
from align.config.lengths import with_steps
from align.errors import AlignError
from align.inspect.plan import Plan, Row, Section, differences_from
from preference.arithmetic import (
    batches,
    evaluates,
    evaluations_of,
    micro_batch_pairs,
    most_tokens,
    pairs_per_update,
    precomputes,
)
from preference.config import AdpaConfig, DckdConfig, DpoConfig, PreferenceRun, SftConfig, SimpoConfig
from preference.data import Texts
from preference.memory import Memory, guess_memory
from preference.plan_teacher import teacher_sections
from preference.sources import heldout_texts, reads_single_answers, training_texts
from preference.tables import is_local


def plan(config: PreferenceRun, processes: int = 1) -> Plan:
    """What a run is going to do.

    Args:
        config: its settings, already checked.
        processes: how many processes it runs on.
    """
    train = _read(config.data.train, lambda: training_texts(config), ask=config.training.epochs is not None)
    if train is not None:
        config = with_steps(config, len(train), config.data.pairs_per_step)
    heldout = _read(config.data.heldout, lambda: heldout_texts(config))
    return Plan(
        title=f"{config.algorithm.kind} on {config.model.path}, {config.training.steps} steps",
        sections=(
            Section(title="What is trained", rows=(*_what(config), *_data(config, train))),
            Section(title="Each step", rows=_step(config, processes)),
            Section(title="Network passes for one pair", rows=_passes(config, train)),
            *teacher_sections(config, train),
            Section(title="The whole run", rows=(*_run(config, train), *_evaluation(config, heldout), _saved(config))),
            Section(title="Memory of one process (a guess)", rows=_memory(config, processes)),
        ),
        recipe=config.recipe,
        differences=() if config.recipe is None else differences_from(config, config.recipe),
    )


def _read(source: str | None, read: Callable[[], Texts | None], *, ask: bool = False) -> Texts | None:
    """The rows of a source; None where it cannot be read, which the checks have told by now, or is on the hub, which is
    asked only if the number of rows says how long the run is.
    """
    if source is None or not (ask or is_local(source)):
        return None
    try:
        return read()
    except AlignError:
        if ask:
            raise
        return None


def _what(config: PreferenceRun) -> tuple[Row, ...]:
    model, lora = config.model, config.model.lora
    trained = "all weights" if lora is None else f"LoRA rank {lora.rank}, alpha {lora.alpha:g}"
    frozen = model.dtype if model.quantization is None else f"{model.quantization} (bitsandbytes)"
    return (
        Row(
            label="model", value=model.path, note=f"{trained}; frozen weights in {frozen}; attention {model.attention}"
        ),
        *((Row(label="adapter", value=model.adapter, note="merged in before training"),) if model.adapter else ()),
        Row(label="loss", value=loss_text(config.algorithm), note=_scale(config.algorithm)),
    )


def _scale(algorithm: Any) -> str:
    beta = getattr(algorithm, "beta", None)
    return "" if beta is None else f"beta {beta:g}"


@singledispatch
def loss_text(algorithm: Any) -> str:
    """The loss of a method in words (`Any`: the members of `Algorithm`)."""
    return str(algorithm.kind)


@loss_text.register
def _(algorithm: DpoConfig) -> str:
    parts = [f"{weight:g} {name}" if weight != 1 else name for name, weight in algorithm.mix().items()]
    return " + ".join([*parts, *_supervised(algorithm.sft_weight)])


@loss_text.register
def _(algorithm: SimpoConfig) -> str:
    ((name, value),) = algorithm.margin().items()
    return " + ".join([f"{algorithm.loss}, {name} {value:g}", *_supervised(algorithm.sft_weight)])


@loss_text.register
def _(algorithm: DckdConfig) -> str:
    sides = f"{algorithm.chosen_weight:g} chosen, {algorithm.rejected_weight:g} rejected"
    divergence = f"{algorithm.alpha:g} KL(teacher || student) on answers ({sides})"
    return " + ".join([divergence, *_supervised(algorithm.sft_weight)])


@loss_text.register
def _(algorithm: AdpaConfig) -> str:
    low_high = algorithm.clip if isinstance(algorithm.clip, str) else "{:g} to {:g}".format(*algorithm.clip)
    advantage = f"-{algorithm.gamma:g} expected advantage of the teachers (clip: {low_high})"
    return " + ".join([advantage, *_supervised(algorithm.sft_weight)])


@loss_text.register
def _(algorithm: SftConfig) -> str:
    return f"negative log-likelihood of the answers, {algorithm.mode}"


def _supervised(weight: float) -> list[str]:
    return [f"{weight:g} sft on chosen answers"] if weight else []


def _noun(config: PreferenceRun) -> str:
    return "answers" if reads_single_answers(config) else "pairs"


def _data(config: PreferenceRun, train: Texts | None) -> tuple[Row, ...]:
    data = config.data
    note = "read by the run" if train is None else train.report.summary()
    return (
        Row(label=_noun(config), value=data.train, note=note),
        Row(
            label="longest",
            value=f"{data.max_length:,}",
            note=f"tokens, {data.max_prompt_length:,} of them the prompt (longer ones: {data.long_prompts}); the run "
            "counts what it cuts",
        ),
    )


def _step(config: PreferenceRun, processes: int) -> tuple[Row, ...]:
    pairs, updates = config.data.pairs_per_step, config.training.updates_per_rollout
    fewest, most = pairs_per_update(config, processes)
    micro, noun = micro_batch_pairs(config, processes), _noun(config)
    share = f"{most}" if fewest == most else f"{fewest} to {most}"
    return (
        Row(label=noun, value=f"{pairs:,}", note="over all processes"),
        Row(label="processes", value=f"{processes}", note=f"{share} {noun} each in an update"),
        Row(label="optimiser updates", value=f"{updates}", note=f"of {pairs // updates} {noun}"),
        Row(
            label="micro-batches",
            value=f"{batches(most, config.training.micro_batch_size)}",
            note=f"in each update, of at most {micro} {noun} and {most_tokens(config, processes):,} tokens, on each "
            "process; fewer where answers share their prompt's pass",
        ),
    )


def _passes(config: PreferenceRun, train: Texts | None) -> tuple[Row, ...]:
    """A pass of one answer with its prompt counts as one; a forward and backward pass as three."""
    if reads_single_answers(config):
        return (Row(label="policy", value="3", note="1 answer, forward 1 + backward 2"),)
    rows = [Row(label="policy", value="6", note="2 answers, forward 1 + backward 2")]
    if not config.algorithm.reads_reference():
        return (*rows, Row(label="reference", value="0", note="the method has none"), Row(label="together", value="6"))
    if train is None or not precomputes(config, len(train)):
        rows += [Row(label="reference", value="2", note="2 answers, in each step")]
        return (*rows, Row(label="together", value="8"))
    where = config.reference.cache or "the run folder"
    rows += [Row(label="reference", value="0", note=f"2 for each pair once before training, kept in {where}")]
    return (*rows, Row(label="together", value="6"))


def _run(config: PreferenceRun, train: Texts | None) -> tuple[Row, ...]:
    steps, pairs = config.training.steps, config.data.pairs_per_step
    times = f", {steps * pairs / len(train):.2g} times through the {len(train):,}" if train else ""
    return (
        Row(label=f"{_noun(config)} to train on", value=f"{steps * pairs:,}", note=f"{steps} steps x {pairs}{times}"),
        Row(label="optimiser updates", value=f"{steps * config.training.updates_per_rollout:,}"),
    )


def _evaluation(config: PreferenceRun, heldout: Texts | None) -> tuple[Row, ...]:
    settings, generate = config.evaluation, config.evaluation.generate
    if not evaluates(config):
        return (Row(label="evaluations", value="none", note="data.heldout is null"),)
    pairs = f"no {_noun(config)}"
    if config.data.heldout is not None:
        limit = settings.pairs if heldout is None else min(settings.pairs or len(heldout), len(heldout))
        pairs = f"{'all' if limit is None else f'{limit:,}'} {_noun(config)} of {config.data.heldout}"
    rows = [Row(label="evaluations", value=f"{evaluations_of(config)}", note=f"of {pairs}")]
    if generate is not None:
        prompts = "all prompts" if generate.limit is None else f"at most {generate.limit:,} prompts"
        note = f"{prompts} x {generate.seeds}, at most {generate.max_new_tokens} tokens at temperature "
        rows.append(
            Row(label="answers in each", value=generate.prompts or "held out", note=f"{note}{generate.temperature:g}")
        )
        rows += [
            Row(label=f"reward {reward_name(reward)}", value="evaluated", note=reward.function)
            for reward in settings.rewards
        ]
    return tuple(rows)


def _saved(config: PreferenceRun) -> Row:
    kept, count = config.checkpoint, batches(config.training.steps, config.checkpoint.every)
    note = f"the last {kept.keep_last} and the best {kept.keep_best} by {kept.best_metric} stay"
    return Row(label="checkpoints", value=f"{count}", note=note)


def _memory(config: PreferenceRun, processes: int) -> tuple[Row, ...]:
    memory = guess_memory(config, processes)
    if memory is None:
        return (Row(label="unknown", value="–", note="the weights are not in a local folder as safetensors"),)
    return _memory_rows(memory, most_tokens(config, processes))


def _memory_rows(memory: Memory, tokens: int) -> tuple[Row, ...]:
    share = memory.trained / memory.network
    return (
        Row(label="network", value=f"{memory.network / 1e6:,.1f} M", note="parameters"),
        Row(label="trained", value=f"{memory.trained / 1e6:,.2f} M", note=f"parameters, {share:.1%} of the network's"),
        Row(label="weights", value=_bytes(memory.weights), note="network, adapters"),
        Row(label="optimiser", value=_bytes(memory.optimizer), note="gradients and AdamW's two moments, float32"),
        Row(label="copies", value=_bytes(memory.copies), note="moving average, reference"),
        Row(label="activations", value=_bytes(memory.activations), note=f"about, for {tokens:,} tokens at once"),
        Row(
            label="together", value=_bytes(memory.total), note="without logits, answers, and the framework's own needs"
        ),
    )


def _bytes(value: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 2**10:,.0f} KiB"
