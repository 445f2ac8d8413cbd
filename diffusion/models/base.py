"""What the methods ask of a text-to-image model. One family per file implements it.

Time: t in [0, 1], t = 1 is noise, t = 0 is the clean image. Latents are what the denoiser sees, after the pipeline's
scaling and shift, always as a picture [c, h, w], also where the network itself takes packed tokens. What the network's
output means is the business of `path` (diffusion.paths): a velocity for flow models, a noise for most older ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.paths import Path as NoisePath

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.engine.adapters import Policy


@dataclass(frozen=True)
class Conditioning:
    """What the network is told about p prompts: named tensors whose first axis is the prompt.

    Attributes:
        tensors: for SD3 `embeddings` [p, tokens, d] and `pooled` [p, e].
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def select(self, rows: Int[Tensor, "n"] | Sequence[int]) -> Self:
        """Rows `rows`, in that order; a row may be taken many times."""
        device = next(iter(self.tensors.values())).device
        index = torch.as_tensor(rows, dtype=torch.int64, device=device)
        return type(self)({name: tensor[index] for name, tensor in self.tensors.items()})

    @classmethod
    def cat(cls, parts: Sequence[Conditioning]) -> Self:
        """The rows of all parts, one part after the other."""
        return cls({name: torch.cat([part[name] for part in parts]) for name in parts[0].tensors})


class DiffusionModel(Protocol):
    """A frozen pipeline around one trainable network."""

    @property
    def device(self) -> torch.device:
        """Where the pipeline lives."""
        ...

    @property
    def network(self) -> nn.Module:
        """The denoiser; `align.engine.adapters.Policy` makes its weights trainable."""
        ...

    @property
    def path(self) -> NoisePath:
        """From clean latents to noise, and what `predict` says about both."""
        ...

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row per given prompt. Each text is encoded alone, so that a row never depends on its neighbours."""
        ...

    def predict(
        self,
        network: nn.Module,
        x_t: Float[Tensor, "n c h w"],
        t: Float[Tensor, "n"],
        conditioning: Conditioning,
        guidance_scale: float = 1.0,
        *,
        detach_unconditional: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Output in float32 and in the terms of `path`, with gradient if grad mode is on.

        `guidance_scale` 1 skips the unconditional pass of a model with classifier-free guidance;
        `detach_unconditional` keeps that pass out of the graph.
        """
        ...

    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """The family's own sampling times, decreasing to 0; shape num_inference_steps + 1, float32 on the CPU.

        Flow models begin at exactly 1; the others at the noisiest time of their leading or trailing spacing, and their
        time 0 is discrete time 0, which is not quite clean (`DdpmPath`).
        """
        ...

    def latent_shape(self, resolution: int | None = None) -> tuple[int, int, int]:
        """(channels, height, width) of one latent; `resolution` in pixels, None for the model's own."""
        ...

    def decode(self, latents: Float[Tensor, "n c h w"]) -> list[Image]:
        """Pictures, the autoencoder in float32."""
        ...

    def encode_images(self, images: Sequence[Image]) -> Float[Tensor, "n c h w"]:
        """Clean latents of pictures of one size, the inverse of `decode`."""
        ...

    def lora_targets(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Module-name endings of a named set (`attention`, `feed_forward`, `all_linear`), or `names` themselves."""
        ...

    def save(self, folder: Path, policy: Policy) -> Path:
        """Write the trained weights as diffusers reads them: a LoRA file, or after full fine-tuning the pipeline."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """What makes checkpoints of this model incompatible with another's."""
        ...


class PromptCache:
    """Encoded prompts by their text; the least recently used go when more than `limit` bytes are held.

    Text encoders are frozen, so an encoding is a function of its text alone.

    Args:
        encode_one: encodes a text.
        working: a context in which `encode_one` can be called; entered once for all new texts of a call, and not at all
            if there are none.
        limit: bytes.
    """

    def __init__(
        self,
        encode_one: Callable[[str], Conditioning],
        working: Callable[[], AbstractContextManager[object]] = nullcontext,
        limit: int = 512 * 2**20,
    ) -> None:
        self._encode_one = encode_one
        self._working = working
        self._limit = limit
        self._rows: OrderedDict[str, Conditioning] = OrderedDict()
        self._bytes = 0

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt; each distinct text is encoded once."""
        distinct = dict.fromkeys(prompts)
        with nullcontext() if all(text in self._rows for text in distinct) else self._working():
            rows = {text: self._lookup(text) for text in distinct}
        self._evict()
        return Conditioning.cat([rows[text] for text in prompts])

    def __len__(self) -> int:
        return len(self._rows)

    def _lookup(self, text: str) -> Conditioning:
        if text in self._rows:
            self._rows.move_to_end(text)
        else:
            self._rows[text] = self._encode_one(text)
            self._bytes += _num_bytes(self._rows[text])
        return self._rows[text]

    def _evict(self) -> None:
        while self._bytes > self._limit and self._rows:
            _, row = self._rows.popitem(last=False)
            self._bytes -= _num_bytes(row)


def _num_bytes(row: Conditioning) -> int:
    return sum(tensor.nbytes for tensor in row.tensors.values())
