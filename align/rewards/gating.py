"""ArmoRM's second stage: one score from several heads, weighed by what the prompt asks for.

    r'_j = r_j - p_j r_v                                   heads without what they share with the penalised head v
    g = scale softmax(MLP(h_prompt) / temperature)         over the heads
    score = sum_j g_j r'_j = sum_j (T g)_j r_j,            T = I with row v replaced by -p_j (0 at v)

The coefficients T g may be negative: they are no simplex. The public training code has faults that are not repeated
here: its softmax ran over the two answers of a pair and not over the heads, so that weights did not sum to 1; it
computed r' and then trained and evaluated on r. Its way of picking p_j is kept.

References:
    Wang et al., "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts",
    arXiv:2406.12845, the sections on gating and on verbosity; numbers from the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.order import spearman

GRID = tuple(round(0.05 * place, 2) for place in range(20))
"""Penalties that are tried: 0, 0.05 ... 0.95."""


def penalties(
    rewards: Float[Tensor, "n k"], penalised: int, *, limit: float = 0.03, grid: Sequence[float] = GRID
) -> Float[Tensor, "k"]:
    """For each head, the smallest p with Spearman(r_j - p r_v, r_v) <= limit; 1 where none on the grid is enough.

    Args:
        rewards: of a reference set of answers, in training units.
        penalised: column v; its own entry is 1, which removes it.
        limit: rank correlation that may stay.
        grid: ascending.
    """
    against = rewards[:, penalised].double()
    found = []
    for column in range(rewards.shape[1]):
        # A constant has no rank correlation (NaN) and needs no penalty.
        left = (p for p in grid if not float(spearman(rewards[:, column].double() - p * against, against)) > limit)
        found.append(1.0 if column == penalised else next(left, 1.0))
    return torch.tensor(found, dtype=torch.float64)


def debiasing(penalty: Float[Tensor, "k"], penalised: int) -> Float[Tensor, "k k"]:
    """T with r' = r T: the identity whose row v is -p_j, and 1 - p_v on the diagonal."""
    transform = torch.eye(len(penalty), dtype=penalty.dtype)
    transform[penalised] -= penalty
    return transform


class Gate(nn.Module):
    """Weights of the heads from the prompt's features.

    Args:
        features: d, the width of the hidden state.
        heads: k.
        width: of the hidden layers.
        depth: hidden layers.
        dropout: share of hidden units left out in training.
        temperature: divides the logits.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        width: int = 1024,
        depth: int = 3,
        dropout: float = 0.2,
        temperature: float = 10.0,
    ) -> None:
        super().__init__()
        sizes = [features, *[width] * depth]
        layers: list[nn.Module] = []
        for inside, outside in pairwise(sizes):
            layers += [nn.Linear(inside, outside), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], heads))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.temperature = temperature

    def forward(self, prompts: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """g: positive, its sum over the heads is the scale."""
        return self.log_scale.exp() * torch.softmax(self.layers(prompts) / self.temperature, dim=-1)


def gated_score(
    rewards: Float[Tensor, "n k"], gates: Float[Tensor, "n k"], transform: Float[Tensor, "k k"]
) -> Float[Tensor, "n"]:
    """sum_j g_j (r T)_j.

    Args:
        rewards: r of each answer.
        gates: g of its prompt.
        transform: T of `debiasing`; the identity leaves rewards as they are.
    """
    return (gates * (rewards @ transform.to(rewards.dtype))).sum(dim=-1)
