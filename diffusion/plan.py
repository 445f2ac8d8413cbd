"""The plan of a text-to-image run: its arithmetic in rows that a person can check. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from align.config.checks import reward_name
from align.config.lengths import with_steps
from align.config.shared import RewardConfig
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
from diffusion.chain_steps import trained_count
from diffusion.check_forward import ROWS
from diffusion.config import ChainConfig, DiffusionRun
from diffusion.inputs import scores_the_way
from diffusion.memory import Memory, guess_memory
from diffusion.needs import is_offline, network_rows, row_name, rows_per_step
from diffusion.plan_directions import direction_rows, shown_directions, shown_prompts, shown_rows
from diffusion.prompts import read_prompts
from diffusion.stored_pictures import StoredPictures, read_pictures
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
    if is_offline(config):
        config = with_steps(config, _usable(config), rows_per_step(config))
    files = _Prompts(train=_read(config.prompts.train), heldout=_read(config.prompts.heldout))
    return Plan(
        title=f"{config.algorithm.kind} on {config.model.path}, {config.training.steps} steps",
        sections=(
            Section(title="What is trained", rows=(*_what(config), *_data_or_rollout(config))),
            Section(title="Each step", rows=_step(config, processes, len(files.train))),
            Section(title=f"Network evaluations for one {_unit(config)[:-1]}", rows=_passes(config)),
            Section(title="The whole run", rows=(*_run(config, files), *_evaluation(config, files), _saved(config))),
            Section(title="Memory of one process (a guess)", rows=_memory(config, processes)),
        ),
        recipe=config.recipe,
        differences=_differences(config),
    )


def _differences(config: DiffusionRun) -> tuple[Difference, ...]:
    return () if config.recipe is None else differences_from(config, config.recipe)


def _what(config: DiffusionRun) -> tuple[Row, ...]:
    lora = config.model.lora
    trained = "all weights" if lora is None else f"LoRA rank {lora.rank}, alpha {lora.alpha:g}"
    rewards = [
        Row(
            label=f"reward {reward_name(reward)}",
            value=_counts(config, reward),
            note=reward.function,
        )
        for reward in config.rewards
    ]
    return (
        Row(label="model", value=config.model.path, note=f"{trained}; frozen parts in {config.model.dtype}"),
        *rewards,
        *direction_rows(config),
    )


def _counts(config: DiffusionRun, reward: RewardConfig) -> str:
    if not reward.weight:
        return "metric only"
    return f"weight {reward.weight:g}" if config.directions is None else "objective"


def _unit(config: DiffusionRun) -> str:
    """What one evaluation count is for: a row of stored data, or a picture of the rollout."""
    return row_name(config) if is_offline(config) else "pictures"


def _data_or_rollout(config: DiffusionRun) -> tuple[Row, ...]:
    """Where the pictures that are learnt from come from."""
    data, base = getattr(config.algorithm, "data", None), config.pipeline.base
    if data is not None:
        found = _stored(config)
        left_out = {} if found is None else found.left_out
        reasons = [f"{count:,} left out: {reason}" for reason, count in left_out.items()]
        return (Row(label=_unit(config), value=data.path, note=", ".join([f"{_usable(config):,} rows", *reasons])),)
    clip = "no clip" if config.pipeline.clip is None else f"clipped to +-{config.pipeline.clip:g}"
    return (
        Row(label="advantages", value=base.kind, note=clip),
        Row(label="sampler", value=config.rollout.sampler.kind, note=f"{config.rollout.num_inference_steps} steps"),
    )


def _stored(config: DiffusionRun) -> StoredPictures | None:
    """The stored rows; None where there are none, or the file cannot be read, which the checks have told by now."""
    data = getattr(config.algorithm, "data", None)
    try:
        return None if data is None else read_pictures(data)
    except AlignError:
        return None


def _usable(config: DiffusionRun) -> int:
    found = _stored(config)
    return 0 if found is None else len(found)


def _step(config: DiffusionRun, processes: int, prompts: int) -> tuple[Row, ...]:
    training, name = config.training, row_name(config)
    updates = training.updates_per_rollout
    fewest, most = rows_per_update(config, processes)
    micro = micro_batch_rows(config, processes)
    each = rows_per_step(config) // updates
    drawn = () if is_offline(config) else _drawn(config, processes, prompts)
    on_policy = ": strictly on-policy" if updates == 1 and drawn else ""
    return (
        *drawn,
        Row(label="processes", value=f"{processes}", note=_share(config, processes, fewest, most)),
        Row(label="optimiser updates", value=f"{updates}", note=f"of {each} {name}{on_policy}"),
        Row(
            label="micro-batches",
            value=f"{batches(most, training.micro_batch_size)}",
            note=f"in each update, of at most {micro} {name}, on each process",
        ),
    )


def _drawn(config: DiffusionRun, processes: int, prompts: int) -> tuple[Row, ...]:
    """The rollout of a step."""
    rollout = config.rollout
    samples = samples_per_step(rollout)
    updates = config.training.updates_per_rollout
    most = updates * batches(samples // updates, processes)
    return (
        Row(label="prompts", value=f"{rollout.prompts_per_step:,}", note=f"of {_count(prompts, config.prompts.train)}"),
        Row(label="pictures", value=f"{samples:,}", note=f"{rollout.prompts_per_step} prompts x {rollout.group_size}"),
        Row(
            label="rollout batches",
            value=f"{batches(most, rollout.batch_size)}",
            note=f"of at most {min(rollout.batch_size, most)} pictures, on each process",
        ),
        *_on_the_way(config),
    )


def _on_the_way(config: DiffusionRun) -> tuple[Row, ...]:
    """Pictures that are decoded and scored because an estimator reads rewards of the way."""
    if not isinstance(config.algorithm, ChainConfig) or not scores_the_way(config.pipeline):
        return ()
    each = trained_count(config.algorithm.steps, config.rollout.num_inference_steps) + 1
    note = f"decoded and scored beside the pictures: at most {each} for each, for {config.pipeline.base.kind}"
    return (Row(label="pictures on the way", value=f"{samples_per_step(config.rollout) * each:,}", note=note),)


def _share(config: DiffusionRun, processes: int, fewest: int, most: int) -> str:
    """How the rows divide over the processes; where they do not, the nearest numbers that do."""
    updates, name = config.training.updates_per_rollout, row_name(config)
    if fewest == most:
        return f"{most * updates} {name} each"
    key = ROWS.get(type(config.algorithm))
    if key is None:
        even = nearest_even_prompts(config.rollout.prompts_per_step, config.rollout.group_size, processes * updates)
    else:
        even = nearest_even_prompts(rows_per_step(config), 1, processes * updates)
    return (
        f"{fewest * updates} to {most * updates} {name} each: the smaller ones wait; "
        f"even with {key or 'rollout.prompts_per_step'} = {' or '.join(str(value) for value in even)}"
    )


def nearest_even_prompts(prompts: int, group_size: int, parts: int) -> list[int]:
    """The numbers of prompts next to `prompts` whose samples divide into `parts` equal parts."""
    unit = Fraction(parts, group_size).numerator  # smallest p for which p * group_size is a multiple of parts
    below, above = prompts // unit * unit, -(-prompts // unit) * unit
    return sorted({below, above} - {0})


def _passes(config: DiffusionRun) -> tuple[Row, ...]:
    rollout = counted_rollout(config)
    training = training_passes(config.algorithm, rollout, config.training)
    parts = training if is_offline(config) else (rollout_passes(rollout), *training)
    each = sum((part.count for part in parts), Fraction())
    samples = rows_per_step(config) if is_offline(config) else samples_per_step(config.rollout)
    return (
        *(Row(label=part.label, value=_number(part.count), note=part.note) for part in parts),
        Row(label="together", value=_number(each), note=f"{_number(each * samples)} a step"),
    )


def _run(config: DiffusionRun, files: _Prompts) -> tuple[Row, ...]:
    steps = config.training.steps
    updates = Row(label="optimiser updates", value=f"{steps * config.training.updates_per_rollout:,}")
    if is_offline(config):
        rows, name = rows_per_step(config), row_name(config)
        note = f"{steps} steps x {rows}, {_epochs(steps * rows, _usable(config), name)}"
        return (Row(label=f"{name} to train on", value=f"{steps * rows:,}", note=note), updates)
    samples, drawn = samples_per_step(config.rollout), steps * config.rollout.prompts_per_step
    return (
        Row(label="pictures to train on", value=f"{steps * samples:,}", note=f"{steps} steps x {samples}"),
        updates,
        Row(label="prompts used", value=f"{drawn:,}", note=_epochs(drawn, len(files.train))),
    )


def _evaluation(config: DiffusionRun, files: _Prompts) -> tuple[Row, ...]:
    settings, heldout = config.evaluation, len(files.heldout)
    if config.prompts.heldout is None:
        return (Row(label="evaluations", value="none", note="prompts.heldout is null"),)
    count, strips = evaluations_of(config), strips_of(config)
    each, times = shown_prompts(config, heldout), shown_directions(config)
    prompts = f"{times} directions x {each:,} prompts" if times > 1 else _count(heldout, config.prompts.heldout)
    followed = min(settings.strip_prompts, times * each)
    return (
        Row(
            label="evaluations",
            value=f"{count}",
            note=f"of {times * each * settings.seeds:,} pictures: {prompts} x "
            f"{settings.seeds} seeds, {settings.num_inference_steps} steps each",
        ),
        *shown_rows(config),
        Row(label="progress strips", value=f"{strips}", note=f"of {followed} pictures" if strips else "switched off"),
        *_overlap(files),
    )


def _overlap(files: _Prompts) -> tuple[Row, ...]:
    """A warning where held-out prompts are trained on."""
    shared = len(set(files.train) & set(files.heldout))
    note = "of the held-out prompts are trained on: evaluation does not show new prompts only"
    return (Row(label="not held out", value=f"{shared:,}", note=note),) if shared else ()


def _saved(config: DiffusionRun) -> Row:
    kept, count = config.checkpoint, batches(config.training.steps, config.checkpoint.every)
    note = f"the last {kept.keep_last} and the best {kept.keep_best} by {kept.best_metric} stay"
    return Row(label="checkpoints", value=f"{count}", note=note)


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
        Row(label="weights", value=_bytes(memory.weights), note=_waiting(memory)),
        Row(label="optimiser", value=_bytes(memory.optimizer), note="gradients and AdamW's two moments, float32"),
        Row(label="copies", value=_bytes(memory.copies), note="moving average, lagged policy, base model"),
        Row(label="activations", value=_bytes(memory.activations), note=f"about, for {rows} noised pictures at once"),
        Row(label="together", value=_bytes(memory.total), note="without the rollout's and the framework's own needs"),
    )


def _waiting(memory: Memory) -> str:
    parts = "network, text encoders, autoencoder, adapters"
    return f"{parts}; {_bytes(memory.idle)} of it off an accelerator while it trains" if memory.idle else parts


def _count(prompts: int, source: str) -> str:
    return f"{prompts:,} in {source}"


def _epochs(drawn: int, rows: int, name: str = "prompts") -> str:
    return f"{drawn / rows:.2g} times through the {rows:,} {name}" if rows else ""


def _number(value: Fraction) -> str:
    return f"{int(value):,}" if value.denominator == 1 else f"{float(value):,.1f}"


def _bytes(value: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 2**10:,.0f} KiB"
