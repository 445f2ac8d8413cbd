"""kohya's format read back by stock diffusers, which knows nothing of our exporter: the same velocity.

Diffusers folds alpha / rank into the matrices when it reads kohya's names, so a wrong alpha shows as another velocity.
"""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.random import keyed_normal
from diffusion.export.files import FORMATS
from diffusion.models.flux import Flux
from diffusion.models.sdxl import StableDiffusionXL
from diffusion.models.stable_diffusion import StableDiffusion

from ..models.miniature_flux import RESOLUTION, miniature_flux_pipeline
from ..models.miniature_unet import miniature_sd15_pipeline, miniature_sdxl_pipeline


def output(model, resolution: int, guidance: float = 1.0) -> torch.Tensor:
    """What the network says of two noises."""
    x = keyed_normal(model.latent_shape(resolution), torch.arange(2), "probe")
    with torch.no_grad():
        conditioning = model.encode(["a red circle", "two blue squares"])
        return model.predict(model.network, x, torch.tensor([0.3, 0.9]), conditioning, guidance)


def moved(model, targets) -> Policy:
    """An adapter after some training; its alpha is neither its rank nor twice its rank."""
    policy = Policy.lora(model.network, LoraConfig(rank=2, alpha=5.0), model.lora_targets(targets), seed=0)
    with torch.no_grad():
        for number, weight in enumerate(policy.trainable_parameters().values()):
            weight.add_(0.1 * keyed_normal(tuple(weight.shape), torch.tensor([number]), "moved")[0])
    return policy


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


@pytest.mark.parametrize("layers", [tuple(f"attn.{name}" for name in ATTENTION), FEED_FORWARD], ids=["attn", "ff"])
def test_flux(tmp_path, layers):
    """Double blocks only: diffusers takes the widths of single blocks for those of the real model.

    tests/diffusion/export/test_keys.py works a single block out by hand.
    """
    targets = tuple(f"transformer_blocks.0.{layer}" for layer in layers)
    model, stock = Flux(miniature_flux_pipeline()), Flux(miniature_flux_pipeline())
    before = output(model, RESOLUTION, 3.5)
    path = FORMATS["kohya"](model, moved(model, targets), tmp_path, torch.float32)
    stock.pipeline.load_lora_weights(path)
    assert_close(output(stock, RESOLUTION, 3.5), output(model, RESOLUTION, 3.5), rtol=1e-4, atol=1e-4)
    assert (output(model, RESOLUTION, 3.5) - before).abs().max() > 1e-2


@pytest.mark.parametrize("targets", ["attention", "all_linear"])
@pytest.mark.parametrize(
    ("family", "pipeline"),
    [(StableDiffusion, miniature_sd15_pipeline), (StableDiffusionXL, miniature_sdxl_pipeline)],
    ids=["sd15", "sdxl"],
)
@pytest.mark.parametrize("name", ["kohya", "comfyui"])
def test_u_nets(tmp_path, family, pipeline, targets, name):
    """ComfyUI reads a U-Net's adapter under kohya's names, so both files are one."""
    model, stock = family(pipeline()), family(pipeline())
    before = output(model, 16)
    path = FORMATS[name](model, moved(model, targets), tmp_path, torch.float32)
    stock.pipeline.load_lora_weights(path)
    assert_close(output(stock, 16), output(model, 16), rtol=1e-4, atol=1e-4)
    assert (output(model, 16) - before).abs().max() > 1e-3
