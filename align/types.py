"""The few objects that pass between stages. The walk: Samples -> RewardTable -> Signal -> LossOutput.

Axis letters: n samples, k rewards, t steps or tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a person or a reward function can look at: the prompts and what the model made of them.

    Attributes:
        index: global row number of each sample in its step, unique over all processes, int64. It orders rows after a
            gather and keys their noise, so that results do not depend on the number of processes.
        group_ids: samples with equal ids answer the same prompt, int64.
        prompts: one text per sample.
        images: pictures, or None for text models.
        completions: texts, or None for image models.
        columns: further columns of the prompt's data-set row, one entry per sample.
    """

    index: Int[Tensor, "n"]
    group_ids: Int[Tensor, "n"]
    prompts: Sequence[str]
    images: Sequence[Image] | None = None
    completions: Sequence[str] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # Any: the user's own data

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, index: Sequence[int]) -> Self:
        """Rows `index`, in that order."""
        rows = torch.as_tensor(list(index), dtype=torch.int64)

        def pick(values: Sequence[Any]) -> list[Any]:
            return [values[i] for i in index]

        return type(self)(
            index=self.index[rows],
            group_ids=self.group_ids[rows],
            prompts=pick(self.prompts),
            images=None if self.images is None else pick(self.images),
            completions=None if self.completions is None else pick(self.completions),
            columns={name: pick(values) for name, values in self.columns.items()},
        )


@dataclass(frozen=True, kw_only=True)
class RewardTable:
    """Raw rewards, NaN where a scorer could not score.

    Attributes:
        names: one per column.
        values: rewards in the unit of each scorer, float32.
        weights: one per column; 0 marks a metric.
        problems: per column, why samples are unscored: message -> count.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "n k"]
    weights: Float[Tensor, "k"]
    problems: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What the loss learns from.

    Attributes:
        scores: one combined score per sample, NaN where unscored.
        advantages: one per sample, or one per sample and step or token; 0 where unscored, never NaN.
        stats: scalars for the log.
        aux: what else the loss of a method reads, one row per sample: COPO's second advantage, HAPO's entropies.
    """

    scores: Float[Tensor, "n"]
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"]
    stats: Mapping[str, float] = field(default_factory=dict)
    aux: Mapping[str, Tensor] = field(default_factory=dict)

    def select(self, rows: Int[Tensor, "m"]) -> Self:
        """The rows at these positions, in that order; the scalars stay those of all rows."""
        aux = {name: values[rows] for name, values in self.aux.items()}
        return replace(self, scores=self.scores[rows], advantages=self.advantages[rows], aux=aux)


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """One micro-batch's loss.

    Attributes:
        loss: scalar, the *mean* over the micro-batch's units (samples or tokens), with gradient.
        count: how many units that mean is over; the engine weighs uneven micro-batches by it.
        metrics: means over the same units, detached.
    """

    loss: Float[Tensor, ""]
    count: int
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)


class Batch(Protocol):
    """What an algorithm collects in a step and the engine cuts into micro-batches. Rows are this process's samples.

    `samples`, `rewards` and `signal` are for the record (pictures, tables, metrics) and may be None for off-line data.
    A batch whose rows are no images may say what they are as `noun`: "pairs" is logged as `pairs_per_second`.
    """

    @property
    def samples(self) -> Samples | None: ...

    @property
    def rewards(self) -> RewardTable | None: ...

    @property
    def signal(self) -> Signal | None: ...

    def __len__(self) -> int: ...

    def select(self, rows: Tensor) -> Self:
        """The rows (int64 positions in this batch), in that order."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)
"""The batches of one algorithm."""
