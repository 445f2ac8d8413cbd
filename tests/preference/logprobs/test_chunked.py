"""Log-probabilities in chunks equal those of whole logits: values, gradients, extras, for every head and budget."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from preference.logprobs import LinearHead, ModuleHead, log_probs_at, log_probs_of, map_logits, score_tokens, slices
from preference.logprobs.chunked import budget_of

TOKENS, WIDTH, VOCABULARY = 77, 8, 37
ROW = 8 * VOCABULARY  # bytes of a token's logits in float64
BUDGETS = [1, 33 * ROW, 64 * ROW, 10**9]
"""Nothing kept; 32 tokens; 64, and one block of others; all of them, filled up to 96."""


@pytest.fixture(params=["whole", "slices"], autouse=True)
def vocabulary_slices(request, monkeypatch):
    """The whole vocabulary at once, or eight slices of five entries, the last of two."""
    if request.param == "slices":
        monkeypatch.setattr(slices, "ENTRIES", {"cpu": 5})


def inputs(dtype=torch.float64, columns=1, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    ids = torch.randint(0, VOCABULARY, (TOKENS, columns), generator=generator)
    return randn(TOKENS, WIDTH), randn(VOCABULARY, WIDTH), randn(VOCABULARY), ids


ONES = torch.ones(TOKENS, 1, dtype=torch.float64)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def gradients(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def compare(head, hidden, ids, parameters, memory, upstream, **tolerance):
    """Values and gradients of the chunked way against plain autograd through whole logits."""
    ours = log_probs_at(hidden, head, ids, memory=memory)
    plain = log_probs_of(head.logits(hidden), ids)
    assert_close(ours, plain, **tolerance)
    for one, other in zip(
        gradients((ours * upstream).sum(), parameters), gradients((plain * upstream).sum(), parameters)
    ):
        assert_close(one, other, **tolerance)


@pytest.mark.parametrize("memory", BUDGETS)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("columns", [1, 4])
def test_float64_to_ten_digits(memory, softcap, scale, columns):
    hidden, weight, bias, ids = inputs(columns=columns)
    if columns > 1:
        ids[:, 1] = ids[:, 0]  # entries may repeat: their gradients add up
    head = LinearHead(weight=weight, bias=bias, scale=scale, softcap=softcap)
    upstream = torch.randn(TOKENS, columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    compare(head, hidden, ids, [hidden, weight, bias], memory, upstream, **EXACT)


@pytest.mark.parametrize("memory", BUDGETS)
def test_float32(memory):
    """1e-5: sums over 37 entries and 13 tokens in another order."""
    hidden, weight, _, ids = inputs(torch.float32)
    compare(
        LinearHead(weight=weight), hidden, ids, [hidden, weight], memory, torch.ones(TOKENS, 1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("memory", BUDGETS)
def test_frozen_head(memory):
    hidden, weight, bias, ids = inputs()
    head = LinearHead(weight=weight.detach(), bias=bias.detach())
    compare(head, hidden, ids, [hidden], memory, ONES, **EXACT)


@pytest.mark.parametrize("memory", BUDGETS)
def test_head_tied_to_the_embedding(memory):
    """The same matrix makes the hidden states: its gradient is the sum of both ways."""
    _, weight, _, ids = inputs()
    hidden = weight[ids[:, 0]].tanh()
    compare(LinearHead(weight=weight), hidden, ids, [weight], memory, ONES, **EXACT)


class Adapted(nn.Module):
    """A layer with a low-rank adapter, as LoRA wraps a head: its weight alone is not what it computes."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight.detach())
        generator = torch.Generator().manual_seed(3)
        self.down = nn.Parameter(torch.randn(2, WIDTH, generator=generator, dtype=weight.dtype))
        self.up = nn.Parameter(torch.randn(VOCABULARY, 2, generator=generator, dtype=weight.dtype))

    def forward(self, hidden):
        return hidden @ self.weight.T + hidden @ self.down.T @ self.up.T


@pytest.mark.parametrize("memory", BUDGETS)
def test_a_module_is_called_chunk_by_chunk(memory):
    hidden, weight, _, ids = inputs()
    module = Adapted(weight)
    head = ModuleHead(module=module, softcap=5.0)
    compare(head, hidden, ids, [hidden, module.down, module.up], memory, ONES, **EXACT)


@pytest.mark.parametrize("head_kind", ["linear", "module"])
@pytest.mark.parametrize("memory", BUDGETS)
def test_extras_by_definition(head_kind, memory):
    hidden, weight, _, ids = inputs()
    head = LinearHead(weight=weight) if head_kind == "linear" else ModuleHead(module=lambda states: states @ weight.T)
    scores = score_tokens(hidden, head, ids[:, 0], extras=("entropy", "log_sum_squares", "largest"), memory=memory)
    log_probs = (hidden @ weight.T).log_softmax(dim=1).detach()
    assert_close(scores.log_probs.detach(), log_probs.gather(1, ids)[:, 0])
    assert_close(scores.extras["entropy"], -(log_probs.exp() * log_probs).sum(dim=1))
    assert_close(scores.extras["log_sum_squares"], log_probs.exp().square().sum(dim=1).log())
    assert_close(scores.extras["largest"], log_probs.amax(dim=1))
    assert not any(extra.requires_grad for extra in scores.extras.values())
    scores.log_probs.sum().backward()
    assert hidden.grad is not None


def test_extras_of_a_uniform_distribution_by_hand():
    """Four equal entries: entropy log 4, log sum of squares log(4/16) = -log 4, log-probability -log 4."""
    scores = score_tokens(
        torch.zeros(1, 2), LinearHead(weight=torch.ones(4, 2)), torch.tensor([3]), extras=("entropy", "log_sum_squares")
    )
    for value, sign in ((scores.extras["entropy"], 1), (scores.extras["log_sum_squares"], -1), (scores.log_probs, -1)):
        assert float(value) == pytest.approx(sign * math.log(4), rel=1e-6)


@pytest.mark.parametrize("memory", [1, 10**9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_after_the_product(dtype, memory):
    """Against autograd through the same half-precision product: 2 % of the largest gradient is its rounding."""
    hidden, weight, _, ids = inputs(dtype)
    head = LinearHead(weight=weight)
    ours = log_probs_at(hidden, head, ids, memory=memory)
    assert ours.dtype == torch.float32
    assert_close(ours, log_probs_of((hidden @ weight.T).float(), ids), rtol=1e-6, atol=1e-6)
    plain = log_probs_of(head.logits(hidden), ids)
    for one, other in zip(
        torch.autograd.grad(ours.sum(), [hidden, weight]), torch.autograd.grad(plain.sum(), [hidden, weight])
    ):
        assert one.dtype == dtype
        assert float((one - other).abs().max()) < 0.02 * float(other.abs().max())


def test_float32_product_keeps_what_half_precision_rounds_away():
    hidden, weight, _, ids = inputs(torch.bfloat16)
    exact = log_probs_of(hidden.detach().double() @ weight.detach().double().T, ids)
    precise = log_probs_at(hidden, LinearHead(weight=weight, float32_product=True), ids)
    rounded = log_probs_at(hidden, LinearHead(weight=weight), ids)
    assert_close(precise.detach().double(), exact, rtol=1e-5, atol=1e-5)
    assert float((rounded.detach() - exact).abs().max()) > 1e-3


def test_autocast_is_followed_in_both_directions():
    hidden, weight, _, ids = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = log_probs_at(hidden, LinearHead(weight=weight), ids, memory=1)
    half = (hidden.bfloat16() @ weight.bfloat16().T).float()
    assert ours.dtype == torch.float32
    assert_close(ours, log_probs_of(half, ids), rtol=1e-6, atol=1e-6)
    ours.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_extreme_logits_are_finite():
    hidden, weight, _, ids = inputs(torch.float32)
    ours = log_probs_at(hidden * 1e4, LinearHead(weight=weight), ids, memory=1)
    ours.sum().backward()
    assert bool(ours.isfinite().all())
    assert bool(hidden.grad.isfinite().all())
    assert bool(weight.grad.isfinite().all())


@pytest.mark.parametrize("memory", [1, 10**9])
def test_gradients_accumulate_and_the_graph_can_be_kept(memory):
    hidden, weight, _, ids = inputs()
    loss = log_probs_at(hidden, LinearHead(weight=weight), ids, memory=memory).sum()
    loss.backward(retain_graph=True)
    once = weight.grad.clone()
    loss.backward()
    assert_close(weight.grad, 2 * once)


def test_nothing_to_score_is_nothing():
    hidden, weight, _, _ = inputs()
    scores = score_tokens(hidden[:0], LinearHead(weight=weight), torch.zeros(0, dtype=torch.int64), extras=("entropy",))
    assert scores.log_probs.shape == scores.extras["entropy"].shape == (0,)


@pytest.mark.parametrize("memory", [1, 10**9])
def test_map_logits_with_gradient(memory):
    """A function of whole distributions, weighted per token: chunks joined equal the function of everything."""
    hidden, weight, _, _ = inputs()
    factors = torch.rand(TOKENS, dtype=torch.float64)

    def entropies(logits, factor):
        log_probs = logits.log_softmax(dim=1)
        return -factor * (log_probs.exp() * log_probs).sum(dim=1)

    head = LinearHead(weight=weight)
    ours = torch.cat(map_logits(entropies, hidden, head, factors, memory=memory))
    plain = entropies(head.logits(hidden), factors)
    assert_close(ours, plain)
    for one, other in zip(
        torch.autograd.grad(ours.sum(), [hidden, weight]), torch.autograd.grad(plain.sum(), [hidden, weight])
    ):
        assert_close(one, other)


class Largest(TorchDispatchMode):
    """Bytes of the largest storage that any operation gives back."""

    def __init__(self):
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.found = max(self.found, value.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize(("memory", "tokens"), [(130 * 8 * VOCABULARY, 128), (10**9, 416), (1, 0)])
def test_logits_of_more_tokens_than_may_be_kept_are_never_held(memory, tokens, monkeypatch):
    """400 tokens of float64, filled up to 416: 8 * 37 bytes for each that is kept; else slices, or the states."""
    monkeypatch.setattr(slices, "ENTRIES", {"cpu": 5})
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, VOCABULARY, (400, 1), generator=generator)
    with Largest() as largest:
        log_probs_at(hidden, LinearHead(weight=weight), ids, memory=memory).sum().backward()
    assert largest.found == max(8 * VOCABULARY * tokens, 8 * WIDTH * 416)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_is_rounded_in_the_same_way_among_others(dtype):
    """Bit for bit: what is exactly 0, as a margin before the first step, is 0 in every batch and on every process."""
    hidden, weight, bias, ids = inputs(dtype)
    head = LinearHead(weight=weight, bias=bias)
    together = log_probs_at(hidden, head, ids).detach()
    for rows in (slice(0, 1), slice(5, 38), slice(30, TOKENS)):
        assert torch.equal(log_probs_at(hidden[rows].detach(), head, ids[rows]).detach(), together[rows])


def test_entries_that_are_ruled_out():
    """A bias of -inf takes whole slices out of the distribution, the first and the last among them."""
    hidden, weight, bias, ids = inputs()
    kept = torch.zeros(VOCABULARY, dtype=torch.bool)
    kept[7:21] = True
    ids = ids % 14 + 7
    with torch.no_grad():
        bias[~kept] = -math.inf
    scores = score_tokens(
        hidden, LinearHead(weight=weight, bias=bias), ids[:, 0], extras=("entropy", "log_sum_squares", "largest")
    )
    alone = score_tokens(
        hidden, LinearHead(weight=weight[kept], bias=bias[kept]), ids[:, 0] - 7, extras=tuple(scores.extras)
    )
    assert_close(scores.log_probs, alone.log_probs, **EXACT)
    for name, values in scores.extras.items():
        assert_close(values, alone.extras[name], **EXACT)
    ours, expected = (
        gradients(scores.log_probs.sum(), [hidden, weight]),
        gradients(alone.log_probs.sum(), [hidden, weight]),
    )
    for one, other in zip(ours, expected):
        assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, w, i: score_tokens(h, LinearHead(weight=w), i[:, 0], extras=("entrpy",)), "Did you mean `entropy`"),
        (lambda h, w, i: budget_of(h, 0), "number of bytes above 0"),
    ],
)
def test_what_is_refused(call, message):
    hidden, weight, _, ids = inputs()
    with pytest.raises(ValueError, match=message):
        call(hidden, weight, ids)
