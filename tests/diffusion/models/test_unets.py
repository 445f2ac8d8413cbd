"""Stable Diffusion 1, 2 and XL: noise schedules, times, what SDXL's network is told, checkpoints that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from torch.testing import assert_close

from diffusion.config.models import SdxlModel, StableDiffusionModel
from diffusion.models import load_model
from diffusion.models.ddpm_schedule import ddim_times, ddpm_path
from diffusion.models.locate import ModelError
from diffusion.models.sdxl import StableDiffusionXL, size_ids
from diffusion.models.stable_diffusion import StableDiffusion
from diffusion.samplers import ddim_step

from .families import FAMILIES, drawn, noise, probe
from .miniature import PROMPTS
from .miniature_unet import (
    SCHEDULE,
    miniature_sd2,
    miniature_sd2_pipeline,
    miniature_sd15,
    miniature_sd15_pipeline,
    miniature_sdxl,
    miniature_sdxl_pipeline,
    unshifted_autoencoder,
)

ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def ddim(**settings) -> DDIMScheduler:
    return DDIMScheduler(**{**SCHEDULE, "clip_sample": False, "set_alpha_to_one": False, **settings})


def discrete(scheduler, steps: int) -> list[int]:
    return (ddim_times(scheduler, steps, "here") * 1000).round().int().tolist()


# --- noise schedules and times ----------------------------------------------------------------------------------------


def test_the_schedule_by_hand():
    """betas are squares of evenly spaced roots: abar_0 = 1 - .00085, abar_1 = abar_0 (1 - (sqrt(.00085) + d)^2).

    d = (sqrt(.012) - sqrt(.00085)) / 999.
    """
    path = ddpm_path(PNDMScheduler(**SCHEDULE), "here")
    low, high = 0.00085**0.5, 0.012**0.5
    first = 1 - 0.00085
    second = first * (1 - (low + (high - low) / 999) ** 2)
    assert_close(path.abars[:2].double(), torch.tensor([first, second], dtype=torch.float64), rtol=1e-6, atol=0)
    assert (len(path.abars), path.prediction_type) == (1000, "epsilon")


@pytest.mark.parametrize(
    "scheduler", [PNDMScheduler(**SCHEDULE), ddim(), EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading")]
)
def test_fifty_steps_of_stable_diffusion(scheduler):
    """Offset 1 and leading spacing of 1000 / 50 = 20: 981, 961, ..., 21, 1; then discrete time 0."""
    assert discrete(scheduler, 50) == [*range(981, 0, -20), 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"timestep_spacing": "trailing"}, [999, 749, 499, 249, 0]),
        ({"timestep_spacing": "leading"}, [751, 501, 251, 1, 0]),
        # The fifth of five times is 0 already; a step from 0 to 0 would do nothing, so it is where the fourth one goes.
        ({"timestep_spacing": "leading", "steps_offset": 0}, [800, 600, 400, 200, 0]),
        ({"timestep_spacing": "linspace"}, [999, 749, 500, 250, 0]),
    ],
)
def test_spacings_by_hand(settings, expected):
    assert discrete(ddim(**settings), 4) == expected


def test_more_steps_than_times_are_refused():
    for steps in (1000, 1001):  # with offset 1 the first of 1000 times would be 1000
        with pytest.raises(ModelError, match="has 1000 times"):
            ddim_times(ddim(), steps, "here")
    assert discrete(ddim(timestep_spacing="trailing", num_train_timesteps=1000), 999)[-1] == 0


def test_a_scheduler_is_asked_and_not_changed():
    model = miniature_sd2()
    model.times(7)
    assert model.pipeline.scheduler.num_inference_steps is None


def test_v_prediction_samples_from_pure_noise():
    """abar = 0 at the first time: x0 = -v and eps = x there, everything stays finite."""
    model = miniature_sd2(**ZERO_SNR)
    assert model.path.abars[-1] == 0
    times = model.times(4)
    assert float(model.path.abar(times[0])) == 0
    x, _, conditioning = probe(model)
    with torch.no_grad():
        output = model.predict(model.network, x, times[:1].expand(len(x)), conditioning)
    ends = model.path.ends(x, output, times[0])
    assert_close(ends.clean, -output)
    assert_close(ends.noise, x)
    assert drawn(model).isfinite().all()
    assert_close(model.path.noised(x, noise(model), times[0]), noise(model))


def test_pure_noise_says_nothing_to_a_network_that_predicts_noise():
    with pytest.raises(ModelError, match="pure noise") as error:
        miniature_sd2(**ZERO_SNR, prediction_type="epsilon")
    assert "v_prediction" in error.value.way_out


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (FlowMatchEulerDiscreteScheduler(), "no noise schedule"),
        (EulerDiscreteScheduler(**SCHEDULE), None),
        (DDIMScheduler(**SCHEDULE, clip_sample=True), "clip_sample"),
        (ddim(thresholding=True), "thresholding"),
    ],
)
def test_schedulers_that_do_not_fit_are_refused(scheduler, message):
    if message is None:
        assert ddpm_path(scheduler, "here").prediction_type == "epsilon"
        return
    with pytest.raises(ModelError, match=message):
        ddpm_path(scheduler, "here")


def test_an_unknown_prediction_is_refused():
    scheduler = ddim()
    scheduler.register_to_config(prediction_type="edm")
    with pytest.raises(ModelError, match="edm"):
        ddpm_path(scheduler, "here")


def test_all_predictions_of_one_picture_take_the_same_step():
    """Noise, v and sample outputs that mean the same clean latent give one DDIM step (diffusion.paths by the model)."""
    x = noise(miniature_sd15()).double()
    clean = 0.3 * x.flip(0)
    found = []
    for kind in ("epsilon", "v_prediction", "sample"):
        path = ddpm_path(ddim(prediction_type=kind), "here")
        t, t_next = torch.tensor(0.601), torch.tensor(0.401)
        abar = path.abar(t)
        eps = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        output = path.target(clean, eps, t)
        found.append(ddim_step(x, output, abar, path.abar(t_next), prediction_type=kind, eta=0.0).prev_sample)
    assert_close(found[0], found[1])
    assert_close(found[0], found[2])


# --- what the network is fed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [miniature_sd15, miniature_sd2, miniature_sdxl])
def test_the_network_is_fed_discrete_times(build):
    """t = 0.201 is discrete time 201, also after its trip through float32."""
    model, fed = build(), []
    x, _, conditioning = probe(model)
    hook = model.network.register_forward_pre_hook(lambda module, args: fed.append(args[1]))
    model.predict(model.network, x, torch.tensor([0.201, 0.0, 0.981, 0.5]), conditioning)
    hook.remove()
    assert fed[0].dtype == torch.int64
    assert fed[0].tolist() == [201, 0, 981, 500]


def test_size_ids_by_hand():
    assert size_ids(2, 768, 1000, torch.device("cpu")).tolist() == [[768, 1000, 0, 0, 768, 1000]] * 2


def test_sdxl_is_told_the_pictures_size_in_pixels():
    """24 x 8 latents of an autoencoder that halves: 48 x 16 pixels. Another size, another output."""
    model, fed = miniature_sdxl(), []
    x = torch.zeros(2, 4, 24, 8)
    conditioning = model.encode(PROMPTS[:2])
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    model.predict(model.network, x, torch.full((2,), 0.5), conditioning)
    hook.remove()
    assert fed[0].tolist() == [[48, 16, 0, 0, 48, 16]] * 2


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_goes_without_prompt_as_the_pipeline_does(zeros):
    """Zeros where the folder says so (SDXL 1.0), else the empty text; a given empty prompt is encoded."""
    model = miniature_sdxl(zeros=zeros)
    conditioning = model.encode(PROMPTS)
    without = model._unconditional(conditioning)
    _, negative, _, pooled = model.pipeline.encode_prompt(list(PROMPTS), device="cpu")
    assert_close(without["embeddings"], negative, rtol=1e-5, atol=1e-5)
    assert_close(without["pooled"], pooled, rtol=1e-5, atol=1e-5)
    assert bool((without["embeddings"] == 0).all()) == zeros
    assert (model.encode([""])["embeddings"] != 0).all()


def test_sdxl_without_zeros_draws_the_pipelines_pictures_too():
    family = next(family for family in FAMILIES if family.name == "sdxl")
    ours = miniature_sdxl(zeros=False)
    stock = family.stock_pictures(miniature_sdxl(zeros=False), 3.0)
    apart = [
        np.abs(np.asarray(a, int) - np.asarray(b, int)).max()
        for a, b in zip(ours.decode(drawn(ours, guidance_scale=3.0)), stock, strict=True)
    ]
    assert max(apart) <= 1


def test_an_autoencoder_with_channel_statistics():
    """decode reads latents * std / scale + mean, as the pipeline does: 2 * [1, 2, 3, 4] / 1.5 + [0, .1, .2, .3]."""
    vae = unshifted_autoencoder()
    vae.register_to_config(latents_mean=[0.0, 0.1, 0.2, 0.3], latents_std=[1.0, 2.0, 3.0, 4.0])
    model = miniature_sdxl(vae=vae)
    expected = torch.tensor([2 / 1.5, 4 / 1.5 + 0.1, 4.2, 8 / 1.5 + 0.3])
    assert_close(model._unscaled(torch.full((1, 4, 1, 1), 2.0)).flatten(), expected)
    family = next(family for family in FAMILIES if family.name == "sdxl")
    ours, stock = model.decode(drawn(model)), family.stock_pictures(model, 1.0)
    assert max(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(ours, stock, strict=True)) <= 1
    latents = noise(model)
    assert_close(model._scaled(model._unscaled(latents)), latents, rtol=1e-5, atol=1e-5)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_resolutions_are_multiples_that_the_whole_network_can_halve():
    """Stable Diffusion: autoencoder 8, four levels halve three times: 64 pixels. XL, three levels: 32."""
    model = miniature_sd15()
    model.network.register_to_config(block_out_channels=(8, 16, 16, 16))
    model.pipeline.vae_scale_factor = 8
    assert model.latent_shape(512) == (4, 64, 64)
    with pytest.raises(ModelError, match="multiples of 64 pixels"):
        model.latent_shape(520)


def test_the_safety_checker_is_not_loaded(tmp_path):
    """A folder that lists one, with files that could not even be read: loading does not look at them."""
    miniature_sd15_pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["requires_safety_checker"] = True
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    model = load_model(StableDiffusionModel(path=str(tmp_path)))
    assert model.pipeline.safety_checker is None
    assert model.decode(noise(model))[0].size == (16, 16)


def test_what_a_checkpoint_predicts_is_read_from_it(tmp_path):
    for name, pipeline in (("sd15", miniature_sd15_pipeline()), ("sd2", miniature_sd2_pipeline())):
        pipeline.save_pretrained(tmp_path / name)
    found = {name: load_model(StableDiffusionModel(path=str(tmp_path / name))) for name in ("sd15", "sd2")}
    assert found["sd15"].path.prediction_type == "epsilon"
    assert found["sd2"].path.prediction_type == "v_prediction"
    assert found["sd15"].fingerprint() != found["sd2"].fingerprint()


@pytest.mark.parametrize(
    ("change", "message"), [({"in_channels": 9}, "wants a second picture"), ({"time_cond_proj_dim": 8}, "LCM")]
)
def test_networks_for_something_else_are_refused(change, message):
    for pipeline, family in (
        (miniature_sd15_pipeline(), StableDiffusion),
        (miniature_sdxl_pipeline(), StableDiffusionXL),
    ):
        pipeline.unet.register_to_config(**change)
        with pytest.raises(ModelError, match=message):
            family(pipeline, "here")


def test_a_folder_of_another_class_is_refused(tmp_path):
    miniature_sd15_pipeline().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds a StableDiffusionPipeline"):
        load_model(SdxlModel(path=str(tmp_path)))


def test_the_autoencoder_is_float32_however_the_pipeline_came(tmp_path):
    pipeline = miniature_sdxl_pipeline()
    pipeline.vae.to(torch.float16)
    assert StableDiffusionXL(pipeline).pipeline.vae.dtype == torch.float32
    assert isinstance(pipeline.vae, AutoencoderKL)
