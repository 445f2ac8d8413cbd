"""Scores of several rewards on a common scale, by numbers that are fitted once and kept.

The preference adapter's targets are a softmax over rewards, so rewards of different units must be made comparable
first, and held-out rows by the numbers of the training rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from align.groups import group_std
from align.order import group_quantile


@dataclass(frozen=True)
class Normaliser:
    """One column after the other, NaN stays NaN.

        none: r        zscore: (r - mean) / std; a constant column gives 0
        minmax: (r - low) / (high - low) limited to [0, 1], between the 1 % and 99 % quantile; a constant gives 1/2
        rank: share of the fitted scores that are lower, half of the equal ones counted; (rank - 1/2) / n for these

    Attributes:
        method: which.
        numbers: per column, float64, one axis: nothing; mean and std; low and high; the fitted scores, ascending.
    """

    method: str
    numbers: tuple[Tensor, ...]

    @classmethod
    def fitted(cls, scores: Float[Tensor, "n k"], method: str) -> Normaliser:
        """Fit to scores, NaN left out.

        Raises:
            ValueError: no such method.
        """
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}, found {method!r}.")
        return cls(method, tuple(METHODS[method][0](column) for column in scores.double().unbind(dim=1)))

    def __call__(self, scores: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The same scale for these or other rows.

        Raises:
            ValueError: another number of columns than it was fitted to.
        """
        if scores.shape[1] != len(self.numbers):
            raise ValueError(f"fitted to {len(self.numbers)} rewards, found scores of {scores.shape[1]}.")
        apply = METHODS[self.method][1]
        columns = [apply(column, own) for column, own in zip(scores.double().unbind(dim=1), self.numbers, strict=True)]
        return torch.stack(columns, dim=1).to(scores.dtype)

    def ranges(self) -> Float[Tensor, "k 2"]:
        """Lowest and highest score of each column that it was fitted to: for `minmax` their 1 % and 99 % quantile, for
        `zscore` three deviations around the mean, for `none` no bounds."""
        return torch.stack([RANGES[self.method](numbers) for numbers in self.numbers])

    def state_dict(self, prefix: str = "normaliser.") -> dict[str, Tensor]:
        """Its numbers by column, for a file."""
        return {f"{prefix}{k}": numbers for k, numbers in enumerate(self.numbers)}

    @classmethod
    def from_state(cls, method: str, state: Mapping[str, Tensor], prefix: str = "normaliser.") -> Normaliser:
        """Inverse of `state_dict`; other names in the state are passed over."""
        columns = sum(name.startswith(prefix) for name in state)
        return cls(method, tuple(state[f"{prefix}{k}"] for k in range(columns)))


Fit = Callable[[Tensor], Tensor]
Apply = Callable[[Tensor, Tensor], Tensor]


def _moments(column: Tensor) -> Tensor:
    scored = column[~column.isnan()]
    std = group_std(scored, _one_group(scored))[:1] if len(scored) else scored.new_zeros(1)
    return torch.cat([column.nanmean().reshape(1), std])


def _zscore(column: Tensor, numbers: Tensor) -> Tensor:
    mean, std = numbers.unbind()
    return (column - mean) / std if std > 0 else column * 0.0


def _bounds(column: Tensor) -> Tensor:
    if column.isnan().all():
        return column.new_full((2,), float("nan"))
    low, high = (group_quantile(column, _one_group(column), q)[0] for q in (0.01, 0.99))
    return torch.stack([low, high])


def _minmax(column: Tensor, numbers: Tensor) -> Tensor:
    low, high = numbers.unbind()
    return ((column - low) / (high - low)).clamp(0, 1) if high > low else column * 0.0 + 0.5


def _sorted(column: Tensor) -> Tensor:
    return column[~column.isnan()].sort().values


def _rank(column: Tensor, numbers: Tensor) -> Tensor:
    below = torch.searchsorted(numbers, column.contiguous())
    up_to = torch.searchsorted(numbers, column.contiguous(), right=True)
    return torch.where(column.isnan(), float("nan"), (below + up_to).double() / (2 * max(len(numbers), 1)))


def _one_group(column: Tensor) -> Tensor:
    return torch.zeros(len(column), dtype=torch.int64, device=column.device)


def _around(numbers: Tensor) -> Tensor:
    mean, std = numbers.unbind()
    return torch.stack([mean - 3 * std, mean + 3 * std])


def _without(numbers: Tensor) -> Tensor:
    return numbers.new_tensor([float("-inf"), float("inf")])


def _ends(numbers: Tensor) -> Tensor:
    return torch.stack([numbers[0], numbers[-1]]) if len(numbers) else _without(numbers)


RANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": _without,
    "zscore": _around,
    "minmax": lambda numbers: numbers,
    "rank": _ends,
}
"""Name -> where the scores lay that it was fitted to, from its numbers."""
METHODS: dict[str, tuple[Fit, Apply]] = {
    "none": (lambda column: column[:0], lambda column, numbers: column),
    "zscore": (_moments, _zscore),
    "minmax": (_bounds, _minmax),
    "rank": (_sorted, _rank),
}
"""Name -> how its numbers are found, and what they do to a column."""
