"""Which model is trained: one dataclass per family. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from align.config.numbers import Count
from align.config.paths import ModelPath
from align.config.shared import LoraConfig


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
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights of the transformer."""


Model = Sd3Model
