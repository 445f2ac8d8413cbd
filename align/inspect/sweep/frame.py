"""The fixed box in which fronts are measured: 0 is the reference point, 1 the other end, in every objective. No IO.

Without numbers from the user it is made of the model before training, never of the points that are compared:

    low = mean - 2 d,  high = mean + 2 d,     d = deviation within a prompt, or of all samples if each prompt has one
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from align.errors import AlignError, did_you_mean
from align.inspect.audit.measures import spread_within
from align.inspect.sweep.sources import Objective, Point

DEVIATIONS = 2.0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Ends of the box, in the units of the objectives.

    Attributes:
        low: the reference point of the hypervolume.
        high: where the box ends; points may lie beyond.
        origin: where the numbers are from, a sentence.
    """

    low: Float[Tensor, "k"]
    high: Float[Tensor, "k"]
    origin: str

    @property
    def size(self) -> Float[Tensor, "k"]:
        """Width of the box."""
        return self.high - self.low

    def __call__(self, scores: Float[Tensor, "... k"]) -> Float[Tensor, "... k"]:
        """Scores in the box."""
        return (scores - self.low) / self.size


def made_frame(
    objectives: Sequence[Objective],
    base: Sequence[Point],
    reference: Mapping[str, float] | None = None,
    high: Mapping[str, float] | None = None,
) -> Frame:
    """The box of a sweep.

    Args:
        objectives: in the order of the points' values.
        base: the model before training; may be empty if `reference` is given.
        reference: low ends by objective; None takes them from the base.
        high: high ends by objective; None takes them from the base, or low + 1 without one.

    Raises:
        AlignError: neither numbers nor a base, an unknown or missing objective, ends the wrong way round.
    """
    names = [one.name for one in objectives]
    if reference is None and not base:
        raise AlignError(
            "there is no reference point: none is given, and no run has an evaluation of the model before training "
            "(step 0).",
            f"Give one that is worse than every point: --reference {','.join(f'{name}=0' for name in names)}.",
        )
    low, top = ends_of(objectives, reference, "--reference"), ends_of(objectives, high, "--high")
    said = " and ".join(text for text, end in (("--reference", low), ("--high", top)) if end is not None)
    origin = f"{said} as given"
    if low is None or (top is None and base):
        mean, deviation, what = _of_base(names, base)
        low = mean - DEVIATIONS * deviation if low is None else low
        top = mean + DEVIATIONS * deviation if top is None else top
        origin = f"{origin}, the rest {what}" if said else what
    top = low + 1 if top is None else top
    for name, bottom, end in zip(names, low.tolist(), top.tolist(), strict=True):
        if not bottom < end:
            raise AlignError(
                f"the box of `{name}` would go from {bottom:g} to {end:g}.",
                f"Give both ends with --reference {name}=... and --high {name}=..., the reference below the other.",
            )
    return Frame(low=low, high=top, origin=origin)


def _of_base(names: Sequence[str], base: Sequence[Point]) -> tuple[Tensor, Tensor, str]:
    """Mean and deviation of each objective over all samples of the model before training."""
    values = torch.cat([one.values for one in base])
    prompts = [row.prompt for one in base for row in one.rows]
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    ids = torch.tensor([number[prompt] for prompt in prompts])
    several = len(number) < len(ids)
    deviations = []
    for name, column in zip(names, values.unbind(dim=1), strict=True):
        scored = column[~column.isnan()]
        found = spread_within(column, ids) if several else math.nan
        if not found > 0:  # one sample a prompt, or all alike
            found = float(scored.std()) if len(scored) > 1 else math.nan
        if not found > 0:
            raise AlignError(
                f"the model before training has the same score of `{name}` everywhere, or none, so there is no scale.",
                "Give --reference and --high.",
            )
        deviations.append(found)
    what = "within a prompt" if several else "over prompts"
    origin = f"mean of the model before training -/+ {DEVIATIONS:g} deviations {what}"
    return values.nanmean(dim=0), torch.tensor(deviations, dtype=torch.float64), origin


def ends_of(
    objectives: Sequence[Objective], ends: Mapping[str, float] | None, option: str
) -> Float[Tensor, "k"] | None:
    """One end of the box as given, in the order of the objectives; None for None.

    Raises:
        AlignError: a name that is no objective, or an objective without a number.
    """
    if ends is None:
        return None
    names = [one.name for one in objectives]
    for name in ends:
        if name not in names:
            raise AlignError(
                f"{option} names `{name}`, which is no objective.{did_you_mean(name, names)}",
                f"The objectives are {', '.join(names)}.",
            )
    missing = [name for name in names if name not in ends]
    if missing:
        raise AlignError(f"{option} has no number for `{missing[0]}`.", f"Add {missing[0]}=NUMBER.")
    return torch.tensor([ends[name] for name in names], dtype=torch.float64)
