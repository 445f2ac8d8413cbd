"""The plan of an adapter's run: its arithmetic in rows that a person can check. Torch-free."""

from __future__ import annotations

from align.adapter.config import AdapterRun
from align.adapter.rows import PreferredRows, read_rows
from align.errors import AlignError
from align.inspect.plan import Plan, Row, Section, differences_from


def plan(config: AdapterRun, processes: int = 1) -> Plan:
    """What a run is going to do.

    Args:
        config: its settings, already checked.
        processes: how many processes it runs on.
    """
    rows = _read(config)
    return Plan(
        title=f"preference adapter for {', '.join(config.objectives)}, at most {config.training.steps} steps",
        sections=(
            Section(title="What is trained", rows=_what(config)),
            Section(title="What it is taught", rows=_taught(config)),
            Section(title="Data", rows=_data(config, rows)),
            Section(title="The whole run", rows=_run(config, rows, processes)),
        ),
        recipe=config.recipe,
        differences=() if config.recipe is None else differences_from(config, config.recipe),
    )


def _read(config: AdapterRun) -> PreferredRows | None:
    """The rows; None where they cannot be read, which the checks have told by now."""
    try:
        return read_rows(config.data.train, config.objectives, rejected=config.target.contrastive)
    except AlignError:
        return None


def _what(config: AdapterRun) -> tuple[Row, ...]:
    head, encoder = config.head, config.encoder
    name = getattr(encoder, "path", None) or getattr(encoder, "config", None) or encoder.kind
    return (
        Row(label="encoder", value=str(name), note=f"kind {encoder.kind}; frozen, each prompt is encoded once"),
        Row(
            label="head",
            value=f"{len(config.objectives)} weights",
            note=f"LayerNorm, {head.hidden_size} hidden units, softmax at temperature {head.temperature:g}",
        ),
    )


def _taught(config: AdapterRun) -> tuple[Row, ...]:
    target = config.target
    source = "preferred minus rejected response" if target.contrastive else "preferred response"
    return (
        Row(label="target", value="softmax", note=f"of the {source}'s rewards over temperature {target.temperature:g}"),
        Row(label="normaliser", value=target.normaliser, note="of each reward, fitted to the training rows"),
        Row(label="equal weights mixed in", value=f"{target.entropy_floor:g}"),
        Row(label="loss", value="KL(target || weights)", note="nats, mean over prompts"),
    )


def _data(config: AdapterRun, rows: PreferredRows | None) -> tuple[Row, ...]:
    counted = "unknown" if rows is None else f"{len(rows):,}"
    distinct = "" if rows is None else f"{len(set(rows.prompts)):,} distinct prompts"
    aside = f"{config.data.heldout_share:.0%} of the prompts of the same file"
    return (
        Row(label="rows", value=counted, note=distinct),
        Row(label="held out", value=config.data.heldout or aside),
    )


def _run(config: AdapterRun, rows: PreferredRows | None, processes: int) -> tuple[Row, ...]:
    size, steps, stopping = config.data.prompts_per_step, config.training.steps, config.stopping
    epochs = "" if rows is None else f"{steps * min(size, len(rows)) / max(len(rows), 1):.1f} times over the rows"
    return (
        Row(label="steps", value=f"{steps:,}", note=epochs),
        Row(label="rows a step", value=f"{size:,}", note=f"on {processes} process{'es' if processes > 1 else ''}"),
        Row(
            label="early stopping",
            value=f"after {stopping.patience} looks without gain",
            note=f"a look every {stopping.every} steps; the best weights are kept",
        ),
    )
