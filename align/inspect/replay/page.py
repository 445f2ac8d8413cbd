"""A replay as a page: what changes, step by step, and the samples that would have been pushed the other way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from align.inspect.replay.changes import Change, compare, shift
from align.inspect.replay.run import Replayed
from align.inspect.replay.sources import Stored
from align.report import words
from align.report.tables import Page, Shown, Table, number, share

EXTREMES = 3
"""Samples at each end of a step that the record names."""
SHOWN = 12
"""Samples at each end that the page shows."""
ROWS = 24
"""Steps in the table; more are thinned out, the record has all."""
SETTLED, OTHER = 0.95, 0.5
"""Correlations above and below which the verdict is plain."""
SILENCED = 0.1
"""Share of the samples that is worth a sentence."""


def replay_page(stored: Stored, steps: Sequence[Replayed], what: str, check: str) -> Page:
    """What a person asks of a replay.

    Args:
        stored: where the samples are.
        steps: of `replay`.
        what: the other settings in words.
        check: whether the run's own settings could be reproduced, a sentence.
    """
    total = over_all(steps)
    samples = {
        "Would have been pushed up more": list(_shown(stored, steps, up=True)),
        "Would have been pushed down more": list(_shown(stored, steps, up=False)),
    }
    return Page(
        title=f"Replay: {what}",
        lead=f"{stored.source}, {total.samples:,} samples. {check}",
        findings=list(_says(total)),
        tables=[_table(total, steps)],
        samples=samples,
        record={
            "settings": what,
            "check": check,
            "total": total._asdict(),
            "steps": [{"step": one.before.step, **one.change._asdict(), **_extremes(stored, one)} for one in steps],
        },
    )


def over_all(steps: Sequence[Replayed]) -> Change:
    """All steps as one: prompts of different steps are different groups."""
    places = [(number, int(group)) for number, one in enumerate(steps) for group in one.before.group_ids.tolist()]
    known = {key: place for place, key in enumerate(dict.fromkeys(places))}
    return compare(
        torch.cat([one.before.advantages for one in steps]).float(),
        torch.cat([one.advantages for one in steps]).float(),
        torch.tensor([known[key] for key in places]),
    )


def _says(total: Change) -> Iterator[str]:
    if math.isnan(total.correlation):
        yield "One of the two pipelines pushes nothing at all: every group's scores are equal, or nothing was scored."
        return
    changes = f"{share(total.flipped)} of the samples change sign, {share(total.reordered)} of the pairs their order"
    changes = f"correlation {total.correlation:+.2f}; {changes}"
    if total.correlation >= SETTLED and total.flipped < 1 - SETTLED:
        yield f"The signal would have been nearly the same ({changes}): training again is not worth it."
    elif total.correlation < OTHER:
        yield f"The signal would have been another one ({changes}): expect another model."
    else:
        yield f"The signal would have been related, not the same ({changes}): look at the samples on the page."
    if total.silenced >= SILENCED:
        yield f"{share(total.silenced)} of the samples would no longer be pushed at all: fewer prompts teach."
    yield (
        "A replay says what these samples would have taught; under other settings later steps would have drawn others, "
        "because the policy would have been another."
    )


def _table(total: Change, steps: Sequence[Replayed]) -> Table:
    stride = max(1, math.ceil(len(steps) / ROWS))
    rows = [_row(str(one.before.step), one.change) for one in steps[::stride]]
    return Table(
        title="What changes",
        note="Sign: samples that would have been pushed the other way. Silenced, woken: to and from 0. Order: pairs of "
        "samples of a prompt in opposite order. Best: prompts with another best sample. Correlation of the advantages "
        "within prompts, by value and by rank.",
        columns=("step", "samples", "sign", "silenced", "woken", "order", "best", "correlation", "rank"),
        rows=[*rows, _row("all", total)] if len(steps) > 1 else rows,
    )


def _row(name: str, change: Change) -> tuple[str, ...]:
    shares = (change.flipped, change.silenced, change.woken, change.reordered, change.other_best)
    return (
        name,
        f"{change.samples:,}",
        *(share(value) for value in shares),
        number(change.correlation),
        number(change.rank_correlation),
    )


def _extremes(stored: Stored, one: Replayed) -> dict[str, Any]:
    """The samples that would have been pushed most, with where to look at them."""
    order = one.advantages.argsort(descending=True, stable=True).tolist()
    return {
        "top": [_reference(stored, one, row) for row in order[:EXTREMES]],
        "bottom": [_reference(stored, one, row) for row in order[::-1][:EXTREMES]],
    }


def _reference(stored: Stored, one: Replayed, row: int) -> Mapping[str, Any]:
    step = one.before.step
    picture = stored.picture(step, row)
    text = stored.texts.get(step, {}).get(row)
    values = one.before.table.values[row].tolist()
    return {
        "row": row,
        "prompt": one.before.prompts[row],
        "picture": None if picture is None else str(picture),
        **({} if text is None else {"completion": text}),
        "rewards": dict(zip(one.before.table.names, values, strict=True)),
        "score": [float(one.before.scores[row]), float(one.scores[row])],
        "advantage": [float(one.before.advantages[row]), float(one.advantages[row])],
    }


def _shown(stored: Stored, steps: Sequence[Replayed], *, up: bool) -> Iterator[Shown]:
    """The samples whose push changes most, those with a picture or text first."""
    moved = []
    for one in steps:
        change = shift(one.before.advantages, one.advantages)
        for row in change.argsort(descending=up, stable=True).tolist()[:SHOWN]:
            value = float(change[row])
            if (value > 0) == up and value != 0:
                moved.append((abs(value), one, row))
    kept = [(_can_show(stored, one, row), size, one, row) for size, one, row in moved]
    for _, _, one, row in sorted(kept, key=lambda entry: (not entry[0], -entry[1]))[:SHOWN]:
        before, after = float(one.before.advantages[row]), float(one.advantages[row])
        yield Shown(
            prompt=f"step {one.before.step}: {one.before.prompts[row]}",
            caption=f"{words.score(before)} → {words.score(after)}",
            picture=stored.picture(one.before.step, row),
            text=stored.texts.get(one.before.step, {}).get(row, ""),
        )


def _can_show(stored: Stored, one: Replayed, row: int) -> bool:
    step = one.before.step
    return stored.picture(step, row) is not None or row in stored.texts.get(step, {})
