"""One gradient of a matrix that is embedding and head: the sum that autograd makes of two."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from preference.logprobs import LinearHead, ModuleHead, log_probs_at
from preference.logprobs.split import SplitModel
from preference.logprobs.tied import one_gradient

VOCABULARY, WIDTH, PADDING = 11, 4, 2
IDS = torch.tensor([[3, 3, 7, PADDING], [0, 10, 3, 5]])
WANTED = torch.tensor([[1], [3], [9], [2], [10], [3], [3], [0]])


class Trunk(nn.Module):
    """An embedding and a layer on it."""

    def __init__(self, padding=None):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=padding, dtype=torch.float64)
        self.layer = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, ids):
        return self.layer(self.embedding(ids)).tanh().flatten(0, 1)


def split(trunk, **options):
    return SplitModel(trunk=trunk, head=LinearHead(weight=trunk.embedding.weight, **options))


def loss(parts, uses=1):
    hidden = parts.trunk(IDS)
    return sum(
        (step + 1) * log_probs_at(hidden, parts.head, (WANTED + step) % VOCABULARY).sum() for step in range(uses)
    )


def gradients(total, trunk):
    return torch.autograd.grad(total, list(trunk.parameters()), retain_graph=True)


@pytest.mark.parametrize("padding", [None, PADDING])
@pytest.mark.parametrize("uses", [1, 2])
def test_the_sum_of_both(padding, uses):
    """Ids repeat, some are looked up and wanted; the padding's row gets the head's gradient alone."""
    trunk = Trunk(padding)
    expected = gradients(loss(split(trunk), uses), trunk)
    with one_gradient(split(trunk)) as parts:
        total = loss(parts, uses)
    assert parts.head.handover is not None
    for _ in range(2):  # the graph can be run again
        for ours, plain in zip(gradients(total, trunk), expected):
            assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_autograd_is_given_one_gradient():
    """The weight's own hook sees the sum; no other tensor of the matrix's size comes from the embedding."""
    trunk, seen = Trunk(), []
    trunk.embedding.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.clone()))
    expected = gradients(loss(split(trunk)), trunk)[0]
    with one_gradient(split(trunk)) as parts:
        loss(parts).backward()
    assert len(seen) == 1
    assert_close(seen[0], expected)


def test_an_embedding_whose_tokens_nobody_scores():
    trunk = Trunk()
    with one_gradient(split(trunk)) as parts:
        total = parts.trunk(IDS).square().sum()
    plain = gradients(trunk(IDS).square().sum(), trunk)
    for ours, other in zip(gradients(total, trunk), plain):
        assert_close(ours, other)


def test_two_passes_do_not_mix():
    trunk = Trunk()
    expected = gradients(loss(split(trunk)) + 3 * loss(split(trunk), 2), trunk)
    totals = []
    for uses in (1, 2):
        with one_gradient(split(trunk)) as parts:
            totals.append(loss(parts, uses))
    for ours, plain in zip(gradients(totals[0] + 3 * totals[1], trunk), expected):
        assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_half_precision_adds_up_in_float32():
    """The gradient is rounded once, when both are in it: at most half a step of bfloat16, 2^-9, from the exact sum."""
    trunk = Trunk()
    trunk.bfloat16()
    exact = Trunk()
    exact.load_state_dict(trunk.state_dict())
    with one_gradient(split(trunk)) as parts:
        ours = gradients(loss(parts), trunk)[0]
    assert ours.dtype == torch.bfloat16
    plain = gradients(loss(split(exact)), exact)[0]
    assert float((ours.double() - plain).abs().max()) < 0.02 * float(plain.abs().max())


@pytest.mark.parametrize(
    "parts",
    [
        SplitModel(trunk=(trunk := Trunk()), head=LinearHead(weight=nn.Parameter(trunk.embedding.weight.detach()))),
        SplitModel(trunk=(trunk := Trunk()), head=ModuleHead(module=lambda h: h @ trunk.embedding.weight.T)),
        split(Trunk().requires_grad_(False)),
        SplitModel(trunk=nn.Linear(2, 2), head=LinearHead(weight=torch.zeros(3, 2))),
    ],
    ids=["another matrix", "head that is called", "frozen", "no embedding"],
)
def test_nothing_changes_elsewhere(parts):
    with one_gradient(parts) as found:
        assert found is parts


def test_the_embedding_is_itself_again_even_after_an_exception():
    trunk = Trunk()

    def fail():
        with one_gradient(split(trunk)):
            assert "forward" in vars(trunk.embedding)
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert "forward" not in vars(trunk.embedding)
    with torch.no_grad(), one_gradient(split(trunk)) as parts:
        assert "forward" not in vars(parts.trunk.embedding)
