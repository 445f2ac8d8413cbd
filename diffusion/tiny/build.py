"""The parts of the embedded pipeline, untrained: configurations, tokenizer, and how they are put together.

Same classes as Stable Diffusion 3.5; only the sizes differ.

    AutoencoderKL                  64 x 64 x 3 -> 8 x 8 x 16
    CLIPTextModelWithProjection    twice, width 64; hidden states are concatenated to 128, pooled outputs too
    SD3Transformer2DModel          4 layers x width 128, 16 picture tokens (patch size 2), qk RMS norm
    FlowMatchEulerDiscreteScheduler
    T5                             absent (None)

**Context without T5.** The stock pipeline puts `max_sequence_length` zero vectors (256 by default) where the T5 tokens
would be. They carry nothing and cost four fifths of the transformer's time, so rollouts should pass
`max_sequence_length=0`. Training sees both cases (see `flow_matching`), so that `pipe(prompt)` works as well.
"""

import itertools
from collections.abc import Sequence
from typing import cast

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from diffusion.tiny import world

CONTEXT_TOKENS = 14  # the longest caption: 11 words and commas, a beginning and an end
TEXT_WIDTH = 64
WIDTH = 128
HEADS = 4
LAYERS = 4
LATENT_CHANNELS = 16
LATENT_SIDE = 8
SHIFT = 1.0

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_T5_PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]


def autoencoder() -> AutoencoderKL:
    """64 x 64 pictures to 8 x 8 latents of 16 channels; scale and shift are set after measuring the latents."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        # One entry per level; diffusers annotates tuples of length one.
        down_block_types=cast("tuple[str]", ("DownEncoderBlock2D",) * 4),
        up_block_types=cast("tuple[str]", ("UpDecoderBlock2D",) * 4),
        block_out_channels=cast("tuple[int]", (16, 32, 32, 64)),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=world.SIDE,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def transformer() -> SD3Transformer2DModel:
    """The velocity network, with DiT's start: modulations and the last layer are zero, so blocks begin as identity."""
    network = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=LAYERS,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )
    for name, parameter in network.named_parameters():
        if "norm1" in name or name.startswith(("norm_out", "proj_out")):
            nn.init.zeros_(parameter)
    return network


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A causal CLIP text model of three layers; the pipeline reads the second and the pooled end token."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        # transformers finds these attributes by name and annotates them together with lists and texts.
        bos_token_id=cast("int", tokenizer.bos_token_id),
        eos_token_id=cast("int", tokenizer.eos_token_id),
        pad_token_id=cast("int", tokenizer.pad_token_id),
    )
    return CLIPTextModelWithProjection(config)


def _byte_letters() -> list[str]:
    """The 256 printable letters by which byte-level BPE writes the bytes 0..255, in the order of the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _split(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word: merge the neighbours of lowest rank until no known pair is left."""
    pieces = [*word[:-1], f"{word[-1]}</w>"]
    while True:
        pairs = [pair for pair in itertools.pairwise(pieces) if pair in ranks]
        if not pairs:
            return pieces
        k = list(itertools.pairwise(pieces)).index(min(pairs, key=lambda pair: ranks[pair]))
        pieces[k : k + 2] = [pieces[k] + pieces[k + 1]]


def merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges under which every given word becomes one token.

    Words are taken one after the other; each is split by the merges so far, and its first two pieces become the next
    merge until it is whole. Later merges rank below earlier ones, so they never change a word that is already whole.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(pieces := _split(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer: each word of the world is one token; anything else falls back to bytes, never to an error."""
    letters = _byte_letters()
    pairs = merges(world.words())
    pieces = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs), _BEGIN, _END])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    rules = cast("list[str]", pairs)  # transformers' own merges are pairs, too, whatever its annotation
    return CLIPTokenizer(vocab=vocabulary, merges=rules, model_max_length=CONTEXT_TOKENS)


def silent_t5() -> T5EncoderModel:
    """A T5 encoder that says nothing: its last norm has weight zero, so its output is exactly zero for every text.

    That is what the stock pipeline puts in the place of an absent T5. It is here because diffusers 0.42 refuses to load
    a Stable Diffusion 3 folder without one unless it is told so by hand.
    """
    encoder = T5EncoderModel(
        T5Config(vocab_size=len(_T5_PIECES), d_model=2 * TEXT_WIDTH, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    )
    nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return encoder


def t5_tokenizer() -> T5Tokenizer:
    """A tokenizer for it, to which every word is unknown."""
    return T5Tokenizer(vocab=_T5_PIECES, extra_ids=0, model_max_length=256)


def assemble(
    vae: AutoencoderKL,
    transformer: SD3Transformer2DModel,
    text_encoders: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
) -> StableDiffusion3Pipeline:
    """The pipeline object around trained parts."""
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        vae=vae,
        text_encoder=text_encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=text_encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=silent_t5(),
        tokenizer_3=t5_tokenizer(),
    )
