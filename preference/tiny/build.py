"""The parts of the embedded model, untrained: tokenizer, chat template, network.

    tokenizer          byte-level BPE of `VOCABULARY` entries, so any text comes back as it was; each digit is a token
    chat template      <|begin|>  (<|role|> content <|end|>)*  <|assistant|>
    LlamaForCausalLM   4 layers x width 128, 4 heads, embeddings tied, attention with biases (`start` says why)

Every turn ends with the same token, which is EOS. An answer begins behind a token of its own, so no merge can reach
across it, and a prompt has the same ids with and without an answer behind it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from preference.tiny import start

VOCABULARY = 768
WIDTH = 128
LAYERS = 4
HEADS = 4
CONTEXT = 1024
THETA = 10_000.0

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (PAD, BEGIN, END, *(f"<|{role}|>" for role in ROLES))

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('expected the role system, user or assistant, found ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from texts, with the chat template.

    Words keep the space before them, as in GPT-2; digits stand alone and never merge.

    Args:
        texts: what the merges are learnt from.
    """
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[token for token in SPECIAL if token not in (BEGIN, END, PAD)],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    found.chat_template = CHAT_TEMPLATE
    return found


def network(tokens: PreTrainedTokenizerFast, *, seed: int = 0) -> LlamaForCausalLM:
    """A network with the weights that training starts from (see `start`).

    Args:
        tokens: the tokenizer, for the number of tokens; special ones come first, in the order of `SPECIAL`.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": THETA},
            attention_bias=True,
            tie_word_embeddings=True,
            bos_token_id=SPECIAL.index(BEGIN),
            eos_token_id=SPECIAL.index(END),
            pad_token_id=SPECIAL.index(PAD),
        )
    )
    start.prepare(made, THETA)
    return made
