"""Classifiers that were not trained here, as rewards: an encoder with its own pooling, a decoder without our card."""

import warnings

import pytest
import torch
import transformers

from align.config.shared import RewardConfig
from align.rewards.scorer import Scorer
from align.types import Samples

from ..tokenizers import gpt2_like, llama_like, network

PROMPTS, ANSWERS = ["the cat", "in"], [" is ok", " the the the cat"]


def encoder(folder):
    """A BERT with three outputs; its pooling reads the first token. The tokenizer has no chat template."""
    tokenizer = gpt2_like(pad="<|endoftext|>")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=64)
    config.id2label = {0: "toxic", 1: "kind", 2: "dull"}
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def score(folder, **options):
    index = torch.arange(len(PROMPTS))
    samples = Samples(index=index, group_ids=index, prompts=PROMPTS, completions=ANSWERS)
    config = RewardConfig(function="reward_model", options={"path": str(folder), "device": "cpu", **options})
    return Scorer([config]).score(samples).values[:, 0].tolist()


def test_an_encoder_pools_as_it_does(tmp_path):
    """Prompt and answer are one text, with the end token behind it; padding is masked, whatever token it is."""
    tokenizer = encoder(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids = torch.tensor([[*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            expected.append(model(input_ids=ids).logits[0, 1].item())
    assert score(tmp_path, attribute="kind") == pytest.approx(expected, abs=1e-5)


def test_a_decoder_without_our_card_goes_through_its_chat_template(tmp_path):
    tokenizer = llama_like()
    causal = network("llama", tokenizer)
    settings = causal.config
    settings.num_labels = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForSequenceClassification.from_config(settings).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            expected.append(model(input_ids=torch.tensor([ids])).logits.item())
    assert score(tmp_path) == pytest.approx(expected, abs=1e-5)
