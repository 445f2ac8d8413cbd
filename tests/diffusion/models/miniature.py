"""A random SD3 pipeline for thousands of passes: 16 x 16 pictures, 8 x 8 x 4 latents, two layers of width 16.

Real classes of diffusers and transformers, a real byte-pair tokenizer; only sizes differ. Weights follow from the seed.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from diffusion.models.sd3 import StableDiffusion3
from diffusion.tiny.build import tokenizer as word_tokenizer

CONTEXT = 14
PROMPTS = (
    "a red circle",
    "two blue squares",
    "a green triangle on the left",
    "a small red circle and a large blue square",
)


def autoencoder() -> AutoencoderKL:
    """16 x 16 pictures to 8 x 8 latents of 4 channels, with a scale and a shift."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=1.5,
        shift_factor=0.06,
        force_upcast=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def enlarge(*modules: torch.nn.Module, gain: float = 1.5) -> None:
    """Draw all matrices anew with this gain, so that outputs are not all near zero."""
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and "pos_embed" not in name:
                torch.nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)


def miniature_pipeline(seed: int = 0, shift: float = 3.0) -> StableDiffusion3Pipeline:
    """The pipeline; output layers are scaled up so that velocities and pictures are not all near zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = word_tokenizer()
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=16,
            projection_dim=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            caption_projection_dim=16,
            pooled_projection_dim=16,
            pos_embed_max_size=8,
            qk_norm="rms_norm",
        )
        pipeline = StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift),
            vae=autoencoder(),
            text_encoder=CLIPTextModelWithProjection(text),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(text),
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
        )
        enlarge(transformer, pipeline.text_encoder, pipeline.text_encoder_2)
    return pipeline


def miniature(seed: int = 0) -> StableDiffusion3:
    """The model around `miniature_pipeline`."""
    return StableDiffusion3(miniature_pipeline(seed), max_sequence_length=0, source="miniature")
