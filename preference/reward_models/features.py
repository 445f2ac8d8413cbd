"""Hidden states of a frozen model at the places that heads and gates read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from preference.reward_models.batches import StoredRatings
from preference.reward_models.evaluate import Shared
from preference.reward_models.network import HEAD, RewardModel, hidden_states, placed, states_at


def features(
    model: RewardModel, rows: int, sequence: Callable[[int], Int[Tensor, "_"]], work: Shared
) -> Float[Tensor, "n d"]:
    """State of the last token of each sequence, float64, on every process. A collective.

    Args:
        model: the frozen model.
        rows: how many sequences.
        sequence: place -> token ids.
        work: who computes how many at once.
    """

    def of(places: Int[Tensor, "b"]) -> Float[Tensor, "b d"]:
        return _states(model, [sequence(place) for place in places.tolist()])

    return work.over(rows, of, int(getattr(model.network, HEAD).in_features))


def _states(model: RewardModel, sequences: Sequence[Tensor]) -> Float[Tensor, "b d"]:
    with torch.no_grad():
        ids, last = placed(model.network, sequences, model.pad_id)
        return states_at(hidden_states(model.network, ids, last), last).float()


def answer_features(model: RewardModel, ratings: StoredRatings, work: Shared) -> Float[Tensor, "n d"]:
    """Of all rated answers."""
    return features(model, len(ratings), ratings.sequence, work)
