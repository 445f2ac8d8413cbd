"""The FLUX family on miniatures of dev and schnell: embedded guidance, packing, schedule, adapters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.random import keyed_normal
from diffusion.arithmetic import counted_rollout, rollout_passes
from diffusion.config import DiffusionRun, FluxModel, OdeSampler, RolloutConfig, Sd3Model
from diffusion.models import load_model
from diffusion.models.flux import Flux, grid_ids
from diffusion.models.locate import ModelError
from diffusion.models.packing import pack
from diffusion.rollout import SamplerSettings, sample_latents

from .miniature import PROMPTS
from .miniature_flux import RESOLUTION, T5_LENGTH, miniature_flux, miniature_flux_pipeline

INDEX = torch.arange(len(PROMPTS))


@pytest.fixture(scope="module")
def model() -> Flux:
    return miniature_flux()


def probe(model: Flux) -> tuple:
    x = keyed_normal(model.latent_shape(RESOLUTION), INDEX, "probe")
    return x, torch.tensor([0.1, 0.4, 0.7, 1.0]), model.encode(PROMPTS)


def draw(model: Flux, network: torch.nn.Module, guidance_scale: float = 1.0) -> torch.Tensor:
    settings = SamplerSettings(
        sampler=OdeSampler(), num_inference_steps=4, guidance_scale=guidance_scale, resolution=RESOLUTION
    )
    return sample_latents(model, network, model.encode(PROMPTS), INDEX, settings, 3, 5)


def stock(pipeline: FluxPipeline, guidance_scale: float) -> torch.Tensor:
    """Packed final latents of the pipeline's own call, from the noise of `draw`."""
    noise = keyed_normal((4, 8, 8), INDEX, 3, 5, "latents")
    return pipeline(
        list(PROMPTS),
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        latents=pack(noise),
        height=RESOLUTION,
        width=RESOLUTION,
        max_sequence_length=T5_LENGTH,
        output_type="latent",
    ).images


def disturb(policy: Policy) -> None:
    with torch.no_grad():
        for number, weight in enumerate(policy.trainable_parameters().values()):
            weight.add_(0.3 * keyed_normal(tuple(weight.shape), torch.tensor([number]), "disturb")[0])


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_our_rollout_is_the_pipelines_own(model, scale):
    ours = draw(model, model.network, scale)
    assert_close(pack(ours), stock(model.pipeline, scale), rtol=1e-4, atol=1e-4)
    assert ours.std() > 1


def test_schnells_rollout_is_the_pipelines_own():
    model = miniature_flux(guidance_embeds=False, dynamic=False)
    assert_close(pack(draw(model, model.network)), stock(model.pipeline, 1.0), rtol=1e-4, atol=1e-4)


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
    assert_close(
        model.times(6, 128), expected, rtol=0, atol=1e-6
    )  # the miniature's autoencoder halves: 64 x 64 latents


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


def test_rows_do_not_depend_on_their_neighbours(model):
    x, t, conditioning = probe(model)
    together = model.predict(model.network, x, t, conditioning, 3.5)
    alone = model.predict(model.network, x[2:3], t[2:3], model.encode(PROMPTS[2:3]), 3.5)
    assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


def test_pictures_and_latents_are_inverse_in_scale(model):
    """encode_images undoes the shift and the scale that decode applies: x0 = (z - shift) scale."""
    image = model.decode(draw(model, model.network))[0]
    pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    own = model.pipeline.vae.encode(pixels).latent_dist.mode()
    assert_close(model.encode_images([image]), (own - 0.06) * 1.5, rtol=1e-4, atol=1e-4)
    assert_close(model._unscaled(model._scaled(own)), own, rtol=1e-5, atol=1e-5)


def test_named_layers_leave_the_output_layer_alone():
    for name, layers in {"attention": 8 + 3, "feed_forward": 4 + 2}.items():
        model = miniature_flux()
        policy = Policy.lora(model.network, LoraConfig(rank=2), model.lora_targets(name), seed=0)
        adapted = {weight.rsplit(".lora_", 1)[0] for weight in policy.state_dict()}
        assert len(adapted) == layers
        assert "proj_out" not in adapted


def test_adapters_start_silent_and_are_read_by_diffusers(tmp_path):
    model = miniature_flux()
    before = draw(model, model.network, 3.5)
    targets = (*model.lora_targets("attention"), *model.lora_targets("feed_forward"))
    policy = Policy.lora(model.network, LoraConfig(rank=2, alpha=8.0), targets, seed=0)
    assert_close(draw(model, policy.module, 3.5), before, rtol=0, atol=0)
    disturb(policy)
    after = draw(model, policy.module, 3.5)
    assert (after - before).abs().max() > 0.1
    model.save(tmp_path, policy)
    pipeline = miniature_flux_pipeline()
    pipeline.load_lora_weights(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    assert_close(stock(pipeline, 3.5), pack(after), rtol=1e-4, atol=1e-4)


def test_a_fully_trained_pipeline_is_loaded_again(tmp_path):
    model = miniature_flux()
    policy = Policy.full(model.network)
    disturb(policy)
    after = draw(model, policy.module, 3.5)
    model.save(tmp_path, policy)
    config = FluxModel(path=str(tmp_path), dtype="float32", max_sequence_length=T5_LENGTH, lora=None)
    loaded = load_model(config)
    assert_close(draw(loaded, loaded.network, 3.5), after, rtol=0, atol=0)
    half = load_model(replace(config, dtype="bfloat16", lora=LoraConfig()))
    assert half.network.dtype == torch.bfloat16
    assert half.predict(half.network, *probe(half), 3.5).dtype == torch.float32


def test_the_forward_pass_compiles_whole(model):
    """No step of it depends on data or leaves the graph."""
    x, t, conditioning = probe(model)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, t: model._forward(model.network, x, t, conditioning, 3.5), backend="eager", fullgraph=True
    )
    assert_close(compiled(x, t), model._forward(model.network, x, t, conditioning, 3.5))
