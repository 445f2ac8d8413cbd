"""Small tokenizers that disagree about begin tokens, end tokens and generation prompts, and models of their size."""

import warnings

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("c", "a"), ("ca", "t"), ("Ġ", "a"), ("o", "k")]

LLAMA = (
    "{{ bos_token }}{% if tools %}<|start|>tools|{{ tools | tojson }}<|eot|>{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}|{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant|{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
# The generation prompt ends in a space that no answer has behind its role; a system turn is refused.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n ' }}{% endif %}"
)
# Says how many turns there are: the prompt reads otherwise once an answer stands behind it.
COUNTING = "{{ messages | length }} turns{% for m in messages %}|{{ m['role'] }}:{{ m['content'] }}{% endfor %}<|eot|>"


def build(*, special, bos=None, eos=None, pad=None, template=None, adds_bos=False, adds_eos=False):
    """A byte-level BPE tokenizer with a handful of merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = list(dict.fromkeys([*special, *letters, *(left + right for left, right in MERGES)]))
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    if adds_bos or adds_eos:
        single = f"{bos + ' ' if adds_bos else ''}$A{' ' + eos if adds_eos else ''}"
        known = [(token, pieces.index(token)) for token in dict.fromkeys((bos, eos)) if token]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=known)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad)
    made.chat_template = template
    return made


def llama_like(**changes):
    """Puts <s> before plain text; the template writes it, too. No padding token."""
    special = ("<s>", "</s>", "<|start|>", "<|eot|>")
    return build(**{"special": special, "bos": "<s>", "eos": "<|eot|>", "template": LLAMA, "adds_bos": True, **changes})


def qwen_like(**changes):
    """No begin token; ChatML, so a newline stands behind the end of a turn."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return build(**{"special": special, "eos": "<|im_end|>", "pad": "<|endoftext|>", "template": CHATML, **changes})


def gemma_like(**changes):
    """Puts <bos> before plain text; ends turns by a token that is not EOS; begins answers in its own way."""
    special = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"}
    return build(**{"special": special, **names, "template": GEMMA, "adds_bos": True, **changes})


def gpt2_like(**changes):
    """One token for begin and end, which it never adds; no padding token, no template."""
    return build(**{"special": ("<|endoftext|>",), "bos": "<|endoftext|>", "eos": "<|endoftext|>", **changes})


ALL = {"llama": llama_like, "qwen": qwen_like, "gemma": gemma_like, "gpt2": gpt2_like}

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "llama": ("LlamaConfig", SIZES),
    "llama-tied": ("LlamaConfig", {**SIZES, "tie_word_embeddings": True}),
    "qwen": ("Qwen2Config", SIZES),
    "gemma": ("GemmaConfig", {**SIZES, "head_dim": 8}),
    "mistral": ("MistralConfig", SIZES),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}),
}


def network(family, tokenizer, seed=0):
    """A random model with a row of its embedding for each token, and three more."""
    config_class, settings = FAMILIES[family]
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, config_class)(vocab_size=len(tokenizer) + 3, **settings, **ids)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def model_folder(path, family="llama", tokenizer=None, seed=0):
    """A model and its tokenizer in a folder, as `save_pretrained` writes them."""
    tokenizer = tokenizer or ALL.get(family.partition("-")[0], llama_like)()
    network(family, tokenizer, seed).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
