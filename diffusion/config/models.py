"""Which model is trained: one dataclass per family. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import Count, PositiveFloat, PositiveInt
from align.config.paths import ModelPath
from align.config.shared import LoraConfig


@dataclass(frozen=True, kw_only=True)
class StableDiffusionModel:
    """Stable Diffusion 1.x and 2.x, predicting noise or v, and every pipeline folder of that class."""

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    """Selects this model family."""
    path: ModelPath
    """A diffusers folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen parts: text encoder, and the U-Net under LoRA; the VAE decodes in float32."""
    offload: Literal["none", "idle"] = "idle"
    """`idle`: text encoders and VAE wait in the computer's memory and are on the accelerator only while they work."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """A prompt whose end reaches no text encoder: refused before the run, or cut off there."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the U-Net."""


@dataclass(frozen=True, kw_only=True)
class SdxlModel:
    """Stable Diffusion XL, and every pipeline folder of that class; no refiner."""

    kind: Literal["sdxl"] = "sdxl"
    """Selects this model family."""
    path: ModelPath
    """A diffusers folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen parts: text encoders, and the U-Net under LoRA; the VAE decodes in float32."""
    offload: Literal["none", "idle"] = "idle"
    """`idle`: text encoders and VAE wait in the computer's memory and are on the accelerator only while they work."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """A prompt whose end reaches no text encoder: refused before the run, or cut off there."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the U-Net."""


@dataclass(frozen=True, kw_only=True)
class Sd3Model:
    """Stable Diffusion 3 and 3.5, and every pipeline folder of that class, the embedded one included."""

    kind: Literal["sd3"] = "sd3"
    """Selects this model family."""
    path: ModelPath = "builtin:tiny"
    """A diffusers folder, a hub id, or `builtin:tiny` for the embedded model."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen parts: text encoders, and the transformer under LoRA; the VAE decodes in float32."""
    max_sequence_length: Count | None = None
    """Tokens of the T5 part of the context. 0 leaves T5 out; `null` takes the pipeline's 256 (embedded model: 0)."""
    shift: PositiveFloat | None = None
    """Sample on evenly spaced times shifted by this; `null` takes the schedule that the pipeline itself would use."""
    offload: Literal["none", "idle"] = "idle"
    """`idle`: text encoders and VAE wait in the computer's memory and are on the accelerator only while they work."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """A prompt whose end reaches no text encoder: refused before the run, or cut off there."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the transformer."""


@dataclass(frozen=True, kw_only=True)
class FluxModel:
    """FLUX.1 (dev, schnell), and every pipeline folder of that class.

    `guidance_scale` is an input of the dev network, so it costs no second pass; schnell takes none.
    """

    kind: Literal["flux"] = "flux"
    """Selects this model family."""
    path: ModelPath
    """A diffusers folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of the frozen parts: text encoders, and the transformer under LoRA; the VAE decodes in float32."""
    max_sequence_length: PositiveInt = 512
    """T5 tokens of a prompt, padding included. The network sees the padding: schnell was made with 256."""
    shift: PositiveFloat | None = None
    """Sample on evenly spaced times shifted by this; `null` takes the schedule that the pipeline itself would use."""
    offload: Literal["none", "idle"] = "idle"
    """`idle`: text encoders and VAE wait in the computer's memory and are on the accelerator only while they work."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """A prompt whose end reaches no text encoder: refused before the run, or cut off there."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the transformer."""


@dataclass(frozen=True, kw_only=True)
class SanaModel:
    """Sana and Sana 1.5, and every pipeline folder of that class."""

    kind: Literal["sana"] = "sana"
    """Selects this model family."""
    path: ModelPath
    """A diffusers folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of the frozen parts: text encoder, and the transformer under LoRA; the VAE decodes in float32."""
    max_sequence_length: PositiveInt = 300
    """Tokens of a prompt, without the instruction; shorter ones are padded and masked."""
    instruction: bool = True
    """Put the pipeline's own instruction in front of every prompt, as its own call does."""
    offload: Literal["none", "idle"] = "idle"
    """`idle`: text encoders and VAE wait in the computer's memory and are on the accelerator only while they work."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """A prompt whose end reaches no text encoder: refused before the run, or cut off there."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the transformer."""


@dataclass(frozen=True, kw_only=True)
class QwenImageModel:
    """Qwen-Image, and every pipeline folder of that class."""

    kind: Literal["qwen_image"] = "qwen_image"
    """Selects this model family."""
    path: ModelPath
    """A diffusers folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of the frozen parts: text encoder, and the transformer under LoRA; the VAE decodes in float32."""
    max_sequence_length: PositiveInt = 512
    """Tokens of a prompt, 5 of the chat template included; shorter ones are padded and masked."""
    shift: PositiveFloat | None = None
    """Sample on evenly spaced times shifted by this; `null` takes the schedule that the pipeline itself would use."""
    offload: Literal["none", "idle"] = "idle"
    """`idle`: text encoders and VAE wait in the computer's memory and are on the accelerator only while they work."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """A prompt whose end reaches no text encoder: refused before the run, or cut off there."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the transformer."""


Model = Annotated[
    StableDiffusionModel | SdxlModel | Sd3Model | FluxModel | SanaModel | QwenImageModel, Field(discriminator="kind")
]

GUIDANCE_AS_INPUT = (FluxModel,)
"""Families whose network takes the guidance scale as an input: one pass at any scale."""
