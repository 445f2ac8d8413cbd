"""Stable Diffusion 3 and 3.5: every diffusers folder of class `StableDiffusion3Pipeline`, the embedded model included.

Precision: text encoders and the frozen transformer in `model.dtype`; the transformer in float32 when all of its weights
are trained; the autoencoder always in float32 (it overflows in float16); velocities leave in float32.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.config import Sd3Model
from diffusion.models.base import Conditioning, PromptCache
from diffusion.models.locate import T5_TOKENS, ModelError, locate, t5_tokens
from diffusion.models.lora import save_lora
from diffusion.models.targets import ATTENTION, FEED_FORWARD

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.engine.adapters import Policy

TRAIN_TIMESTEPS = 1000.0  # the network is fed 1000 t


@contextmanager
def _quiet() -> Iterator[None]:
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


def _weights_hash(weight: Tensor) -> str:
    """Hash of a weight rounded to bfloat16, so that loading in another precision gives the same."""
    rounded = weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
    return hashlib.blake2b(rounded.numpy().tobytes(), digest_size=8).hexdigest()


class StableDiffusion3:
    """A frozen SD3-family pipeline around one trainable transformer; implements `diffusion.models.base.DiffusionModel`.

    Args:
        pipeline: the loaded pipeline; its modules are frozen and set to evaluation here.
        max_sequence_length: length of the T5 part of the context. Where there is no T5 the pipeline appends that many
            zero vectors; 0 leaves the part out.
        source: where the pipeline came from, for messages.
    """

    pipeline_class = "StableDiffusion3Pipeline"

    def __init__(
        self, pipeline: StableDiffusion3Pipeline, max_sequence_length: int = T5_TOKENS, source: str = ""
    ) -> None:
        self.pipeline = pipeline
        self.source = source
        self.max_sequence_length = max_sequence_length
        pipeline.set_progress_bar_config(disable=True)
        for module in self._modules():
            module.requires_grad_(False).eval()
        if pipeline.vae.dtype != torch.float32:
            pipeline.vae.to(torch.float32)
        self._weights = _weights_hash(pipeline.transformer.proj_out.weight)
        self.encode = PromptCache(self._encode_one)

    @classmethod
    def load(cls, config: Sd3Model, device: torch.device | str = "cpu") -> Self:
        """Load what the configuration names; safetensors only, no remote code.

        Raises:
            ModelError: missing folder, not a diffusers folder, another pipeline class, or a hub id that cannot be had.
        """
        source = locate(config.path, cls.pipeline_class)
        frozen = getattr(torch, config.dtype)
        dtypes = {"default": frozen, "vae": torch.float32}
        if config.lora is None:
            dtypes["transformer"] = torch.float32  # trained weights are float32
        try:
            with _quiet():
                pipeline = cls._read(config, source, dtypes)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model.path {config.path!r} could not be loaded: {error}",
                way_out="Check the name, your access rights and the connection, or give a local diffusers folder.",
            ) from error
        return cls(pipeline.to(device), t5_tokens(config.path, config.max_sequence_length), config.path)

    @staticmethod
    def _read(config: Sd3Model, source: str, dtypes: dict[str, torch.dtype]) -> StableDiffusion3Pipeline:
        # One dict (Any: JSON values); diffusers annotates what other arguments would return.
        index = cast("dict[str, Any]", StableDiffusion3Pipeline.load_config(source, revision=config.revision))
        # diffusers insists on hearing that a part which the folder marks as absent (T5) is absent.
        absent = {name: None for name, part in index.items() if isinstance(part, list) and part[0] is None}
        if t5_tokens(config.path, config.max_sequence_length) == 0:
            absent |= {"text_encoder_3": None, "tokenizer_3": None}  # the largest part of all would have nothing to do
        return StableDiffusion3Pipeline.from_pretrained(
            source, revision=config.revision, dtype=dtypes, use_safetensors=True, **absent
        )

    @property
    def network(self) -> nn.Module:
        """The transformer."""
        return self.pipeline.transformer

    @property
    def device(self) -> torch.device:
        """Where the pipeline lives."""
        return self.pipeline.vae.device

    def predict(
        self,
        network: nn.Module,
        x_t: Float[Tensor, "n c h w"],
        t: Float[Tensor, "n"],
        conditioning: Conditioning,
        guidance_scale: float = 1.0,
    ) -> Float[Tensor, "n c h w"]:
        """Velocity v = noise - x0 at time t in [0, 1], float32.

            v = v_uncond + guidance_scale (v_cond - v_uncond)

        Both branches go through the network in one batch and both carry gradient. At guidance_scale 1 the formula is
        v_cond, and the unconditional pass is skipped.

        Args:
            network: the transformer, bare or wrapped (DDP, adapter).
            x_t: noisy latents.
            t: one time per sample; the network is fed 1000 t.
            conditioning: one row per sample.
            guidance_scale: classifier-free guidance.
        """
        if guidance_scale == 1.0:
            return self._velocity(network, x_t, t, conditioning)
        unconditional = self.encode([""] * len(x_t))
        both = self._velocity(
            network, torch.cat([x_t, x_t]), torch.cat([t, t]), Conditioning.cat([unconditional, conditioning])
        )
        without, with_prompt = both.chunk(2)
        return without + guidance_scale * (with_prompt - without)

    def sigmas(self, num_inference_steps: int, resolution: int | None = None) -> Float[Tensor, "t"]:
        """The scheduler's own sampling times, from 1 down to 0, as a copy of its float32 numbers.

        Raises:
            ModelError: the schedule does not begin at exactly 1, which the samplers rely on.
        """
        scheduler = copy.deepcopy(self.pipeline.scheduler)  # a fresh one: schedulers carry a step index
        options = {}
        if scheduler.config.get("use_dynamic_shifting", False):
            options["mu"] = self._mu(scheduler.config, resolution)
        scheduler.set_timesteps(num_inference_steps, **options)
        sigmas = scheduler.sigmas.detach().clone().to("cpu", torch.float32)
        if sigmas[0] != 1:
            raise ModelError(
                f"The scheduler {type(scheduler).__name__} of {self.source!r} begins at sigma {float(sigmas[0])}; "
                "expected exactly 1.",
                way_out="Use the pipeline's FlowMatchEulerDiscreteScheduler with its original configuration.",
            )
        return sigmas

    def latent_shape(self, resolution: int | None = None) -> tuple[int, int, int]:
        """(channels, height, width) of one latent.

        Raises:
            ModelError: the resolution is no multiple of autoencoder factor x patch size.
        """
        config = self.pipeline.transformer.config
        factor = self.pipeline.vae_scale_factor
        if resolution is None:
            return (config.in_channels, config.sample_size, config.sample_size)
        unit = factor * config.patch_size
        if resolution % unit or resolution < unit:
            nearest = max(unit, round(resolution / unit) * unit)
            raise ModelError(
                f"rollout.resolution is {resolution}; this model draws multiples of {unit} pixels.",
                way_out=f"The nearest possible resolution is {nearest}.",
            )
        return (config.in_channels, resolution // factor, resolution // factor)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c h w"]) -> list[Image]:
        """Pictures of the latents; the autoencoder runs in float32, out of autocast's reach."""
        vae = self.pipeline.vae
        z = latents.to(vae.device, torch.float32) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        with torch.autocast(vae.device.type, enabled=False):
            pixels = vae.decode(z, return_dict=False)[0]
        # "pil" always gives a list; diffusers annotates all its output types at once.
        return cast("list[Image]", self.pipeline.image_processor.postprocess(pixels, output_type="pil"))

    def lora_targets(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Module-name endings of `attention`, `feed_forward` or `all_linear` (every linear layer of the blocks)."""
        if not isinstance(names, str):
            return tuple(names)
        sets = {"attention": lambda: ATTENTION, "feed_forward": lambda: FEED_FORWARD, "all_linear": self._linear_layers}
        return sets[names]()

    def save(self, folder: Path, policy: Policy) -> Path:
        """Write the trained weights as diffusers reads them.

        LoRA: `pytorch_lora_weights.safetensors` with its rank and alpha, for `pipe.load_lora_weights(folder)`. Full
        fine-tuning: the whole pipeline, for `from_pretrained(folder)` (which must be told of an absent T5).
        """
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(policy.module, "peft_config"):
            save_lora(policy, folder)
        else:
            with _quiet():
                self.pipeline.save_pretrained(folder, safe_serialization=True)
        return folder

    def fingerprint(self) -> dict[str, str]:
        """Family and size of the network, and a hash of its last layer as loaded; where it lies does not matter."""
        config = self.pipeline.transformer.config
        return {
            "pipeline": self.pipeline_class,
            "layers": str(config.num_layers),
            "width": str(config.num_attention_heads * config.attention_head_dim),
            "weights": self._weights,
        }

    def _modules(self) -> list[nn.Module]:
        return [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> Conditioning:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=prompt,
            prompt_3=prompt,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        # Only the negative embeddings, left out here, may be None; diffusers annotates all four alike.
        return Conditioning({"embeddings": cast("Tensor", embeddings), "pooled": cast("Tensor", pooled)})

    def _velocity(self, network: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.pipeline.transformer.pos_embed.proj.weight.dtype  # of the base; adapters are always float32
        output = network(
            hidden_states=x_t.to(dtype),
            timestep=t.to(torch.float32) * TRAIN_TIMESTEPS,
            encoder_hidden_states=conditioning["embeddings"].to(dtype),
            pooled_projections=conditioning["pooled"].to(dtype),
            return_dict=False,
        )[0]
        return output.to(torch.float32)

    def _mu(self, config: dict, resolution: int | None) -> float:
        """Dynamic shift of SD3.5-style configurations: linear in the number of picture tokens."""
        _, height, width = self.latent_shape(resolution)
        tokens = height * width / self.pipeline.patch_size**2
        low, high = config["base_image_seq_len"], config["max_image_seq_len"]
        slope = (config["max_shift"] - config["base_shift"]) / (high - low)
        return config["base_shift"] + slope * (tokens - low)

    def _linear_layers(self) -> tuple[str, ...]:
        return tuple(
            name
            for name, module in self.pipeline.transformer.named_modules()
            if isinstance(module, nn.Linear) and name.startswith("transformer_blocks.")
        )
