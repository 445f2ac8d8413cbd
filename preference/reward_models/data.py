"""Rated answers as a run reads them: checked against their scales before anything heavy is loaded. Torch-free.

What is wrong with a rating is said with the answer that it belongs to: an attribute that nobody rated, one off its
scale, one that is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from align.errors import AlignError
from align.rewards.scales import LabelScale
from preference.data import Texts
from preference.formats import as_chat, readable
from preference.ratings import RatedTexts, read_ratings
from preference.reward_models.config import RatingsConfig


def training_ratings(settings: RatingsConfig) -> RatedTexts:
    """The answers of `data.train`.

    Raises:
        AlignError: no such source or attribute, a rating off its scale, an attribute that is constant.
    """
    rated = _read(settings.train, settings.train_split, settings)
    for place, name in enumerate(rated.names):
        found = {row[place] for row in rated.values if not math.isnan(row[place])}
        if len(found) < 2:
            only = f"all its labels are {found.pop():g}" if found else "it has no label"
            raise AlignError(
                f"{settings.train}: there is nothing to learn of `{name}`: {only}.",
                f"Remove it from `data.attributes`, or give answers that differ in {name}.",
            )
    return rated


def heldout_ratings(settings: RatingsConfig) -> RatedTexts | None:
    """The answers of `data.heldout`; None without."""
    return None if settings.heldout is None else _read(settings.heldout, settings.heldout_split, settings)


def _read(source: str, split: str, settings: RatingsConfig) -> RatedTexts:
    rated = read_ratings(source, attributes=tuple(settings.attributes), split=split, bad_rows=settings.bad_rows)
    check_scales(rated, settings.attributes, source)
    return rated


def check_scales(rated: RatedTexts, scales: Mapping[str, LabelScale], source: str) -> None:
    """Refuse ratings that are no label of their scale.

    Raises:
        AlignError: names the attribute, the answer, the rating and the scale.
    """
    for place, name in enumerate(rated.names):
        scale = scales[name]
        off = [i for i, row in enumerate(rated.values) if not scale.holds(row[place])]
        if off:
            prompt, label = readable(rated.rows[off[0]].prompt), rated.values[off[0]][place]
            more = f" ({len(off)} answers are off it)" if len(off) > 1 else ""
            raise AlignError(
                f"{source}: answer {off[0]} (prompt {prompt!r:.40}) has {name} {label:g}, but its scale "
                f"goes from {scale.lowest:g} to {scale.highest:g}{more}.",
                f"Correct the rating, or `data.attributes.{name}`.",
            )


def as_texts(rated: RatedTexts, *, as_turns: bool) -> Texts:
    """Rated answers for the tokeniser; `numbers` are their places among the ratings. Answers without any label go.

    Args:
        rated: of `read_ratings`.
        as_turns: take plain texts for turns of user and assistant.
    """
    kept = [i for i, row in enumerate(rated.values) if not all(map(math.isnan, row))]
    rows = tuple(as_chat(rated.rows[i]) if as_turns else rated.rows[i] for i in kept)
    places = tuple(f"{rated.report.source}, answer {i}" for i in kept)
    return Texts(rows=rows, numbers=tuple(kept), places=places, columns={}, report=rated.report)
