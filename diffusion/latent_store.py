"""Latents of stored pictures, encoded once: in memory up to a limit, and on disk for later runs if asked to.

    bytes of a file -> picture -> shorter side scaled to the resolution, middle cut out -> latent

Pictures are encoded one at a time, so that a latent never depends on what it shares a batch with: a resumed run, whose
memory is empty, finds the very same numbers. On disk a latent is named by the content of the picture file, the size and
a fingerprint of the autoencoder; a file of another model is never taken.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.errors import AlignError
from diffusion.config.image_data import ImageSource
from diffusion.models.base import DiffusionModel
from diffusion.stored_pictures import StoredPictures, Unusable

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "latent"
LARGE = 1024
"""A number of pixels that every model family can draw."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Latents of some rows.

    Attributes:
        latents: one for each picture of a row: one, or the two of a pair, the better first.
        usable: whether the row's pictures could be read; the latents of the others are 0.
        problems: place and reason of each row that could not.
    """

    latents: Float[Tensor, "n s c h w"]
    usable: Bool[Tensor, "n"]
    problems: tuple[str, ...]


class LatentStore:
    """Latents by row number.

    Args:
        pictures: the rows.
        model: encodes.
        config: limits and places of the store.
        resolution: side in pixels; None takes the model's own.
    """

    def __init__(
        self, pictures: StoredPictures, model: DiffusionModel, config: ImageSource, resolution: int | None
    ) -> None:
        self._pictures, self._model = pictures, model
        self._side = resolution or native_resolution(model)
        self._shape = model.latent_shape(resolution)
        self._limit = config.cache_megabytes * 2**20
        self._folder = None if config.cache_folder is None else Path(config.cache_folder)
        self._autoencoder = "" if self._folder is None else autoencoder_fingerprint(model, self._side)
        self._rows: OrderedDict[int, Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, rows: Sequence[int]) -> Encoded:
        """Latents of these rows, float32 on the model's device."""
        found, problems = [], []
        for row in rows:
            try:
                found.append(self._lookup(row))
            except Unusable as problem:
                problems.append(f"{self._pictures.place(row)}: {problem}")
                found.append(None)
        empty = torch.zeros(len(self._pictures.layout.pictures), *self._shape)
        latents = torch.stack([empty if latent is None else latent for latent in found])
        return Encoded(
            latents=latents.to(self._model.device),
            usable=torch.tensor([latent is not None for latent in found]),
            problems=tuple(problems),
        )

    def _lookup(self, row: int) -> Float[Tensor, "s c h w"]:
        if row in self._rows:
            self._rows.move_to_end(row)
            return self._rows[row]
        latents = torch.cat([self._of_file(content) for content in self._pictures.contents(row)])
        self._rows[row] = latents
        self._bytes += latents.nbytes
        while self._bytes > self._limit and len(self._rows) > 1:
            _, oldest = self._rows.popitem(last=False)
            self._bytes -= oldest.nbytes
        return latents

    def _of_file(self, content: bytes) -> Float[Tensor, "1 c h w"]:
        path = None if self._folder is None else self._path(self._folder, content)
        kept = None if path is None else _load(path, (1, *self._shape))
        if kept is not None:
            return kept
        latent = self._model.encode_images([fitted(open_picture(content), self._side)]).float().cpu()
        if path is not None:
            _save(latent, path)
        return latent

    def _path(self, folder: Path, content: bytes) -> Path:
        name = hashlib.blake2b(content, digest_size=16, key=f"{self._autoencoder} {self._side}".encode()).hexdigest()
        return folder / name[:2] / f"{name}.safetensors"


def open_picture(content: bytes) -> Image:
    """The picture in the bytes of a file, RGB.

    Raises:
        Unusable: it cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as file:
            return file.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise Unusable(f"no picture that can be read ({error})") from error


def fitted(image: Image, side: int) -> Image:
    """The picture with its shorter side scaled to `side` pixels, and of that the square in the middle."""
    from PIL import ImageOps

    return ImageOps.fit(image, (side, side), method=3)  # 3: bicubic


def native_resolution(model: DiffusionModel) -> int:
    """Side in pixels of the pictures that a model draws by itself."""
    return model.latent_shape(None)[1] * LARGE // model.latent_shape(LARGE)[1]


def autoencoder_fingerprint(model: DiffusionModel, side: int) -> str:
    """Hash of what the autoencoder makes of a fixed picture, coarse enough for the rounding of other machines.

    Where that misleads, a latent is encoded once more; one of another autoencoder is never taken.
    """
    from PIL import Image

    ramp = Image.linear_gradient("L").resize((side, side))
    picture = Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_90), ramp.point(lambda x: 255 - x)))
    latent = model.encode_images([picture]).float().cpu()
    return hashlib.blake2b((latent * 16).round().to(torch.int32).numpy().tobytes(), digest_size=8).hexdigest()


def _load(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """A kept latent; None where there is none that is whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        latent = load_file(path)[KEY]
    except (OSError, KeyError, SafetensorError):
        return None
    return latent if latent.shape == shape and latent.dtype == torch.float32 else None


def _save(latent: Tensor, path: Path) -> None:
    """Write whole or not at all: several processes and runs may share the folder."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({KEY: latent.contiguous()}, draft)
    os.replace(draft, path)


def refuse(problems: Sequence[str]) -> None:
    """Stop at pictures that cannot be read.

    Raises:
        AlignError: there are some.
    """
    if problems:
        raise AlignError(
            "\n".join(["stored pictures that cannot be used:", *problems]),
            "Repair or delete these rows, or leave them out with `algorithm.data.bad_rows: skip`.",
        )
