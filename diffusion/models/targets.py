"""Named sets of layers for low-rank adapters, as module-name endings, one per family. Torch-free, for the plan.

The joint attention of both streams and its feed-forward layers are the sets of the released configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LoraTargets:
    """What `model.lora.targets` may name in a family.

    Attributes:
        attention: endings of the attention projections.
        feed_forward: endings of the feed-forward layers.
        blocks: prefixes of the blocks; `all_linear` is every linear layer under them.
    """

    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    blocks: tuple[str, ...]

    def named(self, name: str, linear_layers: Sequence[str]) -> tuple[str, ...]:
        """Endings of the set called `name`, given the names of all linear layers."""
        inside = [layer for layer in linear_layers if layer.startswith(self.blocks)]
        if name == "all_linear":
            return tuple(inside)
        outside = [layer for layer in linear_layers if not layer.startswith(self.blocks)]
        found: list[str] = []
        for ending in {"attention": self.attention, "feed_forward": self.feed_forward}[name]:
            # An ending that also fits a layer outside of the blocks (an output layer) is spelled out instead.
            ambiguous = any(_fits(layer, ending) for layer in outside)
            found += [layer for layer in inside if _fits(layer, ending)] if ambiguous else [ending]
        return tuple(found)

    def adapts(self, targets: str | Sequence[str], parameter: str) -> bool:
        """Whether the set or list of endings `targets` takes the layer whose weight is called `parameter`."""
        layer, _, leaf = parameter.rpartition(".")
        if leaf != "weight":
            return False
        if isinstance(targets, str) and not layer.startswith(self.blocks):
            return False
        if targets == "all_linear":
            return True
        endings = self.named(targets, ()) if isinstance(targets, str) else targets
        return any(_fits(layer, ending) for ending in endings)


def _fits(layer: str, ending: str) -> bool:
    return layer == ending or layer.endswith(f".{ending}")


_TO_OUT = ("to_q", "to_k", "to_v", "to_out.0")
_JOINT = (*_TO_OUT, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

UNET = LoraTargets(
    attention=_TO_OUT,  # of self- and cross-attention
    feed_forward=("ff.net.0.proj", "ff.net.2"),
    blocks=("down_blocks.", "mid_block.", "up_blocks."),
)
SD3 = LoraTargets(
    attention=tuple(f"attn.{name}" for name in _JOINT),
    feed_forward=("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    blocks=("transformer_blocks.",),
)
# The single-stream blocks join the output projections of attention and feed-forward in `proj_out`.
FLUX = LoraTargets(
    attention=tuple(f"attn.{name}" for name in _JOINT),
    feed_forward=("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
    blocks=("transformer_blocks.", "single_transformer_blocks."),
)
# Linear self-attention, cross-attention to the prompt, and a feed-forward part of convolutions; the depth-wise one in
# its middle mixes no channels and stays as it is.
SANA = LoraTargets(
    attention=tuple(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in _TO_OUT),
    feed_forward=("ff.conv_inverted", "ff.conv_point"),
    blocks=("transformer_blocks.",),
)
QWEN_IMAGE = LoraTargets(
    attention=tuple(f"attn.{name}" for name in _JOINT),
    feed_forward=("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    blocks=("transformer_blocks.",),
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which part of a pipeline is trained.

    Attributes:
        part: the pipeline's component, and its folder.
        targets: its named sets of layers.
    """

    part: str = "transformer"
    targets: LoraTargets


NETWORKS = {
    "stable_diffusion": Network(part="unet", targets=UNET),
    "sdxl": Network(part="unet", targets=UNET),
    "sd3": Network(targets=SD3),
    "flux": Network(targets=FLUX),
    "sana": Network(targets=SANA),
    "qwen_image": Network(targets=QWEN_IMAGE),
}
"""Of every model kind."""
