"""What the settings in a model folder say of sizes, before anything heavy is imported. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any, TypeAlias

from diffusion.config.models import FluxModel, QwenImageModel, SdxlModel, StableDiffusionModel

CLIP_TOKENS = 77
NATIVE_SIDE = 128  # latent pixels of FLUX and Qwen-Image, whose networks do not say
PACKED = 2  # their latent pixels along a side of a token

Json: TypeAlias = Mapping[str, Any]  # JSON values


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Settings in a model folder.

    Attributes:
        network: of the trained network.
        autoencoder: of the autoencoder.
        clip_tokens: most tokens of the first tokenizer.
    """

    network: Json
    autoencoder: Json
    clip_tokens: int = CLIP_TOKENS

    @classmethod
    def read(cls, folder: Path, part: str) -> ModelFiles:
        """The settings of a pipeline folder whose trained network is the component `part`.

        Raises:
            OSError: no such file.
            ValueError: no JSON.
        """
        tokenizer = folder / "tokenizer" / "tokenizer_config.json"
        limit = _json(tokenizer).get("model_max_length", CLIP_TOKENS) if tokenizer.is_file() else CLIP_TOKENS
        return cls(
            network=_json(folder / part / "config.json"),
            autoencoder=_json(folder / "vae" / "config.json"),
            clip_tokens=min(limit, CLIP_TOKENS),
        )

    def side(self, resolution: int | None) -> int:
        """Latent pixels along a side."""
        if resolution is None:
            return self.network.get("sample_size") or NATIVE_SIDE
        return resolution // self.factor()

    def factor(self) -> int:
        """Pixels along a side of a latent pixel: the autoencoder halves as often as its settings list."""
        halvings = next(
            len(self.autoencoder[name]) - fewer
            for name, fewer in (
                ("block_out_channels", 1),
                ("encoder_block_out_channels", 1),
                ("temperal_downsample", 0),
            )
            if name in self.autoencoder
        )
        return 2**halvings


@singledispatch
def latent_unit(model: Any, files: ModelFiles) -> int:
    """Latent pixels along a side that a picture must have a multiple of (`Any`: the members of `Model`).

    Raises:
        KeyError: the folder's settings lack it.
    """
    return files.network["patch_size"]


@latent_unit.register
def _(model: FluxModel | QwenImageModel, files: ModelFiles) -> int:
    return PACKED


@latent_unit.register
def _(model: StableDiffusionModel | SdxlModel, files: ModelFiles) -> int:
    return halved_by(files.network["block_out_channels"])


def halved_by(levels: tuple[int, ...] | list[int]) -> int:
    """Pixels along a side of what becomes one pixel at a U-Net's lowest level: every level but the last halves.

    Args:
        levels: its widths.
    """
    return 2 ** (len(levels) - 1)


def misfit(resolution: int, unit: int) -> tuple[str, str] | None:
    """Message and way out where a resolution is no multiple of `unit` pixels."""
    if resolution % unit == 0:
        return None
    nearest = max(unit, round(resolution / unit) * unit)
    return (
        f"rollout.resolution is {resolution}; this model draws multiples of {unit} pixels.",
        f"The nearest possible resolution is {nearest}.",
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
