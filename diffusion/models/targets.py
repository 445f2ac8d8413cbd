"""Named sets of layers for low-rank adapters of the SD3 family, as module-name endings. Torch-free, for the plan.

The joint attention of both streams and its feed-forward layers are the sets of the released configurations.
"""

from __future__ import annotations

from collections.abc import Sequence

ATTENTION = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
NAMED = {"attention": ATTENTION, "feed_forward": FEED_FORWARD}
BLOCKS = "transformer_blocks."
"""`all_linear` is every linear layer under this name."""


def adapts(targets: str | Sequence[str], parameter: str) -> bool:
    """Whether the adapter set or list of endings `targets` takes the layer whose weight is called `parameter`."""
    layer, _, leaf = parameter.rpartition(".")
    if leaf != "weight":
        return False
    if targets == "all_linear":
        return layer.startswith(BLOCKS)
    endings = NAMED[targets] if isinstance(targets, str) else targets
    return any(layer == ending or layer.endswith(f".{ending}") for ending in endings)
