"""Buckets of prompts: UCB by hand, Thompson by its frequencies."""

import math

import pytest
import torch

from align.allocation import thompson, ucb

NAN = math.nan


def test_ucb_by_hand():
    """The one never drawn comes first. Then, 11 draws in all: 0.5 + sqrt(2 log 11 / 5) = 1.479, 0.9 + the same = 1.879,
    0 + sqrt(2 log 11 / 1) = 2.190: it is drawn again. c = 0 is greedy."""
    payoffs, counts = torch.tensor([0.5, 0.9, NAN]), torch.tensor([5, 5, 0])
    assert ucb(payoffs, counts, 2).tolist() == [0, 0, 2]
    assert ucb(payoffs, torch.tensor([5, 5, 1]), 4, exploration=0.0).tolist() == [0, 4, 0]


def test_ucb_against_the_formula():
    means, numbers = [0.2, 0.6, 0.5], [3, 4, 9]
    expected = [0, 0, 0]
    for _ in range(10):
        total = sum(numbers)
        index = [m + math.sqrt(2 * math.log(total) / n) for m, n in zip(means, numbers, strict=True)]
        best = index.index(max(index))
        numbers[best] += 1
        expected[best] += 1
    assert ucb(torch.tensor([0.2, 0.6, 0.5]), torch.tensor([3, 4, 9]), 10).tolist() == expected


def test_thompson_repeats_and_prefers_the_better():
    payoffs, counts = torch.tensor([0.2, 0.8]), torch.tensor([50, 50])
    found = thompson(payoffs, counts, 1000, torch.Generator().manual_seed(0))
    assert torch.equal(found, thompson(payoffs, counts, 1000, torch.Generator().manual_seed(0)))
    assert int(found.sum()) == 1000
    assert found[1] > 990


def test_thompson_frequencies_by_hand():
    """Beta(1, 1) against Beta(2, 1): P(the second is larger) = E[theta_2] = 2/3."""
    found = thompson(torch.tensor([NAN, 1.0]), torch.tensor([0, 1]), 20_000, torch.Generator().manual_seed(1))
    assert found[1].item() / 20_000 == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ucb(torch.tensor([2.0]), torch.tensor([1]), 1), "payoffs must be between 0 and 1"),
        (lambda: ucb(torch.tensor([0.2]), torch.tensor([1]), -1), "must not be negative"),
        (
            lambda: ucb(torch.tensor([0.2]), torch.tensor([1]), 1, exploration=-1.0),
            "`exploration` must not be negative",
        ),
        (lambda: thompson(torch.tensor([0.2]), torch.tensor([1]), 1, torch.Generator(), prior=(0.0, 1.0)), "`prior`"),
        (lambda: ucb(torch.ones(0), torch.zeros(0, dtype=torch.int64), 1), "one payoff and one count per bucket"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
