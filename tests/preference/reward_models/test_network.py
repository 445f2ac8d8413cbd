"""The head on a language model: the padding token, the last token, families, what is trained and what is saved."""

import json

import pytest
import torch

from align.config.shared import LoraConfig
from preference.config import CausalLm
from preference.models.language_model import LanguageModel
from preference.models.locate import ModelError
from preference.reward_models.files import load_reward_model
from preference.reward_models.network import PADDING, last_token_scores, pad_right, with_heads

from ..miniatures import miniature
from ..tokenizers import ALL, model_folder, network


def reward_model(family="llama", names=("reward",), seed=0, tokenizer=None):
    tokenizer = tokenizer or ALL[family]()
    return with_heads(LanguageModel(network=network(family, tokenizer), tokenizer=tokenizer), names, seed=seed)


@pytest.mark.parametrize("family", sorted(ALL))
def test_stock_transformers_finds_the_same_last_token(family):
    """Rows that end with EOS, padded together: its own pooling compares with the padding token, ours counts."""
    model = reward_model(family, names=("a", "b"))
    eos = model.language.tokenizer.eos_token_id
    rows = [torch.tensor([5, 6, 7, 8, eos]), torch.tensor([9, eos]), torch.tensor([5, 4, 3])]
    ids, last = pad_right(rows, model.pad_id)
    assert model.pad_id != eos
    assert model.network.config.pad_token_id == model.pad_id
    ours = last_token_scores(model.network, ids, last)
    mask = (torch.arange(ids.shape[1]) <= last[:, None]).long()
    assert torch.allclose(model.network(input_ids=ids, attention_mask=mask).logits, ours, atol=1e-5)
    alone = last_token_scores(model.network, rows[1][None], torch.tensor([1]))
    assert torch.allclose(alone, ours[1:2], atol=1e-5)


def test_a_tokenizer_that_has_only_an_end_token_gets_a_padding_token():
    """GPT-2's one special token begins, ends and pads; the embedding here has three spare rows, a full one grows."""
    tokenizer = ALL["gpt2"]()
    model = reward_model("gpt2", tokenizer=tokenizer)
    assert tokenizer.pad_token == PADDING
    assert model.pad_id == len(tokenizer) - 1
    tokenizer = ALL["gpt2"]()
    causal = network("gpt2", tokenizer)
    causal.resize_token_embeddings(len(tokenizer))
    full = with_heads(LanguageModel(network=causal, tokenizer=tokenizer), ("reward",), seed=0)
    assert full.network.get_input_embeddings().num_embeddings == len(tokenizer) == full.pad_id + 1


@pytest.mark.parametrize("family", ["qwen3", "gemma", "mistral"])
def test_families(family):
    """The trunk is used, not copied; scores at the last token are the head times the trunk's last state."""
    causal = miniature(family).float()
    tokenizer = ALL["llama"]()
    model = with_heads(LanguageModel(network=causal, tokenizer=tokenizer), ("x", "y", "z"), seed=1)
    assert model.network.model is causal.model
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = causal.model(input_ids=ids).last_hidden_state[:, -1] @ model.network.score.weight.T
    assert torch.allclose(last_token_scores(model.network, ids, torch.tensor([3])), expected, atol=1e-5)


def test_a_family_without_a_classifier_is_refused():
    with pytest.raises(ModelError, match="no sequence classifier for 'mamba'"):
        with_heads(LanguageModel(network=miniature("mamba", None), tokenizer=ALL["llama"]()), ("x",), seed=0)


def test_heads_are_drawn_by_the_seed_or_begin_at_zero():
    """Deviation 1 / sqrt(17) for 16 features."""
    one, same, other = (reward_model(seed=seed).network.score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    many = reward_model(names=tuple(map(str, range(500)))).network.score.weight
    assert many.std().item() == pytest.approx(17**-0.5, rel=0.05)
    assert reward_model(seed=None).network.score.weight.abs().max() == 0


def test_adapters_and_the_head_are_trained_and_nothing_else():
    model = reward_model()
    policy = model.policy(LoraConfig(rank=2, alpha=4.0, targets="attention"), seed=0)
    trained = policy.trainable_parameters()
    assert "score.weight" in trained
    assert all(".lora_" in name for name in trained if name != "score.weight")
    free = {name for name, weight in model.network.named_parameters() if weight.requires_grad}
    assert len(free) == len(trained)
    whole = reward_model().policy(None, seed=0).trainable_parameters()
    assert {"score.weight", "model.embed_tokens.weight"} <= whole.keys()


def test_half_precision_trunks_have_a_float32_head(tmp_path):
    model_folder(tmp_path)
    model = load_reward_model(CausalLm(path=str(tmp_path), dtype="bfloat16"), ("reward",), seed=0)
    assert next(model.network.model.parameters()).dtype == torch.bfloat16
    scores = last_token_scores(model.network, torch.tensor([[5, 6]]), torch.tensor([1]))
    assert scores.dtype == torch.float32
    assert scores.item() != scores.bfloat16().item()


def test_labels_are_in_the_configuration():
    settings = json.loads(reward_model(names=("helpful", "short")).network.config.to_json_string())
    assert settings["id2label"] == {"0": "helpful", "1": "short"}
    assert settings["label2id"] == {"helpful": 0, "short": 1}
    assert settings["problem_type"] == "regression"
