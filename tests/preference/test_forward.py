"""The pass: the same log-probabilities in every layout, and those that the model's own logits say."""

import pytest
import torch
from torch.testing import assert_close

from preference.forward import plan_layout
from preference.layout import LAYOUTS
from preference.scores import sides
from preference.stored_pairs import StoredPairs

from .miniatures import miniature
from .pair_data import float32, policy_of, scorer_of, token_pairs

DATA = token_pairs(5)
PAIRS = StoredPairs(data=DATA)
ROWS = torch.arange(len(DATA))


def by_hand(network):
    """log pi(y | x) of each answer by a loop over tokens, each from the model's whole logits, in float64."""
    found = []
    for row in range(len(DATA)):
        for answer in (DATA.chosen_ids[row], DATA.rejected_ids[row]):
            ids = torch.cat([DATA.prompt_ids[row], answer])
            log_probs = network(input_ids=ids[None]).logits[0].double().log_softmax(dim=-1)
            first = len(DATA.prompt_ids[row])
            found.append(sum(log_probs[place - 1, ids[place]] for place in range(first, len(ids))))
    return torch.stack(found)


@pytest.mark.parametrize("wanted", list(LAYOUTS))
def test_sums_are_those_of_the_models_own_logits(wanted):
    """float32: sums of up to 7 log-probabilities around -10, so 1e-4 is rounding."""
    policy = policy_of(float32())
    scores = scorer_of(policy, PAIRS, wanted).without_gradient(PAIRS.groups(ROWS))
    assert scores.layout.kind == wanted
    with torch.no_grad():
        expected = by_hand(policy.module)
    assert_close(scores.sums().double(), expected, rtol=1e-5, atol=1e-4)
    lengths = torch.tensor([[len(c), len(r)] for c, r in zip(DATA.chosen_ids, DATA.rejected_ids)]).flatten()
    assert torch.equal(scores.lengths, lengths)
    assert_close(scores.averages().double(), expected / lengths, rtol=1e-5, atol=1e-4)
    assert_close(scores.table().sum(dim=1), scores.sums())
    assert torch.equal(scores.mask().sum(dim=1), lengths)


def test_gradients_are_those_of_the_models_own_logits():
    """Summed over all answers; every weight, head and tied embedding included. Relative to the largest entry."""
    for family in ("llama", "llama-tied"):
        policy = policy_of(float32(family))
        weights = policy.trainable_parameters()
        expected = torch.autograd.grad(by_hand(policy.module).sum(), list(weights.values()))
        scorer = scorer_of(policy, PAIRS)
        scorer.score(scorer.lay(PAIRS.groups(ROWS))).sums().sum().backward()
        for (name, weight), gradient in zip(weights.items(), expected, strict=True):
            gap = (weight.grad - gradient).abs().max() / gradient.abs().max().clamp(min=1e-6)
            assert gap < 1e-3, (family, name, float(gap))


def test_the_plan_says_why():
    batches = [PAIRS.groups(ROWS)]
    plan = plan_layout(miniature("llama"), batches, longest=DATA.longest())
    assert plan.kind == "shared"
    assert plan.reason.startswith("shared rows, the cheapest; work in terms of padded rows: padded 1.00")
    assert "% of what layers would keep for the backward pass is computed again" in plan.reason
    assert "Attention leaves out pairs of places that see each other in no row" in plan.reason
    asked = plan_layout(miniature("llama"), batches, longest=DATA.longest(), wanted="packed")
    assert asked.kind == "packed"
    assert "as asked for" in asked.reason
    plan = plan_layout(miniature("mamba", implementation=None), batches, longest=DATA.longest())
    assert plan.kind == "padded"
    assert "Packed and shared rows are left out: " in plan.reason


def test_sides_of_values_that_alternate():
    assert [part.tolist() for part in sides(torch.arange(6))] == [[0, 2, 4], [1, 3, 5]]
