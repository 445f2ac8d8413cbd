"""Rewarded soups: weighted averages of what several runs added to one base model. Pure.

    theta(lambda) = theta_0 + sum_k lambda_k (theta_k - theta_0)

All runs must have begun from the same weights. Of low-rank adapters the *products* are averaged, by putting the factors
side by side, so the ranks add up:

    A = [A_1; ...; A_K],   B = [lambda_1 s_1 B_1, ..., lambda_K s_K B_K],   B A = sum_k lambda_k s_k B_k A_k

Averaging A and B apart, as is often done, adds cross terms lambda_i lambda_j B_i A_j, as large as the update.

References:
    Rame et al., "Rewarded soups: towards Pareto-optimal alignment by interpolating weights fine-tuned on diverse
    rewards", arXiv:2306.04488.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def soup_of_weights(states: Sequence[State], shares: Sequence[float]) -> dict[str, Tensor]:
    """Averages of whole weights, sum_k share_k theta_k, computed in float64 and returned in the weights' dtype.

    Args:
        states: weights by name, the same names and shapes in each.
        shares: one per state, with sum 1; beyond [0, 1] they extrapolate.

    Raises:
        ValueError: names, shapes or the sum of the shares disagree.
    """
    _check(states, shares)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares of whole weights must have the sum 1, found {sum(shares):g}.")
    return {name: _sum(states, shares, name) for name in states[0]}


def soup_of_adapters(states: Sequence[State], shares: Sequence[float], scales: Sequence[float]) -> dict[str, Tensor]:
    """The adapter whose product is the weighted sum of the adapters' products; its own scale is 1.

    Args:
        states: adapters with names as peft writes them (`....lora_A.weight`, `....lora_B.weight`, also of embeddings).
            Ranks may differ. Weights that are no factors (biases, heads that were trained along) are averaged whole.
        shares: one per adapter; any numbers: an adapter of share 0.5 alone is half of its update.
        scales: alpha / rank of each.

    Returns:
        Factors with the sum of the ranks, in the order of the adapters.

    Raises:
        ValueError: names or shapes other than the rank's disagree.
    """
    if not len(states) == len(shares) == len(scales):
        counts = f"{len(states)}, {len(shares)}, {len(scales)}"
        raise ValueError(f"expected a share and a scale for each adapter, found {counts}.")
    names = list(states[0])
    for state in states[1:]:
        if list(state) != names and set(state) != set(names):
            raise ValueError(f"the adapters are on different layers: {sorted(set(state) ^ set(names))[:3]} ...")
    found: dict[str, Tensor] = {}
    for name in names:
        parts = [state[name] for state in states]
        if _is_down(name):
            found[name] = torch.cat(parts, dim=0)
        elif _is_up(name):
            scaled = [part * (share * scale) for part, share, scale in zip(parts, shares, scales, strict=True)]
            found[name] = torch.cat(scaled, dim=1)
        else:
            _check([{name: part} for part in parts], shares)
            found[name] = _sum(states, shares, name)
    return found


def rank_of(state: State) -> int:
    """Rank of an adapter, 0 if there is none.

    Raises:
        ValueError: layers have different ranks.
    """
    ranks = {len(value) for name, value in state.items() if _is_down(name)}
    if len(ranks) > 1:
        raise ValueError(f"the layers of the adapter have the ranks {sorted(ranks)}; one is expected.")
    return ranks.pop() if ranks else 0


def _is_down(name: str) -> bool:
    return ".lora_A." in name or ".lora_embedding_A" in name


def _is_up(name: str) -> bool:
    return ".lora_B." in name or ".lora_embedding_B" in name


def _sum(states: Sequence[State], shares: Sequence[float], name: str) -> Tensor:
    total = sum(share * state[name].double() for state, share in zip(states, shares, strict=True))
    assert isinstance(total, Tensor)  # there is at least one state
    return total.to(states[0][name].dtype)


def _check(states: Sequence[State], shares: Sequence[float]) -> None:
    if len(states) != len(shares) or not states:
        raise ValueError(f"expected one share per state, found {len(shares)} for {len(states)}.")
    for state in states[1:]:
        if set(state) != set(states[0]):
            raise ValueError(f"the states differ in {sorted(set(state) ^ set(states[0]))[:3]} ...")
        for name, value in state.items():
            if value.shape != states[0][name].shape:
                shapes = f"{list(states[0][name].shape)} and {list(value.shape)}"
                raise ValueError(f"`{name}` has shapes {shapes}: runs of one base model are expected.")
