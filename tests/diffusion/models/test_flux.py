"""What is FLUX's own, on miniatures of dev and schnell: guidance as an input, packed tokens, schedule.

What holds for every family is in `test_every_family`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from diffusion.arithmetic import counted_rollout, rollout_passes
from diffusion.config import DiffusionRun, FluxModel, RolloutConfig, Sd3Model
from diffusion.models.flux import Flux, grid_ids
from diffusion.models.locate import ModelError

from .families import FAMILIES, drawn, probe
from .miniature_flux import RESOLUTION, miniature_flux, miniature_flux_pipeline


@pytest.fixture(scope="module")
def model() -> Flux:
    return miniature_flux()


def test_schnells_rollout_is_the_pipelines_own():
    """Rounding may move a pixel by one grey level."""
    dev = next(family for family in FAMILIES if family.name == "flux")
    schnell = replace(dev, pipeline=partial(miniature_flux_pipeline, guidance_embeds=False, dynamic=False))
    model = schnell.build()
    for ours, stock in zip(model.decode(drawn(model)), schnell.stock_pictures(schnell.build(), 1.0), strict=True):
        assert np.abs(np.asarray(ours, int) - np.asarray(stock, int)).max() <= 1


def test_guidance_is_an_input_and_one_pass(model):
    fed = []
    x, t, conditioning = probe(model)
    hook = model.network.register_forward_pre_hook(lambda module, args, kwargs: fed.append(kwargs), with_kwargs=True)
    low, high = (model.predict(model.network, x, t, conditioning, scale) for scale in (1.0, 3.5))
    hook.remove()
    assert len(fed) == 2
    assert_close(fed[1]["guidance"], torch.full((4,), 3.5))
    assert_close(fed[1]["timestep"], t)  # the network multiplies by 1000 itself
    assert (high - low).abs().max() > 1e-2


def test_schnell_refuses_guidance():
    model = miniature_flux(guidance_embeds=False)
    x, t, conditioning = probe(model)
    assert model.predict(model.network, x, t, conditioning).shape == x.shape
    with pytest.raises(ModelError, match="does not take one") as error:
        model.predict(model.network, x, t, conditioning, 3.5)
    assert "rollout.guidance_scale: 1" in error.value.way_out


def test_guidance_costs_no_second_pass_in_the_plan():
    """28 steps with guidance 3.5: 28 evaluations, where SD3 needs 56."""
    run = DiffusionRun(
        model=FluxModel(path="owner/name"), rollout=RolloutConfig(num_inference_steps=28, guidance_scale=3.5)
    )
    assert rollout_passes(counted_rollout(run)).count == 28
    assert rollout_passes(counted_rollout(replace(run, model=Sd3Model()))).count == 56


def test_times_of_dev_at_512_pixels(model):
    """L = 1024 tokens: mu = .63; sigma' = e^mu / (e^mu + 1/sigma - 1) of 1, 5/6, ..., 1/6."""
    expected = torch.tensor([1, 0.903736, 0.789705, 0.652489, 0.484218, 0.273003, 0])
    # The miniature's autoencoder only halves: 64 x 64 latents.
    assert_close(model.times(6, 128), expected, rtol=0, atol=1e-6)


def test_times_of_schnell_are_evenly_spaced():
    assert_close(miniature_flux(dynamic=False).times(4, 16), torch.tensor([1, 0.75, 0.5, 0.25, 0]), rtol=0, atol=1e-7)


def test_positions_are_the_pipelines(model):
    ids = grid_ids(2, 3, torch.device("cpu"))
    assert ids.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]
    assert torch.equal(ids, FluxPipeline._prepare_latent_image_ids(1, 2, 3, "cpu", torch.float32))


def test_sizes(model):
    assert model.latent_shape() == (4, 128, 128)  # a constant of the pipeline: 1024 pixels of the real autoencoder
    assert model.latent_shape(RESOLUTION) == (4, 8, 8)
    with pytest.raises(ModelError, match="multiples of 4 pixels"):
        model.latent_shape(18)
    assert model.fingerprint()["layers"] == "1+1"


def test_named_layers_leave_the_output_layer_alone():
    for name, layers in {"attention": 8 + 3, "feed_forward": 4 + 2}.items():
        model = miniature_flux()
        policy = Policy.lora(model.network, LoraConfig(rank=2), model.lora_targets(name), seed=0)
        adapted = {weight.rsplit(".lora_", 1)[0] for weight in policy.state_dict()}
        assert len(adapted) == layers
        assert "proj_out" not in adapted


def test_the_forward_pass_compiles_whole(model):
    """No step of it depends on data or leaves the graph."""
    x, t, conditioning = probe(model)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, t: model._forward(model.network, x, t, conditioning, 3.5), backend="eager", fullgraph=True
    )
    assert_close(compiled(x, t), model._forward(model.network, x, t, conditioning, 3.5))
