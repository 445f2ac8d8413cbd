"""Random U-Net pipelines: Stable Diffusion 1.5 (noise), 2 (v) and XL; 16 x 16 pictures, 8 x 8 x 4 latents, two levels.

Real classes of diffusers and transformers, a real byte-pair tokenizer; only sizes differ. Weights follow from the seed.
The folders' own samplers (PNDM, DDIM, Euler) and noise schedules are those of the published checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from diffusion.models.sdxl import StableDiffusionXL
from diffusion.models.stable_diffusion import StableDiffusion
from diffusion.tiny.build import tokenizer as word_tokenizer

from .miniature import CONTEXT, autoencoder, enlarge

WIDTH = 8
GAIN = 1.0  # more would make the many layers of a U-Net chaotic: rounding would grow to visible differences
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def unet(**settings: Any) -> UNet2DConditionModel:
    """Two levels of 8 and 16 channels."""
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": WIDTH,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **settings,
        }
    )


def text_config(tokenizer: PreTrainedTokenizerBase) -> CLIPTextConfig:
    """A text encoder of two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=16,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def unshifted_autoencoder() -> AutoencoderKL:
    """These families' autoencoders have a scale only."""
    vae = autoencoder()
    vae.register_to_config(shift_factor=None)
    return vae


def stable_diffusion_pipeline(scheduler: Any, seed: int, **settings: Any) -> StableDiffusionPipeline:
    """The pipeline around a scheduler and a U-Net with these settings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, network = word_tokenizer(), unet(**settings)
        pipeline = StableDiffusionPipeline(
            unet=network,
            scheduler=scheduler,
            vae=unshifted_autoencoder(),
            text_encoder=CLIPTextModel(text_config(tokenizer)),
            tokenizer=tokenizer,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        enlarge(pipeline.text_encoder)
        enlarge(network, gain=GAIN)
    return pipeline


def miniature_sd15_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """Predicts noise; the folder samples with PNDM, as Stable Diffusion 1.5 does."""
    return stable_diffusion_pipeline(PNDMScheduler(**SCHEDULE, skip_prk_steps=True), seed)


def miniature_sd2_pipeline(seed: int = 0, **scheduler: Any) -> StableDiffusionPipeline:
    """Predicts v; heads per level and linear projections, as Stable Diffusion 2 has."""
    settings = {**SCHEDULE, "clip_sample": False, "set_alpha_to_one": False, "prediction_type": "v_prediction"}
    return stable_diffusion_pipeline(
        DDIMScheduler(**{**settings, **scheduler}), seed, attention_head_dim=(2, 4), use_linear_projection=True
    )


def miniature_sdxl_pipeline(
    seed: int = 0, *, vae: AutoencoderKL | None = None, zeros: bool = True
) -> StableDiffusionXLPipeline:
    """Two text encoders, the picture's size as an input; the folder samples with Euler steps, as SDXL 1.0 does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = word_tokenizer()
        network = unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=2,
            projection_class_embeddings_input_dim=6 * 2 + WIDTH,
        )
        pipeline = StableDiffusionXLPipeline(
            unet=network,
            scheduler=EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
            vae=vae or unshifted_autoencoder(),
            text_encoder=CLIPTextModel(text_config(tokenizer)),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer)),
            tokenizer_2=tokenizer,
            force_zeros_for_empty_prompt=zeros,
            add_watermarker=False,
        )
        enlarge(pipeline.text_encoder, pipeline.text_encoder_2)
        enlarge(network, gain=GAIN)
    return pipeline


def miniature_sd15(seed: int = 0) -> StableDiffusion:
    """The model around `miniature_sd15_pipeline`."""
    return StableDiffusion(miniature_sd15_pipeline(seed), source="miniature")


def miniature_sd2(seed: int = 0, **scheduler: Any) -> StableDiffusion:
    """The model around `miniature_sd2_pipeline`."""
    return StableDiffusion(miniature_sd2_pipeline(seed, **scheduler), source="miniature")


def miniature_sdxl(seed: int = 0, **options: Any) -> StableDiffusionXL:
    """The model around `miniature_sdxl_pipeline`."""
    return StableDiffusionXL(miniature_sdxl_pipeline(seed, **options), source="miniature")
