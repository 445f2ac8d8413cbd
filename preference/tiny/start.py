"""Where training starts: attention that already looks back and already finds its like.

From small random weights, a network of this size spends most of a short training on finding out that a word can be
looked up at all. Three habits that trained language models have are therefore given to it at the start, and training
keeps or drops them:

* **Looking back** (first layer): heads 0, 1, 2 look at the token 1, 2 and 4 places before. Their queries and keys get
  constants for the fastest frequencies of the rotary embedding, so that

      logit(m, n) = sum_i a^2 cos(theta_i (m - n - d)) / sqrt(head size)    is largest where m - n = d.

* **Finding its like** (all other heads): W_Q = W_K, so a token attends to tokens like itself.
* **Copying** (all layers): W_O = W_V^T, so what is attended to is written as it is read. After the first layer each
  place holds a blend of its own word and those before it, all in the code of the embedding: "cup" knows "red".

References:
    The last two: Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", arXiv:2305.09828.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

DISTANCES = (1, 2, 4)
"""Places that the first heads of the first layer look back."""
FREQUENCIES = 5
"""Fastest frequencies that carry a distance."""
PEAK = 20.0
"""Logit at that distance, from each of these heads' constants alone."""
EMBEDDING_SPREAD = 0.06
"""Standard deviation of the embeddings: a word and what attention adds to it are of the same size."""
VALUE_SPREAD = 0.04
"""Standard deviation of W_V and W_O."""
SPREAD = 0.06
"""Standard deviation of W_Q = W_K: a token finds its like with a logit of about 724 SPREAD^2 = 2.6."""


def looking_back(distance: int, head_size: int, theta: float) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Constants of queries and keys of a head that looks `distance` places back.

    Args:
        distance: d.
        head_size: entries i and i + head_size / 2 are a pair that the rotary embedding turns by theta_i.
        theta: its base.
    """
    half = head_size // 2
    size = math.sqrt(PEAK * math.sqrt(head_size) / FREQUENCIES)
    query, key = torch.zeros(head_size), torch.zeros(head_size)
    for pair in range(FREQUENCIES):
        angle = theta ** (-pair / half) * distance
        query[pair], query[pair + half] = size * math.cos(angle), -size * math.sin(angle)
        key[pair] = size
    return query, key


@torch.no_grad()
def prepare(network: Any, theta: float) -> None:
    """Give a Llama with attention biases these habits, in place (Any: its parts are transformers' own).

    Args:
        network: with random weights.
        theta: base of its rotary embedding.
    """
    size = network.config.hidden_size // network.config.num_attention_heads
    network.model.embed_tokens.weight.normal_(std=EMBEDDING_SPREAD)
    for number, layer in enumerate(network.model.layers):
        attention = layer.self_attn
        attention.q_proj.weight.normal_(std=SPREAD)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.v_proj.weight.normal_(std=VALUE_SPREAD)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)
        if number == 0:
            _look_back(attention, size, theta)


def _look_back(attention: Any, size: int, theta: float) -> None:
    for head, distance in enumerate(DISTANCES):
        rows = slice(head * size, (head + 1) * size)
        query, key = looking_back(distance, size, theta)
        attention.q_proj.bias[rows], attention.k_proj.bias[rows] = query, key
        attention.q_proj.weight[rows] *= 0.1
        attention.k_proj.weight[rows] *= 0.1
