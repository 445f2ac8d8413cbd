"""Loading and saving on miniatures: families, GGUF, adapters, round trips, refusals."""

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.errors import AlignError
from preference.config import CausalLm
from preference.models import load_causal_lm
from preference.models.language_model import LanguageModel
from preference.models.locate import RESOLVERS, ModelError, locate
from preference.models.save import merged_weights, save_merged
from preference.models.targets import adapts

from .. import tokenizers

IDS = torch.tensor([[5, 9, 17, 4, 8]])


def logits(network):
    with torch.no_grad():
        return network(input_ids=IDS).logits


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Function of a family -> a folder with a miniature, made when it is first wanted."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def folder(family):
        if family not in made:
            made[family] = tokenizers.model_folder(root / family, family)
        return made[family]

    return folder


def load(path, **settings):
    return load_causal_lm(CausalLm(path=str(path), **settings))


def shifted(policy, by=0.03):
    """Trained weights that differ from the start."""
    with torch.no_grad():
        for i, weight in enumerate(policy.trainable_parameters().values()):
            weight.add_(by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(tokenizers.FAMILIES))
def test_families(folders, family):
    """Frozen, in evaluation mode, the logits of the model that was saved; every set of layers is there."""
    model = load(folders(family))
    tokenizer = tokenizers.ALL.get(family.partition("-")[0], tokenizers.llama_like)()
    assert_close(logits(model.network), logits(tokenizers.network(family, tokenizer)), rtol=0, atol=0)
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert model.vocabulary_size == len(tokenizer) + 3
    assert model.stop_ids == (tokenizer.eos_token_id,)
    for name in ("attention", "feed_forward", "all_linear"):
        assert model.lora_targets(name)
        assert not any("lm_head" in ending for ending in model.lora_targets(name))


def test_sets_of_layers_by_hand(folders):
    assert load(folders("qwen")).lora_targets("attention") == tuple(
        f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    )
    assert load(folders("gpt2")).lora_targets("feed_forward") == ("mlp.c_fc", "mlp.c_proj")
    assert load(folders("gpt2")).lora_targets("all_linear") == ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert load(folders("llama")).lora_targets(("q_proj",)) == ("q_proj",)
    assert adapts("attention", "model.layers.1.self_attn.q_proj.weight")
    assert not adapts("all_linear", "lm_head.weight")
    assert not adapts("feed_forward", "model.layers.1.self_attn.q_proj.weight")
    assert not adapts("attention", "model.layers.1.self_attn.q_proj.bias")


def test_padding_without_a_padding_token(folders):
    """Llama-like: the end token serves; nothing of the tokenizer is changed."""
    model = load(folders("llama"))
    assert model.tokenizer.pad_token is None
    assert model.pad_id == model.tokenizer.eos_token_id
    assert load(folders("qwen")).pad_id == load(folders("qwen")).tokenizer.pad_token_id


def test_number_format_attention_and_template(folders, tmp_path):
    (tmp_path / "own.jinja").write_text("{{ messages | length }}")
    settings = {"dtype": "bfloat16", "attention": "eager", "chat_template": str(tmp_path / "own.jinja")}
    model = load(folders("llama"), **settings)
    assert {weight.dtype for weight in model.network.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    assert model.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "1"


def test_fingerprint(folders, tmp_path):
    """Of the weights: the same in another place and under adapters, another after a change in memory."""
    model = load(folders("llama"))
    first = model.fingerprint()
    shutil.copytree(folders("llama"), tmp_path / "copy")
    assert load(tmp_path / "copy").fingerprint() == first
    policy = model.policy(LoraConfig(rank=2), seed=0)
    shifted(policy)
    assert model.fingerprint() == first
    assert policy.identity["weights"] == first
    assert load(folders("llama"), dtype="bfloat16").fingerprint() != first
    other = load(folders("llama"))
    with torch.no_grad():
        other.network.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-4
    assert other.fingerprint() != first


def test_models_in_memory(folders):
    """No file is needed, and the reference is what the network is now, not what some file says."""
    tokenizer = tokenizers.llama_like()
    model = LanguageModel(network=tokenizers.network("llama", tokenizer, seed=5), tokenizer=tokenizer)
    before = logits(model.network)
    policy = model.policy(None, seed=0, keep_reference=True)
    shifted(policy)
    with policy.reference() as network:
        assert_close(logits(network), before)
    assert (logits(policy.module) - before).abs().max() > 1e-3


# --- GGUF -------------------------------------------------------------------------------------------------------------


def write_gguf(path, network, tokenizer):
    """A Llama miniature as GGUF, float32, with a byte-level tokenizer."""
    import gguf

    config, state = network.config, network.state_dict()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    pieces += [f"<unused{i}>" for i in range(config.vocab_size - len(pieces))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_merges([" ".join(pair) for pair in tokenizers.MERGES])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in state.items():
        writer.add_tensor(gguf_name(name), permuted(name, weight, config).float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name):
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, block, rest = name.split(".", 3)
    return f"blk.{block}.{NAMES[rest.removesuffix('.weight')]}.weight"


def permuted(name, weight, config):
    """llama.cpp interleaves the halves of each head of queries and keys."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[key] for key in heads if key in name), None)
    if count is None:
        return weight
    return weight.view(count, 2, weight.shape[0] // count // 2, -1).transpose(1, 2).reshape(weight.shape)


def test_gguf(tmp_path):
    """The logits of the model that was written, plain weights, no mark of quantisation, and it trains and saves."""
    tokenizer = tokenizers.llama_like()
    network = tokenizers.network("llama", tokenizer)
    write_gguf(tmp_path / "mini.gguf", network, tokenizer)
    model = load(tmp_path / "mini.gguf")
    assert_close(logits(model.network), logits(network), rtol=1e-5, atol=1e-5)
    assert not hasattr(model.network.config, "quantization_config")
    assert not getattr(model.network, "is_quantized", False)
    text = "the cat<|eot|>"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert model.tokenizer(text, add_special_tokens=False)["input_ids"] == plain
    policy = model.policy(LoraConfig(rank=2), seed=0)
    policy.module(input_ids=IDS, labels=IDS).loss.backward()
    assert all(weight.grad is not None for weight in policy.trainable_parameters().values())
    save_merged(model, tmp_path / "saved", policy)
    model.tokenizer.save_pretrained(tmp_path / "saved")
    assert_close(logits(load(tmp_path / "saved").network), logits(network), rtol=1e-5, atol=1e-5)


def test_gguf_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the package gguf") as caught:
        load(tmp_path / "a.gguf")
    assert caught.value.way_out == "pip install 'align-suite[gguf]'"


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own call
@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2"])
def test_adapters_are_read_by_peft(folders, tmp_path, family):
    """transformers' model with peft's reader computes what the policy computes."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load(folders(family))
    policy = model.policy(LoraConfig(rank=2, alpha=6.0, targets="all_linear"), seed=3)
    base = logits(policy.module)
    shifted(policy)
    trained = logits(policy.module)
    assert (trained - base).abs().max() > 1e-3
    model.save(tmp_path, policy)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(folders(family))
    stock = AutoModelForCausalLM.from_pretrained(folders(family))
    assert_close(logits(PeftModel.from_pretrained(stock, tmp_path).eval()), trained)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(model.tokenizer)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2"])
def test_all_weights_are_read_by_transformers(folders, tmp_path, family):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load(folders(family), dtype="bfloat16")
    policy = model.policy(None, seed=0)
    shifted(policy)
    model.save(tmp_path, policy)
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert found.dtype == torch.float32
    assert_close(logits(found), logits(policy.module), rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == model.tokenizer.chat_template


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_adapters_folded_into_the_weights(folders, tmp_path, family):
    model = load(folders(family))
    policy = model.policy(LoraConfig(rank=2, targets="all_linear"), seed=3)
    shifted(policy)
    trained = logits(policy.module)
    save_merged(model, tmp_path, policy)
    model.tokenizer.save_pretrained(tmp_path)
    assert_close(logits(load(tmp_path).network), trained)
    assert_close(logits(policy.module), trained, rtol=0, atol=0)  # the policy itself is as it was
    assert not any(".lora_" in name or ".base_layer" in name for name in merged_weights(policy.module))
    save_merged(model, tmp_path / "half", policy, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_adapter_that_is_merged_in(folders, tmp_path):
    """It belongs to the reference; what is trained on top is saved with it, as a whole model."""
    first = load(folders("llama"))
    policy = first.policy(LoraConfig(rank=2), seed=3)
    shifted(policy)
    trained = logits(policy.module)
    first.save(tmp_path / "adapter", policy)

    model = load(folders("llama"), adapter=str(tmp_path / "adapter"))
    assert_close(logits(model.network), trained)
    second = model.policy(LoraConfig(rank=2, targets="feed_forward"), seed=4)
    shifted(second)
    with second.reference() as network:
        assert_close(logits(network), trained)
    model.save(tmp_path / "whole", second)
    assert_close(logits(load(tmp_path / "whole").network), logits(second.module))


def test_an_adapter_of_another_model(folders, tmp_path):
    model = load(folders("llama"))
    model.save(tmp_path / "adapter", model.policy(LoraConfig(rank=2), seed=0))
    with pytest.raises(ModelError, match=r"does not fit the model"):
        load(folders("gpt2"), adapter=str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match=r"expected a folder with adapter_config.json"):
        load(folders("llama"), adapter=str(tmp_path))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_no_model(folders, tmp_path):
    def refuse(path):
        with pytest.raises(ModelError) as caught:
            locate(str(path))
        return str(caught.value)

    assert "there is no such folder or file" in refuse(tmp_path / "none")
    assert "there is no such folder or file" in refuse(tmp_path / "none.gguf")
    assert "has no config.json" in refuse(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "Name the base model here, and the adapter in `model.adapter`." in refuse(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in refuse(tmp_path)
    assert "is a file; expected a folder" in refuse(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{}")
    assert "names no `model_type`" in refuse(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pickled weights are never read" in refuse(tmp_path)
    assert "there is no such embedded model" in refuse("builtin:huge")


def test_hub_ids_are_left_alone():
    source = locate("owner/name-1.0")
    assert (source.name, source.is_local, source.folder) == ("owner/name-1.0", False, None)


def test_a_resolver_of_ones_own(folders, monkeypatch):
    monkeypatch.setitem(RESOLVERS, "package", lambda name: folders(name))
    assert locate("package:llama").name == str(folders("llama"))


def test_code_of_a_model_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}})
    )
    (tmp_path / "own.py").write_text("raise SystemExit('this code was run')")
    (tmp_path / "model.safetensors").write_bytes(b"")
    tokenizers.llama_like().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be loaded") as caught:
        load(tmp_path)
    assert "bring their own code are not run here" in caught.value.way_out


def test_a_tokenizer_that_is_too_large(folders, tmp_path):
    shutil.copytree(folders("llama"), tmp_path / "model")
    tokenizer = tokenizers.llama_like()
    tokenizer.add_tokens([f"<extra{i}>" for i in range(9)])
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"the tokenizer has \d+ tokens, the model embeds \d+"):
        load(tmp_path / "model")


def test_quantisation_without_the_package(folders, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(ModelError, match=r"needs the package bitsandbytes") as caught:
        load(folders("llama"), quantization="4bit")
    assert caught.value.way_out == "pip install 'align-suite[bnb]'"


def test_an_attention_that_is_not_installed(folders):
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load(folders("llama"), attention="flash_attention_3")


def test_targets_that_are_not_there(folders):
    model = load(folders("gpt2"))
    with pytest.raises(AlignError, match=r"match no layer"):
        model.policy(LoraConfig(targets=("q_proj",)), seed=0)
