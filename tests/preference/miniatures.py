"""Random miniatures of the families that people fine-tune, built from transformers' configuration classes."""

import warnings

import torch
import transformers

VOCABULARY = 97

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLD = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"head_dim": 8}
WINDOW = {"sliding_window": 6}

# Name of the family -> class of its configuration, settings.
FAMILIES = {
    "llama": ("LlamaConfig", COMMON),
    "llama-tied": ("LlamaConfig", {**COMMON, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", COMMON),
    "qwen2-window": (
        "Qwen2Config",
        {**COMMON, **WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {**COMMON, **HEADS}),
    "gemma": ("GemmaConfig", {**COMMON, **HEADS}),
    "gemma2": ("Gemma2Config", {**COMMON, **HEADS, **WINDOW, "final_logit_softcapping": 2.0}),
    "gemma3": (
        "Gemma3TextConfig",
        {**COMMON, **HEADS, **WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "mistral": ("MistralConfig", {**COMMON, **WINDOW}),
    "cohere": ("CohereConfig", {**COMMON, "logit_scale": 0.3}),
    "granite": ("GraniteConfig", {**COMMON, "logits_scaling": 4.0}),
    "gpt2": ("GPT2Config", {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "bloom": ("BloomConfig", {**OLD, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("MptConfig", {**OLD, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    "mamba": ("MambaConfig", {**OLD, "hidden_size": 32, "num_hidden_layers": 2}),
}


def miniature(name, implementation="sdpa", seed=0, spread=8.0):
    """A random model in float64, without dropout, its weights `spread` times as large as usual.

    At the usual size attention is nearly uniform and a wrong mask hardly shows. `implementation` is that of attention;
    None = what transformers chooses for the family.
    """
    config_class, settings = FAMILIES[name]
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, config_class)(**settings)
        choice = {} if implementation is None else {"attn_implementation": implementation}
        model = transformers.AutoModelForCausalLM.from_config(config, **choice)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(spread)
    return model.double().eval()
