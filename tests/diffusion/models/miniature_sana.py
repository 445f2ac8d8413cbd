"""A random Sana pipeline: 32 x 32 pictures, 8 x 8 x 4 latents, 64 tokens, two layers of width 16.

Real classes of diffusers and transformers, a real tokenizer; only sizes differ. Weights follow from the seed.
"""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from diffusion.models.sana import Sana
from diffusion.tiny import world

from .miniature import enlarge

SHIFT = 3.0
LENGTH = 48


def gemma_tokenizer() -> GemmaTokenizer:
    """Letters; words of the drawn world are merged from the left."""
    words = [f"▁{word}" for word in world.words()]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *map(chr, range(33, 127)), "▁"]
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *map("".join, merges)]))}
    return GemmaTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=512)


def deep_compression_autoencoder() -> AutoencoderDC:
    """32 x 32 pictures to 8 x 8 latents of 4 channels, without a shift and without a distribution."""
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        scaling_factor=0.4,
    )


def dpm_scheduler() -> DPMSolverMultistepScheduler:
    """As in the released folders."""
    return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)


def miniature_sana_pipeline(seed: int = 0) -> SanaPipeline:
    """The pipeline, with Euler's scheduler instead of the released folders' multistep solver."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = gemma_tokenizer()
        gemma = Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        transformer = SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
            qk_norm="rms_norm_across_heads",
        )
        pipeline = SanaPipeline(
            tokenizer=tokenizer,
            text_encoder=Gemma2Model(gemma).eval(),
            vae=deep_compression_autoencoder(),
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        )
        enlarge(transformer, pipeline.text_encoder)
    return pipeline


def miniature_sana(seed: int = 0) -> Sana:
    """The model around `miniature_sana_pipeline`; without the instruction, which is longer than any prompt."""
    return Sana(miniature_sana_pipeline(seed), max_sequence_length=LENGTH, instruction=False, source="miniature")
