"""Trunk and head of whole models give the models' own logits; who is not split, and why."""

import warnings

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.testing import assert_close

from align.errors import AlignError
from preference.logprobs import LinearHead, ModuleHead, score_tokens, token_log_probs
from preference.logprobs.split import split_model

from ..miniatures import FAMILIES, VOCABULARY, miniature

TOKENS = torch.arange(10)[None] * 5 % VOCABULARY


def log_probs(model):
    split = split_model(model)
    hidden = split.hidden_states({"input_ids": TOKENS, "use_cache": False})[0]
    return score_tokens(hidden[:-1], split.head, TOKENS[0, 1:], memory=5000).log_probs


def adapted(config):
    with warnings.catch_warnings():  # PEFT asks transformers for a property under its old name
        warnings.simplefilter("ignore")
        return get_peft_model(miniature("llama"), config).double().eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name):
    """Soft cap, scale, division, tied weights: all of them in the model's own logits."""
    model = miniature(name, None)
    expected = token_log_probs(model(TOKENS, use_cache=False).logits, TOKENS, torch.ones_like(TOKENS))[0]
    # Mamba makes its logits in float32 whatever its weights are
    assert_close(log_probs(model).to(expected.dtype), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("targets", "head"), [(["q_proj"], LinearHead), (["q_proj", "lm_head"], ModuleHead)])
def test_adapters(targets, head):
    """LoRA on the trunk leaves the head a matrix; on the head it makes it a module to be called."""
    model = adapted(LoraConfig(target_modules=targets, r=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    split = split_model(model)
    assert isinstance(split.head, head)
    expected = token_log_probs(model(TOKENS).logits, TOKENS, torch.ones_like(TOKENS))[0]
    ours = log_probs(model)
    assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    with model.disable_adapter():
        reference = log_probs(model)
    assert float((reference - ours).detach().abs().max()) > 1e-3
    ours.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora" in name)


def test_adapters_that_add_tokens_are_refused():
    tuned = adapted(PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(AlignError, match="output layer"):
        split_model(tuned)


def test_an_output_layer_that_we_do_not_know_is_refused(monkeypatch):
    model = miniature("llama")
    plain = type(model).forward

    def twisted(self, *arguments, **options):
        out = plain(self, *arguments, **options)
        out.logits = out.logits.tanh()
        return out

    monkeypatch.setattr(type(model), "forward", twisted)
    with pytest.raises(AlignError, match="cannot be made in chunks"):
        split_model(model)


def test_a_model_without_an_output_layer_is_refused():
    with pytest.raises(AlignError, match="AutoModelForCausalLM"):
        split_model(torch.nn.Linear(2, 2))
