"""The plan of a text-to-image run: its arithmetic in rows that a person can check. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from align.config.checks import reward_name
from align.errors import AlignError
from align.inspect.plan import Difference, Plan, Row, Section, differences_from
from diffusion.arithmetic import (
    batches,
    counted_rollout,
    evaluations_of,
    micro_batch_rows,
    rollout_passes,
    rows_per_update,
    samples_per_step,
    strips_of,
    training_passes,
)
from diffusion.config import DiffusionRun
from diffusion.memory import Memory, guess_memory
from diffusion.needs import network_rows
from diffusion.prompts import read_prompts
from diffusion.tiny import model_path


@dataclass(frozen=True, kw_only=True)
class _Prompts:
    """The texts of both prompt files."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


def _read(source: str | None) -> tuple[str, ...]:
    """The prompts of a file; none where it cannot be read, which the checks have told by now."""
    try:
        return () if source is None else read_prompts(source).prompts
    except (AlignError, OSError):
        return ()


def plan(config: DiffusionRun, processes: int = 1) -> Plan:
    """What a run is going to do.

    Args:
        config: its settings, already checked.
        processes: how many processes it runs on.
    """
    files = _Prompts(train=_read(config.prompts.train), heldout=_read(config.prompts.heldout))
    return Plan(
        title=f"{config.algorithm.kind} on {config.model.path}, {config.training.steps} steps",
        sections=(
            Section(title="What is trained", rows=_what(config)),
            Section(title="Each step", rows=_step(config, processes, len(files.train))),
            Section(title="Network evaluations for one picture", rows=_passes(config)),
            Section(title="The whole run", rows=_run(config, files)),
            Section(title="Memory of one process (a guess)", rows=_memory(config, processes)),
        ),
        recipe=config.recipe,
        differences=_differences(config),
    )


def _differences(config: DiffusionRun) -> tuple[Difference, ...]:
    return () if config.recipe is None else differences_from(config, config.recipe)


def _what(config: DiffusionRun) -> tuple[Row, ...]:
    lora = config.model.lora
    base = config.pipeline.base
    trained = "all weights" if lora is None else f"LoRA rank {lora.rank}, alpha {lora.alpha:g}"
    clip = "no clip" if config.pipeline.clip is None else f"clipped to +-{config.pipeline.clip:g}"
    rewards = [
        Row(
            label=f"reward {reward_name(reward)}",
            value=f"weight {reward.weight:g}" if reward.weight else "metric only",
            note=reward.function,
        )
        for reward in config.rewards
    ]
    return (
        Row(label="model", value=config.model.path, note=f"{trained}; frozen parts in {config.model.dtype}"),
        *rewards,
        Row(label="advantages", value=base.kind, note=clip),
        Row(label="sampler", value=config.rollout.sampler.kind, note=f"{config.rollout.num_inference_steps} steps"),
    )


def _step(config: DiffusionRun, processes: int, prompts: int) -> tuple[Row, ...]:
    rollout, training = config.rollout, config.training
    samples = samples_per_step(rollout)
    updates = training.updates_per_rollout
    fewest, most = rows_per_update(config, processes)
    micro = micro_batch_rows(config, processes)
    return (
        Row(label="prompts", value=f"{rollout.prompts_per_step:,}", note=f"of {_count(prompts, config.prompts.train)}"),
        Row(label="pictures", value=f"{samples:,}", note=f"{rollout.prompts_per_step} prompts x {rollout.group_size}"),
        Row(label="processes", value=f"{processes}", note=_share(config, processes, fewest, most)),
        Row(
            label="rollout batches",
            value=f"{batches(most * updates, rollout.batch_size)}",
            note=f"of at most {min(rollout.batch_size, most * updates)} pictures, on each process",
        ),
        Row(
            label="optimiser updates",
            value=f"{updates}",
            note=f"of {samples // updates} pictures" + (": strictly on-policy" if updates == 1 else ""),
        ),
        Row(
            label="micro-batches",
            value=f"{batches(most, training.micro_batch_size)}",
            note=f"in each update, of at most {micro} pictures, on each process",
        ),
    )


def _share(config: DiffusionRun, processes: int, fewest: int, most: int) -> str:
    """How the pictures divide over the processes; where they do not, the nearest numbers that do."""
    updates, group = config.training.updates_per_rollout, config.rollout.group_size
    if fewest == most:
        return f"{most * updates} pictures each"
    even = nearest_even_prompts(config.rollout.prompts_per_step, group, processes * updates)
    return (
        f"{fewest * updates} to {most * updates} pictures each: the smaller ones wait; "
        f"even with rollout.prompts_per_step = {' or '.join(str(value) for value in even)}"
    )


def nearest_even_prompts(prompts: int, group_size: int, parts: int) -> list[int]:
    """The numbers of prompts next to `prompts` whose samples divide into `parts` equal parts."""
    unit = Fraction(parts, group_size).numerator  # smallest p for which p * group_size is a multiple of parts
    below, above = prompts // unit * unit, -(-prompts // unit) * unit
    return sorted({below, above} - {0})


def _passes(config: DiffusionRun) -> tuple[Row, ...]:
    rollout = counted_rollout(config)
    parts = (
        rollout_passes(rollout),
        *training_passes(config.algorithm, rollout, config.training),
    )
    each = sum((part.count for part in parts), Fraction())
    samples = samples_per_step(config.rollout)
    return (
        *(Row(label=part.label, value=_number(part.count), note=part.note) for part in parts),
        Row(label="together", value=_number(each), note=f"{_number(each * samples)} a step"),
    )


def _run(config: DiffusionRun, files: _Prompts) -> tuple[Row, ...]:
    steps, samples = config.training.steps, samples_per_step(config.rollout)
    drawn = steps * config.rollout.prompts_per_step
    return (
        Row(label="pictures to train on", value=f"{steps * samples:,}", note=f"{steps} steps x {samples}"),
        Row(label="optimiser updates", value=f"{steps * config.training.updates_per_rollout:,}"),
        Row(label="prompts used", value=f"{drawn:,}", note=_epochs(drawn, len(files.train))),
        *_evaluation(config, files),
        Row(label="checkpoints", value=f"{batches(steps, config.checkpoint.every)}", note=_checkpoints(config)),
    )


def _evaluation(config: DiffusionRun, files: _Prompts) -> tuple[Row, ...]:
    settings, heldout = config.evaluation, len(files.heldout)
    if config.prompts.heldout is None:
        return (Row(label="evaluations", value="none", note="prompts.heldout is null"),)
    count, strips = evaluations_of(config), strips_of(config)
    followed = min(settings.strip_prompts, heldout)
    return (
        Row(
            label="evaluations",
            value=f"{count}",
            note=f"of {heldout * settings.seeds:,} pictures: {_count(heldout, config.prompts.heldout)} x "
            f"{settings.seeds} seeds, {settings.num_inference_steps} steps each",
        ),
        Row(label="progress strips", value=f"{strips}", note=f"of {followed} pictures" if strips else "switched off"),
        *_overlap(files),
    )


def _overlap(files: _Prompts) -> tuple[Row, ...]:
    """A warning where held-out prompts are trained on."""
    shared = len(set(files.train) & set(files.heldout))
    note = "of the held-out prompts are trained on: evaluation does not show new prompts only"
    return (Row(label="not held out", value=f"{shared:,}", note=note),) if shared else ()


def _checkpoints(config: DiffusionRun) -> str:
    kept = config.checkpoint
    return f"the last {kept.keep_last} and the best {kept.keep_best} by {kept.best_metric} stay"


def _memory(config: DiffusionRun, processes: int) -> tuple[Row, ...]:
    builtin = config.model.path == "builtin:tiny"
    memory = guess_memory(config, model_path() if builtin else Path(config.model.path), processes)
    if memory is None:
        return (Row(label="unknown", value="–", note="the weights are not in a local folder"),)
    return _memory_rows(memory, micro_batch_rows(config, processes) * network_rows(config))


def _memory_rows(memory: Memory, rows: int) -> tuple[Row, ...]:
    share = memory.trained / memory.network
    return (
        Row(label="network", value=f"{memory.network / 1e6:,.1f} M", note="parameters"),
        Row(label="trained", value=f"{memory.trained / 1e6:,.2f} M", note=f"parameters, {share:.1%} of the network's"),
        Row(label="weights", value=_bytes(memory.weights), note="network, text encoders, autoencoder, adapters"),
        Row(label="optimiser", value=_bytes(memory.optimizer), note="gradients and AdamW's two moments, float32"),
        Row(label="copies", value=_bytes(memory.copies), note="moving average, lagged policy, base model"),
        Row(label="activations", value=_bytes(memory.activations), note=f"about, for {rows} noised pictures at once"),
        Row(label="together", value=_bytes(memory.total), note="without the rollout's and the framework's own needs"),
    )


def _count(prompts: int, source: str) -> str:
    return f"{prompts:,} in {source}"


def _epochs(drawn: int, prompts: int) -> str:
    return f"{drawn / prompts:.2g} times through the {prompts:,} prompts" if prompts else ""


def _number(value: Fraction) -> str:
    return f"{int(value):,}" if value.denominator == 1 else f"{float(value):,.1f}"


def _bytes(value: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 2**10:,.0f} KiB"
