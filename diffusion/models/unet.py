"""What the families around a U-Net have in common: sizes, and networks that ask for more than a prompt."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from diffusion.models.locate import ModelError


def check_unet(unet: Any, latent_channels: int, source: str) -> None:  # Any: diffusers' U-Net; its config is untyped
    """Refuse a network that wants another input than latents, time and prompt.

    Args:
        unet: the network.
        latent_channels: of the autoencoder.
        source: where the pipeline came from, for messages.

    Raises:
        ModelError: a network for inpainting or of a consistency model.
    """
    if unet.config.in_channels != latent_channels:
        raise ModelError(
            f"the network of {source!r} takes {unet.config.in_channels} channels, its autoencoder has "
            f"{latent_channels}: it wants a second picture (inpainting, upscaling).",
            way_out="Give a text-to-image checkpoint.",
        )
    if unet.config.time_cond_proj_dim is not None:
        raise ModelError(
            f"the network of {source!r} takes the guidance scale as an input (a consistency model, LCM); "
            "that is not supported.",
            way_out="Give the checkpoint that it was distilled from.",
        )


def native_latents(unet: Any) -> tuple[int, int]:
    """Channels and native side of a latent."""
    return unet.config.in_channels, unet.config.sample_size


def last_weight(unet: nn.Module) -> Tensor:
    """The output layer's weight."""
    return unet.get_submodule("conv_out").get_parameter("weight")


def described(unet: Any) -> dict[str, str]:
    """Widths of the levels and of the prompt's embedding, for the fingerprint."""
    widths = "x".join(str(width) for width in unet.config.block_out_channels)
    return {"widths": widths, "cross_attention": str(unet.config.cross_attention_dim)}
