"""What a settings class of `align/config/shaping.py` does to the table: the pure functions of `transforms` and
`combine`, handed the columns and the statistics that they name. One entry per kind in `TRANSFORMS`, `REFERENCES`,
`COMBINATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from align.config import shaping as settings
from align.shaping import combine, transforms
from align.shaping.running import RunningMoments
from align.shaping.stored import StoredSamples
from align.shaping.table import Columns

Options: TypeAlias = Any  # one frozen dataclass per kind; they have nothing in common but `kind`
Memory: TypeAlias = dict[str, float | Tensor]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a transform stands: the whole table, and what it remembers of this reward from earlier steps.

    Attributes:
        columns: raw rewards, group ids.
        memory: numbers and tensors that outlive the step; changed in place.
    """

    columns: Columns
    memory: Memory


Transform: TypeAlias = Callable[[Options, Tensor, Place], Tensor]
Combination: TypeAlias = Callable[[Options, Tensor, Tensor, Columns], Tensor]


def numbers(options: Options, *leave_out: str) -> dict[str, Any]:
    """The options as keyword arguments, without `kind`, the names of rewards, and what is left out."""
    return {name: value for name, value in asdict(options).items() if name not in ("kind", "rewards", *leave_out)}


def named_rewards(options: Options) -> tuple[str, ...]:
    """Other rewards that a transform or combination looks at, by name."""
    names = [getattr(options, name, None) for name in ("on", "length", "gate")]
    names += [getattr(getattr(options, "reference", None), "column", None)]
    lists = [getattr(options, name, None) or () for name in ("columns", "order")]
    return (*(name for name in names if name is not None), *(name for listed in lists for name in listed))


# --- transforms ------------------------------------------------------------------------------------------------------


def _plain(function: Callable[..., Tensor]) -> Transform:
    """A transform that needs its column, the groups and its numbers."""
    return lambda options, values, place: function(values, place.columns.ids, **numbers(options))


def _zscore(options: settings.ZScore, values: Tensor, place: Place) -> Tensor:
    if options.scope != "running":
        return transforms.zscore(values, place.columns.ids, **numbers(options))
    moments = _remembered(place)
    if place.columns.update:
        moments.update(values)  # the batch is part of its own statistics, as in the released code of PAR
        place.memory.update(moments.state_dict())
    return moments.zscore(values, **numbers(options, "scope"))


def _lsc(options: settings.Lsc, values: Tensor, place: Place) -> Tensor:
    reference = REFERENCES[type(options.reference)](options.reference, values, place)
    return transforms.lsc(values, place.columns.ids, reference=reference, scale=options.scale)


def _par(options: settings.Par, values: Tensor, place: Place) -> Tensor:
    references = _side_by_side(options.columns, place.columns)
    return transforms.par(values, place.columns.ids, references=references, scale=options.scale)


def _reference_quantile(options: settings.ReferenceQuantile, values: Tensor, place: Place) -> Tensor:
    references = _side_by_side(options.columns, place.columns)
    return transforms.reference_quantile(values, place.columns.ids, references=references)


def _length_penalty(options: settings.LengthPenalty, values: Tensor, place: Place) -> Tensor:
    lengths = place.columns.column(options.length)
    return transforms.length_penalty(values, place.columns.ids, lengths=lengths, **numbers(options, "length"))


def _gate(options: settings.Gate, values: Tensor, place: Place) -> Tensor:
    decides = place.columns.column(options.on)
    return transforms.gate(values, place.columns.ids, on=decides, **numbers(options, "on"))


def _remembered(place: Place) -> RunningMoments:
    moments = RunningMoments()
    if place.memory:
        moments.load_state_dict({name: float(value) for name, value in place.memory.items()})
    return moments


def _side_by_side(names: tuple[str, ...], columns: Columns) -> Float[Tensor, "n m"]:
    if not names:
        raise ValueError("`columns` must name at least one reward that holds reference scores.")
    return torch.stack([columns.column(name) for name in names], dim=1)


TRANSFORMS: Mapping[type, Transform] = {
    settings.Affine: _plain(transforms.affine),
    settings.ZScore: _zscore,
    settings.RobustZScore: _plain(transforms.robust_zscore),
    settings.MinMax: _plain(transforms.minmax),
    settings.Rank: _plain(transforms.rank),
    settings.Clip: _plain(transforms.clip),
    settings.Tanh: _plain(transforms.tanh),
    settings.Threshold: _plain(transforms.threshold),
    settings.LogProb: _plain(transforms.log_prob),
    settings.Lsc: _lsc,
    settings.Par: _par,
    settings.ReferenceQuantile: _reference_quantile,
    settings.LengthPenalty: _length_penalty,
    settings.Impute: _plain(transforms.impute),
    settings.Gate: _gate,
}


# --- references of LSC -----------------------------------------------------------------------------------------------


def _constant(options: settings.ReferenceConstant, values: Tensor, place: Place) -> Tensor | float:
    return options.value


def _column(options: settings.ReferenceColumn, values: Tensor, place: Place) -> Tensor:
    return _or_fallback(place.columns.column(options.column), options.fallback)


def _canonical(options: settings.ReferenceCanonical, values: Tensor, place: Place) -> Tensor:
    marks = place.columns.column(options.column).nan_to_num() != 0
    return _or_fallback(transforms.canonical_reference(values, place.columns.ids, canonical=marks), options.fallback)


def _start(options: settings.ReferenceStart, values: Tensor, place: Place) -> Tensor | float:
    """mean + PhiInv(q) * std over the samples of the first steps, one number for all prompts."""
    moments, seen = _remembered(place), int(place.memory.get("steps", 0))
    if seen < options.steps and place.columns.update:
        moments.update(values)
        place.memory.update(moments.state_dict(), steps=float(seen + 1))
    if moments.count == 0:
        return float("nan")
    return moments.mean + NormalDist().inv_cdf(options.q) * moments.std()


def _prompt(options: settings.ReferencePrompt, values: Tensor, place: Place) -> Tensor:
    """Quantile over the stored samples of each row's prompt, the present ones included until there are enough."""
    stored = StoredSamples(options.samples)
    if place.memory:
        stored.load_state_dict(place.memory)
    if place.columns.update:
        stored.update(values, place.columns.prompts)
        place.memory.update(stored.state_dict())
    return stored.reference(place.columns.prompts, q=options.q, method=options.method)


def _group(options: settings.ReferenceGroup, values: Tensor, place: Place) -> Tensor:
    return transforms.quantile_reference(values, place.columns.ids, q=options.q, method=options.method)


def _or_fallback(reference: Tensor, fallback: float | None) -> Tensor:
    return reference if fallback is None else torch.where(reference.isnan(), fallback, reference)


REFERENCES: Mapping[type, Callable[[Options, Tensor, Place], Tensor | float]] = {
    settings.ReferenceConstant: _constant,
    settings.ReferenceColumn: _column,
    settings.ReferenceCanonical: _canonical,
    settings.ReferenceStart: _start,
    settings.ReferencePrompt: _prompt,
    settings.ReferenceGroup: _group,
}


# --- combinations ----------------------------------------------------------------------------------------------------


def _plain_sum(function: Callable[..., Tensor]) -> Combination:
    """A combination that needs rewards, weights and its numbers."""
    return lambda options, values, weights, columns: function(values, weights, **numbers(options))


def _chebyshev(options: settings.Chebyshev, values: Tensor, weights: Tensor, columns: Columns) -> Tensor:
    return combine.chebyshev(values, weights, group_ids=columns.ids, **numbers(options))


def _gated(options: settings.Gated, values: Tensor, weights: Tensor, columns: Columns) -> Tensor:
    place = columns.position(options.gate)
    return combine.gated(
        values, weights, gate=place, raw=columns.raw[:, place], group_ids=columns.ids, **numbers(options, "gate")
    )


def _lexicographic(options: settings.Lexicographic, values: Tensor, weights: Tensor, columns: Columns) -> Tensor:
    order = [columns.position(name) for name in options.order]
    return combine.lexicographic(values, order=order, tolerances=options.tolerances, group_ids=columns.ids)


COMBINATIONS: Mapping[type, Combination] = {
    settings.WeightedSum: _plain_sum(combine.weighted_sum),
    settings.Directional: _plain_sum(combine.directional),
    settings.SoftMin: _plain_sum(combine.soft_min),
    settings.Chebyshev: _chebyshev,
    settings.Nash: _plain_sum(combine.nash),
    settings.PowerMean: _plain_sum(combine.power_mean),
    settings.Gated: _gated,
    settings.Lexicographic: _lexicographic,
}
