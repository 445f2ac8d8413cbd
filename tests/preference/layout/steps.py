"""Losses and gradients of some ragged pairs, with and without what saves work or memory."""

import torch
from torch.testing import assert_close

from preference.layout import LAYOUTS, Group, states_read
from preference.logprobs import pool_flat, score_tokens
from preference.logprobs.split import split_model
from preference.losses import dpo

from ..miniatures import VOCABULARY


def ids(count, seed):
    return torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


def pairs(seed=0):
    """Prompts of different lengths, one of a single token, none at all, an answer of which some tokens are scored."""
    scored = (torch.tensor([True, False, True]), torch.tensor([False, True]))
    return [
        Group(prompt=ids(19, seed + 1), responses=(ids(3, seed + 2), ids(7, seed + 3))),
        Group(prompt=ids(1, seed + 4), responses=(ids(5, seed + 5), ids(1, seed + 6))),
        Group(prompt=ids(11, seed + 7), responses=(ids(3, seed + 8), ids(2, seed + 9)), scored=scored),
        Group(prompt=ids(0, 0), responses=(ids(4, seed + 10), ids(6, seed + 11))),
    ]


def step(model, kind, found, seeds=(0,), row_length=None):
    """Losses, and the gradients of all trained weights after one backward pass through all of them."""
    model.zero_grad()
    options, losses = {} if row_length is None else {"row_length": row_length}, []
    for seed in seeds:
        split, layout = split_model(model), LAYOUTS[kind](pairs(seed), **options)
        scores = score_tokens(states_read(split.trunk, layout, found), split.head, layout.labels)
        sums = pool_flat(scores.log_probs, layout.sequence_ids, layout.sequences).view(-1, 2)
        losses.append(dpo(sums[:, 0], sums[:, 1], sums[:, 0].detach() - 1, sums[:, 1].detach() - 2, beta=0.1).losses)
    torch.cat(losses).mean().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return torch.cat(losses).detach(), gradients


def compare(model, kind, found, plain, tolerance=1e-6, **options):
    """With what was found of a model, and without some of it. Norms of most families compute in float32 whatever their
    weights are: six digits.
    """
    losses, gradients = step(model, kind, found, **options)
    expected = step(model, kind, plain, **options)
    assert_close(losses, expected[0], rtol=tolerance, atol=tolerance)
    assert gradients.keys() == expected[1].keys()
    for name, gradient in gradients.items():
        largest = float(expected[1][name].abs().max())
        assert float((gradient - expected[1][name]).abs().max()) <= 10 * tolerance * largest + 1e-9, name
