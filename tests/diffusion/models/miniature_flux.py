"""A random FLUX.1 pipeline: 16 x 16 pictures, 8 x 8 x 4 latents, 16 tokens, a double and a single block of width 16.

Real classes of diffusers and transformers, real tokenizers; only sizes differ. Weights follow from the seed.
"""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from diffusion.models.flux import Flux
from diffusion.tiny import world
from diffusion.tiny.build import tokenizer as word_tokenizer

from .miniature import CONTEXT, autoencoder, enlarge

RESOLUTION = 16  # the pipeline itself would draw 256 x 256: its own size is a constant, not a setting
T5_LENGTH = 12


def t5_tokenizer() -> T5Tokenizer:
    """Each word of the drawn world is a piece; anything else is unknown."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in world.words())]
    return T5Tokenizer(
        vocab=[(piece, -float(number)) for number, piece in enumerate(pieces)], extra_ids=0, model_max_length=T5_LENGTH
    )


def miniature_flux_pipeline(seed: int = 0, *, guidance_embeds: bool = True, dynamic: bool = True) -> FluxPipeline:
    """The pipeline: dev-like by default; schnell has no guidance input and no shift."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, tokenizer_2 = word_tokenizer(), t5_tokenizer()
        clip = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        t5 = T5Config(vocab_size=len(tokenizer_2), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(2, 2, 4),
        )
        pipeline = FluxPipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=dynamic, shift=3.0 if dynamic else 1.0, base_shift=0.5, max_shift=1.15
            ),
            vae=autoencoder(),
            text_encoder=CLIPTextModel(clip),
            tokenizer=tokenizer,
            text_encoder_2=T5EncoderModel(t5).eval(),  # as a loaded one: it has dropout
            tokenizer_2=tokenizer_2,
        )
        enlarge(transformer, pipeline.text_encoder, pipeline.text_encoder_2)
    return pipeline


def miniature_flux(seed: int = 0, **options: bool) -> Flux:
    """The model around `miniature_flux_pipeline`."""
    return Flux(miniature_flux_pipeline(seed, **options), max_sequence_length=T5_LENGTH, source="miniature")
