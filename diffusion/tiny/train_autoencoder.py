"""Train the autoencoder of the embedded model, and prove with the reader that pictures survive the round trip.

Loss, for a picture x in [-1, 1], its reconstruction y and the posterior N(m, s^2) of its latent:

    mean over pixels of  w (|x - y| + (x - y)^2)  +  kl_weight * KL(N(m, s^2) || N(0, 1)) / latent size,
    w = 10 in the foreground, else 1.

The foreground weighs 10 times more, because a picture is mostly background and a plain L1 is content with grey blobs.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from diffusion.tiny import build, reward, world

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DecoderOutput
    from diffusers.models.modeling_outputs import AutoencoderKLOutput

FOREGROUND_WEIGHT = 10.0
KL_WEIGHT = 1e-3
Log = Callable[[dict[str, object]], None]


def to_unit(pictures: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n c h w"]:
    """8-bit levels to [-1, 1], channels first."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def foreground_weight(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """10 where a pixel differs visibly from the background, else 1."""
    background = torch.tensor(world.BACKGROUND, dtype=torch.float32).view(1, 3, 1, 1) / 127.5 - 1.0
    different = (pictures - background).abs().amax(dim=1, keepdim=True) > 0.05
    return 1.0 + (FOREGROUND_WEIGHT - 1.0) * different.float()


def autoencoder_loss(
    pictures: Float[Tensor, "n c h w"],
    decoded: Float[Tensor, "n c h w"],
    posterior: DiagonalGaussianDistribution,
    *,
    kl_weight: float = KL_WEIGHT,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The formula of the module's docstring, and its two terms as numbers for the log."""
    error = decoded - pictures
    reconstruction = (foreground_weight(pictures) * (error.abs() + error.square())).mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return reconstruction + kl_weight * kl, {"reconstruction": reconstruction.item(), "kl": kl.item()}


def train(
    pictures: UInt8[Tensor, "n h w c"], *, folder: Path, minutes: float, batch_size: int, learning_rate: float, log: Log
) -> AutoencoderKL:
    """Train for a time budget with a linear warm-up and a cosine decay over elapsed time; save to `folder`.

    Weights already in `folder` are the start, so a second call trains on.
    """
    torch.manual_seed(0)
    model = AutoencoderKL.from_pretrained(folder) if folder.exists() else build.autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    started, step = time.monotonic(), 0
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * float(np.cos(np.pi * progress)))
        batch = to_unit(pictures[torch.randint(len(pictures), (batch_size,), generator=generator)])
        with torch.autocast("cpu", torch.bfloat16):  # 1.8 times faster than float32 on a CPU that multiplies bfloat16
            moments = model.encoder(batch)
        posterior = DiagonalGaussianDistribution(moments.float())
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decode(model, posterior.sample(generator))
        loss, terms = autoencoder_loss(batch, decoded.float(), posterior)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            log({"stage": "autoencoder", "step": step, "minutes": progress * minutes, "loss": loss.item(), **terms})
        step += 1
    model.save_pretrained(folder)
    return model


def decode(model: AutoencoderKL, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Latents, neither shifted nor scaled, to pictures in about [-1, 1], with gradient.

    The casts: diffusers says `FloatTensor`, a type of old, for any float tensor, and returns a tuple only if asked to.
    """
    return cast("DecoderOutput", model.decode(cast("torch.FloatTensor", latents))).sample


@torch.no_grad()
def round_trip(model: AutoencoderKL, pictures: UInt8[Tensor, "n h w c"], *, noise: float = 0.0) -> list[Image.Image]:
    """Encode to the posterior mean, add noise of `noise` latent standard deviations, decode."""
    images = []
    for chunk in pictures.split(128):
        latents = posterior_means(model, chunk)
        shift = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
        latents = latents + noise * latents.std() * shift
        decoded = ((decode(model, latents) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        images.extend(Image.fromarray(array) for array in decoded.permute(0, 2, 3, 1).numpy())
    return images


def round_trip_success(
    model: AutoencoderKL, pictures: UInt8[Tensor, "n h w c"], captions: list[str], *, noise: float = 0.0
) -> float:
    """Share of pictures whose reconstruction still satisfies its caption in every constraint."""
    scores = reward.shapes_strict(images=round_trip(model, pictures, noise=noise), prompts=captions)
    return float(np.mean([score for score in scores if score is not None]))


@torch.no_grad()
def posterior_means(model: AutoencoderKL, pictures: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n c h w"]:
    """Latents as the encoder gives them, neither shifted nor scaled."""
    chunks = (to_unit(chunk) for chunk in pictures.split(128))
    return torch.cat([cast("AutoencoderKLOutput", model.encode(chunk)).latent_dist.mean for chunk in chunks])


def measure_latents(model: AutoencoderKL, pictures: UInt8[Tensor, "n h w c"]) -> tuple[float, float]:
    """Mean and standard deviation of all latent values: the config's shift_factor and 1 / scaling_factor."""
    latents = posterior_means(model, pictures)
    return latents.mean().item(), latents.std().item()


def normalised_latents(model: AutoencoderKL, pictures: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n c h w"]:
    """Latents of mean 0 and standard deviation 1: (z - shift_factor) * scaling_factor, as the pipeline expects them."""
    return (posterior_means(model, pictures) - model.config["shift_factor"]) * model.config["scaling_factor"]
