"""Where a network embeds the time, and how a direction is added there: a hook, so that no network is rewritten.

| network | place |
|---|---|
| SD3, FLUX, Qwen-Image | output of `time_text_embed`, which every block is modulated by |
| Sana | output of `time_embed.emb`, before its modulations |
| U-Nets | output of `time_embedding`, which every residual block reads |

Found by what a network has, not by its class: a network of another build is refused, not guessed at.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffusion.directions.embedding import DirectionEmbedding
from diffusion.models.locate import ModelError

NAME = "direction_embedding"
"""The embedding as a child of the network."""
PLACES = ("time_text_embed", "time_embed.emb", "time_embedding")
"""Modules whose output is one vector for each row: the time, and what else modulates the whole network."""
LAST_LAYERS = ("timestep_embedder.linear_2", "linear_2")
"""Their last layer, which says how wide that vector is."""


def time_embedding(network: nn.Module) -> tuple[nn.Module, int]:
    """The module whose output a direction is added to, and the width of that output.

    Raises:
        ModelError: a network without such a place.
    """
    modules = dict(network.named_modules())
    for name in PLACES:
        for last in LAST_LAYERS:
            width = getattr(modules.get(f"{name}.{last}"), "out_features", None)  # an adapted layer has it, too
            if isinstance(width, int):
                return modules[name], width
    raise ModelError(
        f"{type(network).__name__} embeds the time at no place that is known ({', '.join(PLACES)}), so no direction "
        "can be added there.",
        way_out="Tell the direction through the prompt: `directions.condition: {kind: prompt}`.",
    )


def attach(network: nn.Module, embedding: DirectionEmbedding) -> RemovableHandle:
    """Make the embedding a child of the network, and let it add to the time's embedding in every pass.

    Returns:
        What takes the hook away again; the child stays.

    Raises:
        ValueError: the network has one already.
    """
    if attached(network) is not None:
        raise ValueError("this network has an embedding of directions already.")
    place, _ = time_embedding(network)
    network.add_module(NAME, embedding)

    def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:  # Any: what the network calls it with
        return embedding.add_to(output)

    return place.register_forward_hook(add)


def attached(network: nn.Module) -> DirectionEmbedding | None:
    """The embedding of a network, None where it has none."""
    found = getattr(network, NAME, None)
    return found if isinstance(found, DirectionEmbedding) else None
