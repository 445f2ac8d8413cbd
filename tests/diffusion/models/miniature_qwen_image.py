"""A random Qwen-Image pipeline: 16 x 16 pictures, 8 x 8 x 4 latents, 16 tokens, two layers of width 16.

Real classes of diffusers and transformers, a real tokenizer; only sizes differ. Weights follow from the seed.
"""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig

from diffusion.models.qwen_image import QwenImage
from diffusion.tiny import world

from .miniature import PROMPTS, enlarge

RESOLUTION = 16  # the pipeline itself would draw 256 x 256: its own size is a constant, not a setting
LENGTH = 24
TEMPLATE = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background:\nuser\nassistant\n"
)
"""The pipeline's chat template without its marks; 34 tokens stand in front of the prompt, and that many are dropped."""


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Bytes; every word of the drawn world and of the chat template is one token."""
    empty = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[], model_max_length=512)
    texts = [TEMPLATE, *world.words(), *(f" {word}" for word in world.words())]
    marks = ["<|im_start|>", "<|im_end|>"]
    return empty.train_new_from_iterator([texts], vocab_size=2000, new_special_tokens=marks, show_progress=False)


def text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """One layer of the language model, and a vision tower that no prompt uses."""
    text = Qwen2_5_VLTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    )
    vision = Qwen2_5_VLVisionConfig(
        depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16, patch_size=14
    )
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    )


def film_autoencoder() -> AutoencoderKLQwenImage:
    """16 x 16 pictures to 8 x 8 latents of 4 channels, each with its own mean and deviation."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.0, 2.0, 1.5],
    )


def miniature_qwen_image_pipeline(seed: int = 0) -> QwenImagePipeline:
    """The pipeline, its schedule shifted by the picture's size as that of the released folder is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = qwen_tokenizer()
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(2, 2, 4),
        )
        pipeline = QwenImagePipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9),
            vae=film_autoencoder(),
            text_encoder=text_encoder(tokenizer).eval(),
            tokenizer=tokenizer,
        )
        enlarge(transformer, pipeline.text_encoder, gain=1.25)
    return pipeline


def miniature_qwen_image(seed: int = 0) -> QwenImage:
    """The model around `miniature_qwen_image_pipeline`."""
    return QwenImage(miniature_qwen_image_pipeline(seed), max_sequence_length=LENGTH, source="miniature")


def qwen_guidance(scale: float) -> dict[str, object]:
    """Arguments of the pipeline's own call for a guidance scale: without a negative prompt there is none."""
    return {"true_cfg_scale": scale, "negative_prompt": None if scale == 1.0 else [" "] * len(PROMPTS)}


def guided_squares(without: torch.Tensor, given: torch.Tensor, scale: float) -> torch.Tensor:
    """Guidance in float64, square by square: each 2 x 2 square of all channels keeps its length with the prompt."""
    guided = (without + scale * (given - without)).double()
    for n in range(guided.shape[0]):
        for y in range(0, guided.shape[2], 2):
            for x in range(0, guided.shape[3], 2):
                square = (n, slice(None), slice(y, y + 2), slice(x, x + 2))
                guided[square] *= (given[square].double() ** 2).sum().sqrt() / (guided[square] ** 2).sum().sqrt()
    return guided.float()
