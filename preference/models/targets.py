"""Named sets of layers for low-rank adapters in language models. Torch-free, for the plan.

Families spell the same layers in a few ways; a set is what a model has of them. Layers outside of the repeated blocks
(embeddings, output layer) are in no set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ATTENTION = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),  # Llama, Qwen, Mistral, Gemma, SmolLM ...
    *("qkv_proj", "out_proj"),  # Phi-3, OPT, GPT-Neo
    *("attn.c_attn", "attn.c_proj"),  # GPT-2
    *("query_key_value", "attention.dense", "self_attention.dense"),  # GPT-NeoX, Bloom, Falcon
)
"""Endings of attention projections."""
FEED_FORWARD = (
    *("gate_proj", "up_proj", "down_proj"),
    *("gate_up_proj", "fc1", "fc2", "fc_in", "fc_out"),
    *("mlp.c_fc", "mlp.c_proj"),
    *("dense_h_to_4h", "dense_4h_to_h"),
)
"""Endings of feed-forward layers."""
NAMED = {"attention": ATTENTION, "feed_forward": FEED_FORWARD}

_BLOCK = re.compile(r"\.\d+\.")


def endings(targets: str | Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """Endings of the layers that a set or a list names, each once.

    Args:
        targets: `attention`, `feed_forward`, `all_linear`, or endings, which are handed through.
        layers: names of all linear layers of the model.

    Returns:
        Endings behind the number of the block, such as `self_attn.q_proj`; nothing if the model has no such layer.
    """
    if not isinstance(targets, str):
        return tuple(targets)
    inside = [layer for layer in layers if _BLOCK.search(layer)]
    known = NAMED.get(targets)
    chosen = [layer for layer in inside if known is None or _fits(layer, known)]
    return tuple(dict.fromkeys(_BLOCK.split(layer, maxsplit=1)[1] for layer in chosen))


def adapts(targets: str | Sequence[str], parameter: str) -> bool:
    """Whether the set or list takes the layer whose weight is called `parameter`."""
    layer, _, leaf = parameter.rpartition(".")
    if leaf != "weight":
        return False
    if not isinstance(targets, str):
        return _fits(layer, targets)
    return bool(_BLOCK.search(layer)) and (targets == "all_linear" or _fits(layer, NAMED[targets]))


def _fits(layer: str, known: Sequence[str]) -> bool:
    return any(layer == ending or layer.endswith(f".{ending}") for ending in known)
