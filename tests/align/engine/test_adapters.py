from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.distributed import start_accelerator
from align.engine.lora import available_endings
from align.errors import AlignError


class Block(nn.Module):
    """Two layers, dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.5)
        self.down = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.drop(torch.tanh(self.up(x))))


class Net(nn.Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


X = torch.linspace(-1, 1, 12).reshape(3, 4)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def lora(net: nn.Module, targets: tuple[str, ...] = ("up", "down"), *, seed: int = 0, **options: float) -> Policy:
    return Policy.lora(net, LoraConfig(rank=2, alpha=6.0, **options), targets, seed=seed)


def disturb(policy: Policy) -> None:
    with torch.no_grad():
        for number, weight in enumerate(policy.trainable_parameters().values()):
            weight += 0.1 * (number + 1)


def test_fresh_adapters_change_nothing_and_only_they_are_trained(net: Net):
    before = net.eval()(X)
    policy = lora(net)
    assert torch.equal(policy.module(X), before)
    assert set(policy.trainable_parameters()) == {
        f"blocks.{block}.{layer}.lora_{side}.weight" for block in (0, 1) for layer in ("up", "down") for side in "AB"
    }
    trained = {id(weight) for weight in policy.trainable_parameters().values()}
    assert {id(weight) for weight in net.parameters() if weight.requires_grad} == trained
    assert policy.parameter_count() == 2 * (2 * 4 + 8 * 2 + 2 * 8 + 4 * 2)


def test_lora_by_hand():
    """W = 2, A = 3, B = 5, alpha / rank = 4: y = (2 + 4 * 5 * 3) x = 62 x."""
    module = nn.Sequential(nn.Linear(1, 1, bias=False))
    policy = Policy.lora(module, LoraConfig(rank=1, alpha=4.0), ["0"], seed=0)
    weights = policy.trainable_parameters()
    with torch.no_grad():
        module[0].base_layer.weight.fill_(2.0)
        weights["0.lora_A.weight"].fill_(3.0)
        weights["0.lora_B.weight"].fill_(5.0)
    assert policy.module(torch.tensor([[1.0]])).item() == 62.0


def test_adapters_are_drawn_by_seed_and_name_with_deviation_1_over_rank():
    """800 numbers with rank 4: deviation 1/4; its standard error is 1/4/sqrt(1600) = 0.006, four are allowed."""

    def wide() -> nn.Module:
        return nn.Sequential(nn.Linear(200, 3), nn.Linear(200, 3))

    config = LoraConfig(rank=4)
    torch.manual_seed(1)
    first = Policy.lora(wide(), config, ["0", "1"], seed=5).state_dict()
    torch.manual_seed(2)
    again = Policy.lora(wide(), config, ["0", "1"], seed=5).state_dict()
    other = Policy.lora(wide(), config, ["0", "1"], seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.lora_A.weight"], other["0.lora_A.weight"])
    assert not torch.equal(first["0.lora_A.weight"], first["1.lora_A.weight"])
    assert abs(first["0.lora_A.weight"].std().item() - 0.25) < 0.025
    assert not first["0.lora_B.weight"].any()


def test_adapters_on_a_half_precision_network_are_float32(net: Net):
    policy = lora(net.bfloat16())
    assert {weight.dtype for weight in policy.trainable_parameters().values()} == {torch.float32}
    assert net.head.weight.dtype == torch.bfloat16
    policy.module(X.bfloat16()).float().square().sum().backward()
    assert all(weight.grad is not None for weight in policy.trainable_parameters().values())


def test_a_target_that_matches_nothing_names_the_endings(net: Net):
    assert available_endings(net) == ["down", "head", "up"]
    with pytest.raises(AlignError, match=r"\['to_q'\] match no layer of Net[\s\S]*down, head, up"):
        lora(net, ("up", "to_q"))
    with pytest.raises(AlignError, match="match no layer"):
        lora(net, ("drop",))  # there, but nothing an adapter fits on
    with pytest.raises(AlignError, match="match no layer"):
        lora(net, ())


def test_the_reference_is_the_network_before_training(net: Net):
    before = net.eval()(X)
    policy = lora(net)
    disturb(policy)
    after = policy.module(X)
    assert not torch.allclose(after, before)
    with policy.reference() as module:
        assert torch.equal(module(X), before)
        assert not module(X).requires_grad
    assert torch.equal(policy.module(X), after)


def test_the_reference_comes_back_after_an_error_and_leaves_recorded_graphs_alone(net: Net):
    policy = lora(net)
    disturb(policy)
    expected = policy.module(X)
    expected.sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in policy.trainable_parameters().items()}
    policy.module.zero_grad()

    out = policy.module(X)
    with pytest.raises(ZeroDivisionError), policy.reference():
        raise ZeroDivisionError
    assert all(weight.requires_grad for weight in policy.trainable_parameters().values())
    with policy.swapped({name: torch.zeros_like(w) for name, w in policy.state_dict().items()}) as module:
        module(X)
    out.sum().backward()
    for name, weight in policy.trainable_parameters().items():
        assert torch.equal(weight.grad, gradients[name])
    assert torch.equal(policy.module(X), expected)


def test_full_training_has_a_reference_only_when_asked_for(net: Net):
    before = net.eval()(X)
    policy = Policy.full(net, keep_reference=True)
    disturb(policy)
    with policy.reference() as module:
        assert torch.equal(module(X), before)
    assert not torch.equal(policy.module(X), before)
    assert set(policy.trainable_parameters()) == {name for name, _ in net.named_parameters()}

    without = Policy.full(Net())
    with pytest.raises(AlignError, match="keep_reference=True"), without.reference():
        pass


def test_swapped_weights_come_back_bit_for_bit_also_after_an_error(net: Net):
    policy = Policy.full(net)
    kept = {name: weight.clone() for name, weight in policy.state_dict().items()}
    places = {name: weight.data_ptr() for name, weight in policy.state_dict().items()}
    zeros = {name: torch.zeros_like(weight) for name, weight in kept.items()}
    with policy.swapped(zeros) as module:
        assert not module(X).any()
        assert not torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), policy.swapped(zeros):
        raise ZeroDivisionError
    assert all(torch.equal(weight, kept[name]) for name, weight in policy.state_dict().items())
    assert {name: weight.data_ptr() for name, weight in policy.state_dict().items()} == places
    zeros.popitem()
    with pytest.raises(KeyError, match="lack 1 trained weights"), policy.swapped(zeros):
        pass


def test_swapping_is_seen_under_an_outer_autocast(net: Net):
    """Autocast keeps casts of weights until its outermost end; a stale one would hide the swap."""
    policy = Policy.full(net)
    zeros = {name: torch.zeros_like(weight) for name, weight in policy.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        before = policy.module(X)
        with policy.swapped(zeros) as module:
            assert not module(X).any()
        assert torch.equal(policy.module(X), before)


def test_weights_come_back_by_name(net: Net):
    policy = lora(net)
    disturb(policy)
    saved = {name: weight.clone() for name, weight in policy.state_dict().items()}
    out = policy.module(X)
    other = lora(Net())
    other.module.load_state_dict(policy.module.state_dict())
    disturb(other)
    other.load_state_dict(saved)
    assert torch.equal(other.module(X), out)


def test_dropout_of_the_network_is_off_and_that_of_the_adapter_acts_on_gradient_passes_only(net: Net):
    policy = lora(net, dropout=0.5)
    disturb(policy)
    with torch.no_grad():
        assert torch.equal(policy.module(X), policy.module(X))
    assert not torch.equal(policy.module(X), policy.module(X))
    plain = lora(Net())
    disturb(plain)
    assert torch.equal(plain.module(X), plain.module(X))


def test_bf16_runs_the_network_in_bf16_and_hands_out_float32(net: Net):
    accelerator = start_accelerator("bf16")
    policy = Policy.full(net)
    exact = policy.module(X)
    policy.prepare(accelerator)
    for call in (policy.network, policy.module):  # passes with and without gradient agree
        out = call(X)
        assert out.dtype == torch.float32
        assert not torch.equal(out, exact)
        torch.testing.assert_close(out, exact, rtol=0.05, atol=0.05)
    policy.network(X).sum().backward()
    assert {weight.grad.dtype for weight in policy.trainable_parameters().values()} == {torch.float32}


def test_parts_of_a_network_are_called_through_it(net: Net):
    """As a language model's body and head are; under autocast too, with float32 out, as the whole network."""
    policy = Policy.full(net)
    policy.prepare(start_accelerator("bf16"))

    def twice_the_head(module: Net, x: Tensor) -> Tensor:
        for block in module.blocks:
            x = block(x)
        return torch.cat([module.head(x[:1]), module.head(x[1:])])

    out = policy.through(twice_the_head, X)
    assert out.dtype == torch.float32
    assert torch.equal(out, policy.network(X))
    out.sum().backward()
    assert all(weight.grad is not None for weight in policy.trainable_parameters().values())


def test_gradient_checkpointing_is_refused_where_there_is_none(net: Net):
    with pytest.raises(AlignError, match="gradient_checkpointing=false"):
        lora(net).enable_gradient_checkpointing()


def small_llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, attention_dropout=0.5,
        )
    )  # fmt: skip


def small_sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=6, out_channels=4, pos_embed_max_size=4,
    )  # fmt: skip


FAMILIES = {
    "transformers": (
        small_llama,
        ("q_proj", "v_proj"),
        lambda module: module(input_ids=torch.arange(6).reshape(1, 6)).logits,
    ),
    "diffusers": (
        small_sd3,
        ("to_q", "add_k_proj", "to_out.0"),
        lambda module: module(
            hidden_states=torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4),
            encoder_hidden_states=torch.linspace(-1, 1, 24).reshape(1, 3, 8),
            pooled_projections=torch.ones(1, 6),
            timestep=torch.tensor([500.0]),
            return_dict=False,
        )[0],
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_real_model_classes(family: str):
    """Fresh adapters change nothing, every adapter gets a gradient, recomputation gives the same gradient."""
    make, targets, call = FAMILIES[family]
    torch.manual_seed(0)
    module = make().eval()
    before = call(module)
    policy = lora(module, targets)
    assert torch.equal(call(policy.module), before)
    disturb(policy)
    call(policy.network).square().sum().backward()
    plain = {name: weight.grad.clone() for name, weight in policy.trainable_parameters().items()}
    with policy.reference() as reference:
        assert torch.equal(call(reference), before)

    policy.module.zero_grad()
    policy.enable_gradient_checkpointing()
    passes = []
    next(layer for name, layer in module.named_modules() if name.endswith(targets[0])).register_forward_hook(
        lambda *_: passes.append(1)
    )
    out = call(policy.network)
    assert len(passes) == 1
    out.square().sum().backward()
    assert len(passes) == 2  # once more in the backward pass
    for name, weight in policy.trainable_parameters().items():
        torch.testing.assert_close(weight.grad, plain[name], rtol=1e-5, atol=1e-7)
