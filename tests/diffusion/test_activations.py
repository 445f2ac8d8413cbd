"""What a forward pass keeps: the guess against what autograd really saves of diffusers' networks.

The networks are built on the `meta` device, in 16-bit numbers: nothing is computed, every saved tensor is counted.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import (
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from diffusion.activations import kept_by, unet_blocks
from diffusion.config.models import (
    FluxModel,
    Model,
    QwenImageModel,
    SanaModel,
    Sd3Model,
    SdxlModel,
    StableDiffusionModel,
)
from diffusion.models.files import ModelFiles

WIDTH = {"num_attention_heads": 8, "attention_head_dim": 64}
AUTOENCODER = {"block_out_channels": [1, 1, 1, 1]}


def kept_for_backward(network: nn.Module, forward: Callable[[nn.Module], object], tokens: set[int]) -> int:
    """Bytes of the tensors that autograd saves, without weights and without attention scores.

    Args:
        network: on the meta device.
        forward: calls it.
        tokens: numbers of tokens: what has two of them as last axes is a table of scores.
    """
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        scores = tensor.ndim > 2 and set(tensor.shape[-2:]) <= tokens
        if tensor.untyped_storage()._cdata not in weights and not scores:
            found[tensor.untyped_storage()._cdata] = tensor  # held, so that no other storage gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward(network)
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, device="meta", dtype=torch.bfloat16)


def sd3(**settings) -> tuple[Model, nn.Module, Callable, set[int]]:
    """256 tokens of a picture, 77 + 256 of text."""
    network = SD3Transformer2DModel(
        sample_size=32,
        num_layers=4,
        joint_attention_dim=64,
        caption_projection_dim=512,
        pooled_projection_dim=64,
        qk_norm="rms_norm",
        **WIDTH,
        **settings,
    )
    return (
        Sd3Model(path="owner/name"),
        network,
        lambda net: net(
            randn(1, 16, 32, 32),
            timestep=randn(1),
            encoder_hidden_states=randn(1, 333, 64),
            pooled_projections=randn(1, 64),
        ),
        {256, 589},
    )


def flux() -> tuple[Model, nn.Module, Callable, set[int]]:
    network = FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=4,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        axes_dims_rope=(16, 24, 24),
        **WIDTH,
    )
    return (
        FluxModel(path="owner/name", max_sequence_length=200),
        network,
        lambda net: net(
            randn(1, 1024, 64),
            timestep=randn(1),
            encoder_hidden_states=randn(1, 200, 64),
            pooled_projections=randn(1, 64),
            txt_ids=randn(200, 3),
            img_ids=randn(1024, 3),
        ),
        {1224},
    )


def qwen() -> tuple[Model, nn.Module, Callable, set[int]]:
    network = QwenImageTransformer2DModel(num_layers=4, joint_attention_dim=64, axes_dims_rope=(16, 24, 24), **WIDTH)
    mask = torch.ones(1, 200, dtype=torch.bool, device="meta")
    return (
        QwenImageModel(path="owner/name", max_sequence_length=200),
        network,
        lambda net: net(
            randn(1, 1024, 64),
            timestep=randn(1),
            encoder_hidden_states=randn(1, 200, 64),
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, 32, 32)]],
        ),
        {1224},
    )


def sana() -> tuple[Model, nn.Module, Callable, set[int]]:
    network = SanaTransformer2DModel(
        in_channels=32,
        out_channels=32,
        num_layers=4,
        num_attention_heads=16,
        attention_head_dim=32,
        num_cross_attention_heads=4,
        cross_attention_head_dim=128,
        cross_attention_dim=512,
        caption_channels=64,
        sample_size=32,
    )
    return (
        SanaModel(path="owner/name"),
        network,
        lambda net: net(randn(1, 32, 32, 32), encoder_hidden_states=randn(1, 300, 64), timestep=randn(1)),
        {1024, 300},
    )


def stable_diffusion() -> tuple[Model, nn.Module, Callable, set[int]]:
    network = UNet2DConditionModel(
        sample_size=32, cross_attention_dim=64, attention_head_dim=8, block_out_channels=(96, 192, 384, 384)
    )
    return (
        StableDiffusionModel(path="owner/name"),
        network,
        lambda net: net(randn(1, 4, 32, 32), randn(1), encoder_hidden_states=randn(1, 77, 64)),
        {1024, 256, 64, 16, 77},
    )


def sdxl() -> tuple[Model, nn.Module, Callable, set[int]]:
    network = UNet2DConditionModel(
        sample_size=32,
        cross_attention_dim=64,
        attention_head_dim=(3, 6, 12),
        use_linear_projection=True,
        block_out_channels=(96, 192, 384),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=112,
    )
    added = {"text_embeds": randn(1, 64), "time_ids": randn(1, 6)}
    return (
        SdxlModel(path="owner/name"),
        network,
        lambda net: net(randn(1, 4, 32, 32), randn(1), encoder_hidden_states=randn(1, 77, 64), added_cond_kwargs=added),
        {1024, 256, 64, 77},
    )


@pytest.mark.parametrize(
    "build",
    [sd3, lambda: sd3(dual_attention_layers=(0, 1)), flux, qwen, sana, stable_diffusion, sdxl],
    ids=["sd3", "sd3_dual", "flux", "qwen_image", "sana", "stable_diffusion", "sdxl"],
)
def test_the_guess_against_what_autograd_saves(build):
    """Within a fifth: embeddings, modulation and the output layer are not in the guess."""
    with torch.device("meta"):
        model, network, forward, tokens = build()
    for weight in network.parameters():
        weight.data = weight.data.bfloat16()
    counted = kept_for_backward(network, forward, tokens)
    files = ModelFiles(network=dict(network.config), autoencoder=AUTOENCODER)
    resolution = 512 if network.config.get("sample_size") is None else None
    if isinstance(model, FluxModel | QwenImageModel):
        resolution = 512  # 64 latent pixels, 1024 tokens
    guess = kept_by(model, files, resolution)
    assert guess is not None
    assert 0.8 < guess.whole / counted < 1.25
    assert guess.checkpointed < 0.5 * guess.whole


def test_a_unet_by_hand():
    """Two levels of widths 2 and 4, one block each, on 4 x 4: (pixels, in, out) of the residual blocks.

    Down: (16, 2, 2) with a transformer, (4, 2, 4). Middle: (4, 4, 4) with one, (4, 4, 4). Up, each with its skip: at 4
    pixels (4 + 4, 4), (4 + 2, 4); at 16 pixels (4 + 2, 2), (2 + 2, 2), both with a transformer.
    """
    network = {
        "block_out_channels": (2, 4),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    residual = [(16, 4), (4, 6), (4, 8), (4, 8), (4, 12), (4, 10), (16, 8), (16, 6)]
    transformers = [(16, 2), (4, 4), (16, 2), (16, 2)]
    whole = sum(6 * pixels * both for pixels, both in residual) + sum(
        68 * pixels * wide for pixels, wide in transformers
    )
    assert sum(block.whole for block in unet_blocks(network, 4)) == whole


def test_sides_of_latents():
    """512 pixels: 8 to one for the autoencoders of SD and Qwen-Image, 32 to one for Sana's."""
    for autoencoder, side in (
        ({"block_out_channels": [1] * 4}, 64),
        ({"temperal_downsample": [False, True, True]}, 64),
        ({"encoder_block_out_channels": [1] * 6}, 16),
    ):
        assert ModelFiles(network={}, autoencoder=autoencoder).side(512) == side
    assert ModelFiles(network={"sample_size": 96}, autoencoder={}).side(None) == 96
    assert ModelFiles(network={"sample_size": None}, autoencoder={}).side(None) == 128


def test_an_unknown_family_is_not_known():
    assert kept_by(object(), ModelFiles(network={}, autoencoder={}), 512) is None
