"""Recipes of saved tensors: the same gradients, nothing computed twice, nothing left behind."""

import gc
import weakref
from collections import Counter

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.testing import assert_close

from preference.layout import recipes
from preference.layout.recipes import OPERATIONS, Kept, Recipe, pack, unpack


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gated(inputs, first, second, last):
    """A feed-forward part."""
    return (functional.silu(inputs @ first) * (inputs @ second)) @ last


def rms(inputs, weight):
    return weight * (inputs * torch.rsqrt(inputs.pow(2).mean(-1, keepdim=True) + 1e-6))


def normed(inputs, weight, first, second):
    """A norm that two projections share."""
    out = rms(inputs, weight)
    return torch.tanh(out @ first) + out @ second


def layer_normed(inputs, weight, bias, last):
    return functional.gelu(functional.layer_norm(inputs, inputs.shape[-1:], weight, bias), approximate="tanh") @ last


def in_half(inputs, weight, last):
    """A norm in float32 between half-precision numbers, as most families compute it."""
    out = rms(inputs.float(), torch.ones(inputs.shape[-1])).to(inputs.dtype)
    return (weight * out) @ last


PARTS = {
    "gated": (gated, [(3, 4), (4, 6), (4, 6), (6, 4)]),
    "normed": (normed, [(3, 4), (4,), (4, 2), (4, 2)]),
    "layer_normed": (layer_normed, [(3, 4), (4,), (4,), (4, 2)]),
    "in_half": (in_half, [(3, 4), (4,), (4, 2)]),
}


def inputs_of(name, dtype=torch.float64, frozen=()):
    shapes = PARTS[name][1]
    return [
        drawn(*shape, seed=seed, dtype=dtype).requires_grad_(seed not in frozen) for seed, shape in enumerate(shapes)
    ]


def gradients(part, inputs, recompute):
    with saved_tensors_hooks(pack if recompute else Kept, unpack):
        out = part(*inputs)
    return torch.autograd.grad(out.float().square().sum(), [value for value in inputs if value.requires_grad])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [(), (0,), (1,), (1, 2)], ids=str)
@pytest.mark.parametrize("name", list(PARTS))
def test_gradients_are_those_of_kept_tensors(name, frozen, dtype):
    """Also where weights are frozen: then a factor that nobody saves is computed from its own node."""
    part = PARTS[name][0]
    ours = gradients(part, inputs_of(name, dtype, frozen), True)
    expected = gradients(part, inputs_of(name, dtype, frozen), False)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for gradient, other in zip(ours, expected, strict=True):
        assert_close(gradient, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize(
    ("name", "frozen", "kept", "recipes"),
    [
        ("gated", (), 7, 2),  # inputs twice, three weights, gate, up; recipes: act(gate) and the product
        ("gated", (1, 2, 3), 5, 1),  # three weights, gate, up; act(gate): the product is for the gradient of `last`
        ("normed", (), 8, 3),  # inputs twice, root twice, weight, projections, tanh; recipes: product, norm twice
        ("normed", (1,), 8, 2),  # the norm, by way of inputs * root, which nobody saves
    ],
)
def test_what_is_kept_by_hand(name, frozen, kept, recipes):
    """What each operation saves. The norm's inputs are saved by its square and its product, the root by itself, too."""
    packed = []

    def noted(tensor):
        packed.append(pack(tensor))
        return packed[-1]

    with saved_tensors_hooks(noted, unpack):
        PARTS[name][0](*inputs_of(name, frozen=frozen))
    assert Counter(type(one) for one in packed) == {Kept: kept, Recipe: recipes}


def test_each_operation_is_computed_once_in_a_backward_pass(monkeypatch):
    """Two projections and the product with the weight ask for a norm's tensors: four times for two products."""
    counted = Counter()
    for name, operation in OPERATIONS.items():

        def watched(node, name=name, operation=operation):
            counted[name] += 1
            return operation(node)

        monkeypatch.setitem(OPERATIONS, name, watched)
    inputs = inputs_of("normed")
    with saved_tensors_hooks(pack, unpack):
        out = normed(*inputs).sum()
    assert not counted
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    assert counted == {"MulBackward0": 2}
    second = torch.autograd.grad(out, inputs)
    assert counted == {"MulBackward0": 4}
    for once, again in zip(first, second, strict=True):
        assert torch.equal(once, again)


@pytest.mark.parametrize("backward", [False, True])
def test_a_graph_is_freed_once_nobody_refers_to_it(backward):
    """By counting references alone: the collector of cycles is off. The exponential saves its own result."""
    gc.disable()
    try:
        with saved_tensors_hooks(pack, unpack):
            out = gated(*inputs_of("gated")).exp().sum()
        node = out.grad_fn
        while node.name() != "MulBackward0":
            node = node.next_functions[0][0]
        node.metadata["alive"] = alive = Alive()
        watched = weakref.ref(alive)
        del alive, node
        if backward:
            out.backward(retain_graph=True)
        assert watched() is not None
        del out
        assert watched() is None
    finally:
        gc.enable()


class Alive:
    """What a graph holds."""


def test_second_derivatives():
    """float64, against differences."""

    def part(*inputs):
        with saved_tensors_hooks(pack, unpack):
            return gated(*inputs)

    assert torch.autograd.gradgradcheck(part, inputs_of("gated"))


@pytest.mark.parametrize("recompute", [False, True])
def test_an_input_that_was_written_to_is_found(recompute):
    """As torch does without hooks; the gate itself is kept, its activation follows from it."""
    inputs = inputs_of("gated")
    with saved_tensors_hooks(pack if recompute else Kept, unpack):
        gate = inputs[0] @ inputs[1]
        out = (functional.silu(gate) * 2) @ inputs[3]
    with torch.no_grad():
        gate.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_what_comes_after_dropout_is_exact():
    """Whether torch multiplies by saved noise or keeps a mask: nothing is drawn again."""
    inputs = inputs_of("gated")

    def part(*inputs):
        torch.manual_seed(3)
        product = functional.silu(inputs[0] @ inputs[1]) * (inputs[0] @ inputs[2])
        return functional.dropout(product, 0.5) @ inputs[3]

    for gradient, other in zip(gradients(part, inputs, True), gradients(part, inputs, False), strict=True):
        assert torch.equal(gradient, other)


def test_tensors_with_rules_of_their_own_are_kept():
    weight = torch.nn.Parameter(drawn(3))
    assert isinstance(pack(weight), Kept)
    assert recipes.unpack(pack(weight)) is weight
