"""Compiled blocks and recomputed activations change neither names nor numbers, whatever the kind of network."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine import compilation
from align.engine.adapters import Policy
from align.errors import AlignError

# torch's compiler looks at `.grad` everywhere and hides the warning itself, which it cannot where warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

KINDS = ("sd3", "flux", "unet", "llama", "qwen")


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Compiled variants are counted per line of code, over all tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(kind, policy: Policy, adapter: str) -> dict[str, Tensor | None]:
    policy.module.zero_grad()
    kind.run(policy.network, adapter).square().sum().backward()
    return {name: weight.grad for name, weight in policy.trainable_parameters().items()}


@pytest.mark.parametrize("adapter", ["full", "half"])
@pytest.mark.parametrize("name", KINDS)
def test_recomputed_activations_give_equal_gradients(networks: ModuleType, name: str, adapter: str):
    """Also for adapters whose network gets inputs without gradient; the same operations, so the same bits."""
    kind = networks.KINDS[name]
    plain, saving = kind.policy(adapter), kind.policy(adapter)
    saving.enable_gradient_checkpointing()
    expected, found = gradients(kind, plain, adapter), gradients(kind, saving, adapter)
    assert sum(gradient is not None and bool(gradient.any()) for gradient in expected.values()) > 3
    for key, gradient in expected.items():
        assert (gradient is None) == (found[key] is None)
        if gradient is not None:
            assert torch.equal(found[key], gradient), key


@pytest.mark.parametrize(("name", "adapter"), [("sd3", "half"), ("unet", "lora"), ("qwen", "full")])
def test_compiled_blocks_keep_names_and_numbers(networks: ModuleType, name: str, adapter: str):
    """dynamo alone, without kernels of its own: the same operations, so the same bits, with and without gradient."""
    kind = networks.KINDS[name]
    plain, compiled = kind.policy(adapter), kind.policy(adapter)
    compiled.compile("eager")
    assert compiled.module.state_dict().keys() == plain.module.state_dict().keys()
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    expected, found = gradients(kind, plain, adapter), gradients(kind, compiled, adapter)
    for key, gradient in expected.items():
        if gradient is not None:
            assert torch.equal(found[key], gradient), key
    with torch.no_grad():
        out = kind.run(compiled.module, adapter)
        assert not out.requires_grad
        assert torch.equal(out, kind.run(plain.module, adapter))
    if adapter != "full":
        with plain.reference() as base, compiled.reference() as compiled_base:
            assert torch.equal(kind.run(compiled_base, adapter), kind.run(base, adapter))
            assert not torch.equal(kind.run(base, adapter), out)
    other = kind.policy(adapter)
    other.load_state_dict(compiled.state_dict())
    assert torch.equal(kind.run(other.module, adapter), kind.run(compiled.module, adapter))


class Block(nn.Module):
    """Says which mode it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, cache: object = None) -> Tensor:
        return torch.tanh(self.layer(x)) * 1.7 + x


class Net(nn.Module):
    """Two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor, cache: object = None) -> Tensor:
        for block in self.blocks:
            x = block(x, cache=cache)
        return x


def test_passes_with_and_without_gradient_share_one_code():
    """The compiler is called once for both blocks and both kinds of passes: a ratio of exactly 1 rests on that."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        graphs.append(graph)
        return graph.forward

    net = Net()
    policy = Policy.lora(net, LoraConfig(rank=2), ["layer"], seed=0)
    compilation.compile_blocks(net, backend=backend)
    graphs.clear()  # the line that tries the compiler
    x = torch.ones(3, 4)
    with torch.no_grad():
        rollout = net(x)
    assert len(graphs) == 1
    out = net(x)
    out.sum().backward()
    with torch.no_grad():
        net(x)
    assert len(graphs) == 1
    assert torch.equal(out, rollout)
    assert all(weight.grad is not None for weight in policy.trainable_parameters().values())


def test_calls_with_a_cache_of_keys_are_not_compiled():
    """Generation: recording them would keep every token's activations."""

    class Cache:
        def get_seq_length(self) -> int:
            return 0

    calls = []
    forward = compilation._one_code(lambda x, cache=None: x, lambda x, cache=None: calls.append(1) or x)
    with torch.no_grad():
        forward(torch.ones(1), cache=Cache())
        assert calls == []
        forward(torch.ones(1))
    assert calls == [1]


def test_a_compiler_that_does_not_work_is_found_before_training(monkeypatch: pytest.MonkeyPatch):
    def broken(graph: object, inputs: object):
        raise RuntimeError("no C++ compiler\nsecond line")

    with pytest.raises(AlignError, match=r"RuntimeError: no C\+\+ compiler[\s\S]*training.compile=false"):
        compilation.compile_blocks(Net(), backend=broken)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(AlignError, match="no repeated blocks"):
        compilation.compile_blocks(nn.Linear(2, 2), backend="eager")
