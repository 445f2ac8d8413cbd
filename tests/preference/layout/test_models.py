"""Whole miniatures: the same log-probabilities, losses and gradients in every layout, and who cannot take which."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from preference.layout import LAYOUTS, Group, layout_support, model_inputs
from preference.layout.support import MASKS
from preference.logprobs import pool_flat, score_tokens
from preference.logprobs.split import split_model
from preference.losses import dpo

from ..miniatures import VOCABULARY, miniature

SDPA = ["llama", "llama-tied", "qwen2", "qwen2-window", "qwen3", "gemma", "gemma3", "mistral", "cohere", "granite"]
SDPA.append("gpt2")  # learned positions


def ids(count, seed):
    return torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


def pairs():
    """Odd lengths, a prompt of one token, very different answers, a prompt cut on the left, and no prompt at all."""
    long = ids(31, 7)
    return [
        Group(prompt=ids(9, 1), responses=(ids(3, 2), ids(17, 3))),
        Group(prompt=ids(1, 4), responses=(ids(5, 5), ids(1, 6))),
        Group(prompt=long[-13:], responses=(ids(2, 8), ids(6, 9))),
        Group(prompt=ids(0, 0), responses=(ids(4, 18), ids(2, 19))),
    ]


def run(model, kind, support, row_length=None):
    """Log-probabilities of all scored tokens, the pairs' losses, and the gradients of all parameters."""
    split = split_model(model)
    options = {} if row_length is None else {"row_length": row_length}
    layout = LAYOUTS[kind](pairs(), pad_id=0, **options)
    hidden = split.hidden_states(model_inputs(layout, support))
    scores = score_tokens(layout.predicting(hidden), split.head, layout.labels, memory=20000)
    sums = pool_flat(scores.log_probs, layout.sequence_ids, layout.sequences).view(-1, 2)
    losses = dpo(sums[:, 0], sums[:, 1], sums[:, 0].detach() - 1, sums[:, 1].detach() - 2, beta=0.1).losses
    model.zero_grad()
    losses.mean().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return scores.log_probs.detach(), losses.detach(), gradients


def compare(model, support):
    """Weights are float64, but the norms of most families compute in float32: six digits."""
    expected = run(model, "padded", support)
    for kind, row_length in (("packed", None), ("packed", 64), ("shared", None), ("shared", 64)):
        log_probs, losses, gradients = run(model, kind, support, row_length)
        assert_close(log_probs, expected[0], rtol=1e-6, atol=1e-6)
        assert_close(losses, expected[1], rtol=1e-6, atol=1e-6)
        assert gradients.keys() == expected[2].keys()
        for name, gradient in gradients.items():
            largest = float(expected[2][name].abs().max())
            assert float((gradient - expected[2][name]).abs().max()) <= 1e-5 * largest + 1e-9, (kind, name)


@pytest.mark.parametrize("name", SDPA)
def test_every_layout_gives_the_same_losses_and_gradients(name):
    model = miniature(name)
    support = layout_support(split_model(model).trunk)
    assert support.layouts == ("padded", "packed", "shared"), support.reasons
    compare(model, support)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "mistral", "gpt2"])
def test_eager_attention_takes_additive_masks(name):
    model = miniature(name, "eager")
    support = layout_support(split_model(model).trunk)
    assert (support.implementation, support.dtype) == ("eager", torch.float64)
    assert support.layouts == ("padded", "packed", "shared"), support.reasons
    compare(model, support)


def test_padded_rows_are_each_sequence_alone():
    """The layout that the others are compared with, against the model's own logits of one sequence at a time."""
    model = miniature("gemma3")
    log_probs, *_ = run(model, "padded", layout_support(split_model(model).trunk))
    alone = []
    for group in pairs():
        for response in group.responses:
            tokens = torch.cat([group.prompt, response])
            values = model(tokens[None]).logits[0].log_softmax(dim=1)
            places = range(max(len(group.prompt), 1), len(tokens))
            alone += [values[place - 1, tokens[place]] for place in places]
    assert_close(log_probs, torch.stack(alone).detach(), rtol=1e-6, atol=1e-6)


def test_groups_of_several_completions():
    model = miniature("llama")
    split, support = split_model(model), layout_support(split_model(model).trunk)
    groups = [Group(prompt=ids(6, 1), responses=tuple(ids(count, count) for count in (4, 1, 7, 3, 5)))]
    values = {}
    for kind, make in LAYOUTS.items():
        layout = make(groups)
        hidden = split.hidden_states(model_inputs(layout, support))
        values[kind] = score_tokens(layout.predicting(hidden), split.head, layout.labels).log_probs
    assert_close(values["shared"], values["padded"], rtol=1e-6, atol=1e-6)
    assert_close(values["packed"], values["padded"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mamba", "layers of kind 'linear_attention'"), ("bloom", "does not accept"), ("mpt", "a probe's hidden states")],
)
def test_who_falls_back_to_padded_rows_and_why(name, reason):
    """A state that runs through the row; ALiBi, whose distances come from places and not from positions (twice)."""
    trunk = split_model(miniature(name, None)).trunk
    support = layout_support(trunk)
    assert support.layouts == ("padded",)
    assert reason in support.reasons["shared"]
    assert reason in support.reasons["packed"]


@pytest.mark.parametrize("name", ["mamba", "bloom", "mpt"])
def test_the_fallback_runs(name):
    model = miniature(name, None)
    log_probs, losses, gradients = run(model, "padded", layout_support(split_model(model).trunk))
    assert bool(log_probs.isfinite().all())
    assert bool(losses.isfinite().all())
    assert gradients


def test_a_window_that_no_sequence_reaches_is_no_window():
    trunk = split_model(miniature("mistral")).trunk
    assert layout_support(trunk, longest=6).windows == {"full_attention": None}
    assert layout_support(trunk, longest=7).windows == {"sliding_attention": 6}


def test_flash_attention_takes_no_mask():
    trunk = split_model(miniature("llama")).trunk
    trunk.config._attn_implementation = "flash_attention_2"
    support = layout_support(trunk)
    assert support.layouts == ("padded",)
    assert "flash_attention_2" in support.reasons["shared"]


class Careless(nn.Module):
    """A trunk that drops one of its arguments before it asks a good one."""

    def __init__(self, trunk, dropped):
        super().__init__()
        self.trunk, self.dropped, self.config = trunk, dropped, trunk.config

    def forward(self, **inputs):
        inputs.pop(self.dropped, None)
        return self.trunk(**inputs)


@pytest.mark.parametrize("dropped", ["position_ids", "attention_mask"])
@pytest.mark.parametrize("spread", [8.0, 1e-3])
def test_models_that_do_not_read_an_argument_are_found(dropped, spread):
    """Even where the difference is too small for any tolerance: weights a thousand times smaller than usual."""
    trunk = Careless(split_model(miniature("llama", spread=spread)).trunk, dropped)
    support = layout_support(trunk)
    assert support.layouts == ("padded",)


def test_the_probe_leaves_the_mode_alone():
    trunk = split_model(miniature("llama")).trunk
    for training in (True, False):
        trunk.train(training)
        layout_support(trunk)
        assert trunk.training is training


@pytest.mark.parametrize("window", [None, 4])
def test_block_mask_is_the_boolean_mask(window):
    """The rule of flex attention, spread out place by place."""
    from torch.nn.attention.flex_attention import create_mask

    layout = LAYOUTS["shared"](pairs(), row_length=64)
    blocks = MASKS["flex_attention"](layout, window, torch.float32)
    rows, width = layout.input_ids.shape
    spread = create_mask(blocks.mask_mod, rows, None, width, width, device="cpu")
    assert torch.equal(spread, MASKS["sdpa"](layout, window, torch.float32))
