"""What all families have in common: one frozen diffusers pipeline around one trained network.

A family is a subclass in a file of its own that says which pipeline, which network, how a prompt is encoded and how the
network is called; see `DiffusionPipelineModel`. Diffusers' own pipeline does everything else.

Precision: text encoders and the frozen network in `model.dtype`; the network in float32 when all of its weights are
trained; the autoencoder always in float32 (it overflows in float16); outputs leave in float32.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import diffusers
import diffusers.utils.logging
import torch
import transformers.utils.logging
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.base import Conditioning, PromptCache
from diffusion.models.files import misfit
from diffusion.models.locate import ModelError, locate
from diffusion.models.lora import save_lora
from diffusion.models.parking import Parking
from diffusion.models.targets import LoraTargets
from diffusion.paths import FlowPath
from diffusion.paths import Path as NoisePath

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.engine.adapters import Policy
    from diffusion.config import Model


class DiffusionPipelineModel(ABC):
    """A pipeline whose network is trained; implements `diffusion.models.base.DiffusionModel`.

    Attributes:
        pipeline_class: name of the diffusers class that a folder must hold.
        part: the pipeline's component that is trained.
        targets: the named sets of layers for adapters.

    Args:
        pipeline: the loaded pipeline; its modules are frozen and set to evaluation here.
        source: where it came from, for messages.
    """

    pipeline_class: ClassVar[str]
    part: ClassVar[str] = "transformer"
    targets: ClassVar[LoraTargets]

    def __init__(self, pipeline: Any, source: str = "") -> None:  # Any: each family's own pipeline class
        self.pipeline = pipeline
        self.source = source
        self.path: NoisePath = self._path()
        pipeline.set_progress_bar_config(disable=True)
        for module in self._modules():
            module.requires_grad_(False).eval()
        if pipeline.vae.dtype != torch.float32:
            pipeline.vae.to(torch.float32)
        self._weights = weights_hash(self._last_weight())
        self._parking = Parking((), torch.Tensor.clone)
        self.encode = PromptCache(self._encode_one, lambda: self._working(*self._text_encoders()))

    # --- loading ------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, config: Model, device: torch.device | str = "cpu") -> Self:
        """Load what the configuration names; safetensors only, no remote code.

        Raises:
            ModelError: missing folder, not a diffusers folder, another pipeline class, or a hub id that cannot be had.
        """
        source = locate(config.path, cls.pipeline_class)
        frozen = getattr(torch, config.dtype)
        dtypes = {"default": frozen, "vae": torch.float32}
        if config.lora is None:
            dtypes[cls.part] = torch.float32  # trained weights are float32
        try:
            with quiet():
                pipeline = cls._read(config, source, dtypes)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model.path {config.path!r} could not be loaded: {error}",
                way_out="Check the name, your access rights and the connection, or give a local diffusers folder.",
            ) from error
        model = cls._around(pipeline, config)
        model.place(torch.device(device), config.offload)
        return model

    def place(self, device: torch.device, offload: Literal["none", "idle"] = "none") -> None:
        """Move the pipeline to a device; under `idle` text encoders and autoencoder only while they work.

        On the CPU there is nowhere to go from, and `idle` changes nothing.
        """
        if offload == "none" or device.type == "cpu":
            self.pipeline.to(device)
            return
        self.network.to(device)
        self._parking = Parking.at(device, [part for part in self._modules() if part is not self.network])

    @classmethod
    def _around(cls, pipeline: Any, config: Any) -> Self:  # Any: each family's own pipeline and settings
        """The model around a loaded pipeline, with whatever else the family's settings say."""
        return cls(pipeline, config.path)

    @classmethod
    def _read(cls, config: Model, source: str, dtypes: dict[str, torch.dtype]) -> Any:
        loader = getattr(diffusers, cls.pipeline_class)
        # One dict (Any: JSON values); diffusers annotates what other arguments would return.
        index = cast("dict[str, Any]", loader.load_config(source, revision=config.revision))
        # diffusers insists on hearing that a part which the folder marks as absent (T5) is absent.
        absent = {name: None for name, part in index.items() if isinstance(part, list) and part[0] is None}
        absent |= cls._left_out(config)
        return loader.from_pretrained(source, revision=config.revision, dtype=dtypes, use_safetensors=True, **absent)

    @classmethod
    def _left_out(cls, config: Any) -> dict[str, Any]:  # Any: each family's own settings
        """Arguments of `from_pretrained` that leave out what these settings do not need: components as None."""
        return {}

    # --- the protocol -------------------------------------------------------------------------------------------------

    @property
    def network(self) -> nn.Module:
        """The trained network."""
        return getattr(self.pipeline, self.part)

    @property
    def device(self) -> torch.device:
        """Where the network lives, and where everything else works."""
        return next(self.network.parameters()).device

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
        """The network's output m at time t, float32, under classifier-free guidance.

            m = m_uncond + guidance_scale (m_cond - m_uncond)

        Both branches go through the network in one batch and both carry gradient, unless the unconditional one is to be
        detached: then it has a pass of its own, without a graph. At guidance_scale 1 the formula is m_cond, and the
        unconditional pass is skipped.

        Args:
            network: the network, bare or wrapped (DDP, adapter).
            x_t: noisy latents.
            t: one time per sample, 1 = noise.
            conditioning: one row per sample.
            guidance_scale: classifier-free guidance.
            detach_unconditional: no gradient through m_uncond.
        """
        if guidance_scale == 1.0:
            return self._forward(network, x_t, t, conditioning).float()
        unconditional = self._unconditional(conditioning)
        if detach_unconditional:
            with torch.no_grad():
                without = self._forward(network, x_t, t, unconditional).float()
            return self._guided(without, self._forward(network, x_t, t, conditioning).float(), guidance_scale)
        prompts = Conditioning.cat([unconditional, conditioning])
        both = self._forward(network, torch.cat([x_t, x_t]), torch.cat([t, t]), prompts).float()
        without, with_prompt = both.chunk(2)
        return self._guided(without, with_prompt, guidance_scale)

    def latent_shape(self, resolution: int | None = None) -> tuple[int, int, int]:
        """(channels, height, width) of one latent.

        Raises:
            ModelError: the resolution is no multiple of autoencoder factor x patch size.
        """
        channels, side = self._latent_size()
        factor, patch = self.pipeline.vae_scale_factor, self._patch_size()
        if resolution is None:
            return (channels, side, side)
        if (problem := misfit(resolution, factor * patch)) is not None:
            raise ModelError(problem[0], way_out=problem[1])
        return (channels, resolution // factor, resolution // factor)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c h w"]) -> list[Image]:
        """Pictures of the latents; the autoencoder runs in float32, out of autocast's reach."""
        vae, device = self.pipeline.vae, self.device
        with self._working(vae), torch.autocast(device.type, enabled=False):
            pixels = self._decode_latents(self._unscaled(latents.to(device, torch.float32)))
        # "pil" always gives a list; diffusers annotates all its output types at once.
        return cast("list[Image]", self.pipeline.image_processor.postprocess(pixels, output_type="pil"))

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image]) -> Float[Tensor, "n c h w"]:
        """Clean latents of pictures of one size, the inverse of `decode`: the autoencoder's mode, float32."""
        device = self.device
        pixels = self.pipeline.image_processor.preprocess(list(images)).to(device, torch.float32)
        with self._working(self.pipeline.vae), torch.autocast(device.type, enabled=False):
            return self._scaled(self._encode_pixels(pixels))

    def lora_targets(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Module-name endings of `attention`, `feed_forward` or `all_linear` (every linear layer of the blocks)."""
        if not isinstance(names, str):
            return tuple(names)
        return self.targets.named(names, [n for n, m in self.network.named_modules() if isinstance(m, nn.Linear)])

    def save(self, folder: Path, policy: Policy) -> Path:
        """Write the trained weights as diffusers reads them.

        LoRA: `pytorch_lora_weights.safetensors` with its rank and alpha, for `pipe.load_lora_weights(folder)`. Full
        fine-tuning: the whole pipeline, for `from_pretrained(folder)` (which must be told of an absent T5).
        """
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(policy.module, "peft_config"):
            save_lora(policy, folder, part=self.part)
        else:
            with quiet():
                self.pipeline.save_pretrained(folder, safe_serialization=True)
        return folder

    def fingerprint(self) -> dict[str, str]:
        """Family and size of the network, and a hash of its last layer as loaded; where it lies does not matter."""
        return {"pipeline": self.pipeline_class, **self._size(), "weights": self._weights}

    # --- what a family says -------------------------------------------------------------------------------------------

    @abstractmethod
    def times(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """See `DiffusionModel.times`."""

    @abstractmethod
    def _encode_one(self, prompt: str) -> Conditioning:
        """One prompt, one row; under no_grad."""

    @abstractmethod
    def _forward(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """One call of the network in its own precision, without guidance: casts, timestep units, packing."""

    def _unconditional(self, like: Conditioning) -> Conditioning:
        """What the network is told in place of the prompts of `like` in the pass without them: the empty prompt."""
        return self.encode([""] * len(like))

    def _guided(self, without: Tensor, with_prompt: Tensor, guidance_scale: float) -> Tensor:
        """Classifier-free guidance of the network's two outputs, as the family's pipeline does it."""
        return without + guidance_scale * (with_prompt - without)

    def _path(self) -> NoisePath:
        return FlowPath()

    def _config(self) -> Any:  # what diffusers read from the network's config.json
        return getattr(self.pipeline, self.part).config

    def _latent_size(self) -> tuple[int, int]:
        """Channels and native side of a latent."""
        config = self._config()
        return config.in_channels, config.sample_size

    def _patch_size(self) -> int:
        """Latent pixels along a side of what the network takes as one token, or halves away on its way down."""
        return self._config().patch_size

    def _unscaled(self, latents: Tensor) -> Tensor:
        """What the autoencoder takes: latents without the pipeline's scaling and shift."""
        config = self.pipeline.vae.config
        return latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)

    def _scaled(self, latents: Tensor) -> Tensor:
        """Inverse of `_unscaled`."""
        config = self.pipeline.vae.config
        return (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor

    def _decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels in [-1, 1] of the autoencoder's own latents."""
        return self.pipeline.vae.decode(latents, return_dict=False)[0]

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        """The autoencoder's own latents of pixels in [-1, 1]."""
        return self.pipeline.vae.encode(pixels).latent_dist.mode()

    def _last_weight(self) -> Tensor:
        """A weight that differs between checkpoints, for the fingerprint."""
        return self.network.get_submodule("proj_out").get_parameter("weight")

    def _size(self) -> dict[str, str]:
        config = self._config()
        return {"layers": str(config.num_layers), "width": str(config.num_attention_heads * config.attention_head_dim)}

    def _modules(self) -> list[nn.Module]:
        return [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]

    def _text_encoders(self) -> list[nn.Module]:
        return [part for part in self._modules() if part is not self.network and part is not self.pipeline.vae]

    @contextmanager
    def _working(self, *modules: nn.Module) -> Iterator[None]:
        """Inside, these modules are on the device, without the notes that diffusers writes for each cut prompt."""
        with self._parking.borrowed(modules), errors_only():
            yield


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of the libraries: loading is one line of ours."""
    libraries = [diffusers.utils.logging, transformers.utils.logging]
    were_on = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, was_on in zip(libraries, were_on, strict=True):
            if was_on:
                library.enable_progress_bar()


@contextmanager
def errors_only() -> Iterator[None]:
    """No warnings of diffusers: it writes one for each prompt that is cut, which a run has counted at its start."""
    before = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.utils.logging.set_verbosity(before)


def weights_hash(weight: Tensor) -> str:
    """Hash of a weight rounded to bfloat16, so that loading in another precision gives the same."""
    rounded = weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
    return hashlib.blake2b(rounded.numpy().tobytes(), digest_size=8).hexdigest()
