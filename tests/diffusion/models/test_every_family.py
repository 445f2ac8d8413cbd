"""What holds for every model family, on its random miniature. No real weights are run here."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL.Image import Image
from torch.testing import assert_close

from align.engine.adapters import Policy
from align.errors import AlignError
from diffusion.config import CpsSampler, DanceSdeSampler, DdimSampler, FlowSdeSampler, OdeSampler, Sampler
from diffusion.models import load_model
from diffusion.models.base import Conditioning
from diffusion.models.locate import ModelError
from diffusion.models.lora import load_lora
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.paths import DdpmPath, FlowPath
from diffusion.rollout import SamplerSettings, sample_latents

from .chained import FLOW as CHAIN
from .chained import chained
from .families import FAMILIES, INDEX, SIDE, STEPS, Family, adapted, disturb, drawn, noise, probe, resolution
from .miniature import PROMPTS

# Matrix products of other batch sizes, or of weights at other addresses, are summed in another order.
BATCHED = {"rtol": 1e-4, "atol": 1e-5}

NOISELESS = {
    FlowPath: (FlowSdeSampler(noise_level=0.0), DanceSdeSampler(noise_level=0.0), CpsSampler(noise_level=0.0)),
    DdpmPath: (DdimSampler(eta=0.0),),
}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request) -> Family:
    return request.param


@pytest.fixture(scope="module")
def model(family) -> DiffusionPipelineModel:
    """Shared: tests that change the model make their own."""
    return family.build()


def grey_levels_apart(left: list[Image], right: list[Image]) -> int:
    """Largest difference of any pixel, in steps of 1/255."""
    pairs = zip(left, right, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


# --- the network's output ---------------------------------------------------------------------------------------------


def test_predict_is_float32_and_differentiable(family):
    model = family.build()
    policy = adapted(model)
    x, t, conditioning = probe(model)
    x.requires_grad_(True)
    output = model.predict(policy.network, x, t, conditioning, 2.0)
    assert (output.dtype, output.shape) == (torch.float32, x.shape)
    assert 0.1 < output.std() < 100  # the miniature says something
    output.square().mean().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    gradients = [weight.grad for name, weight in policy.trainable_parameters().items() if "lora_B" in name]
    reached = [gradient is not None and bool(gradient.abs().max() > 0) for gradient in gradients]
    assert sum(reached) > 0.7 * len(reached)  # SD3's last block drops what its text tokens ask for
    assert all(parameter.grad is None for parameter in model.pipeline.text_encoder.parameters())


def test_guidance_by_hand(family, model):
    """m = m_uncond + g (m_cond - m_uncond), at 1 the conditional pass alone; with an input instead, one pass always."""
    x, t, conditioning = probe(model)
    sizes = []
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
    )
    found = {scale: model.predict(model.network, x, t, conditioning, scale) for scale in (1.0, 2.5)}
    hook.remove()
    assert sizes == ([4, 8] if family.guided_twice else [4, 4])
    assert (found[1.0] - found[2.5]).abs().mean() > 1e-3
    if family.guided_twice:
        without = model.predict(model.network, x, t, model._unconditional(conditioning))
        expected = family.guided(without, found[1.0], 2.5)
        assert_close(found[2.5], expected, **BATCHED)


def test_a_detached_unconditional_branch_changes_gradients_only(family):
    """The same output; where guidance is a second pass, its gradient is another one."""
    model = family.build()
    x, t, conditioning = probe(model)
    found = {}
    for detached in (False, True):
        start = x.clone().requires_grad_(True)
        output = model.predict(model.network, start, t, conditioning, 2.0, detach_unconditional=detached)
        output.sum().backward()
        found[detached] = (output.detach(), start.grad)
    assert_close(found[True][0], found[False][0], **BATCHED)
    assert bool((found[True][1] - found[False][1]).abs().max() > 1e-3) is family.guided_twice


def test_guidance_between_equal_prompts_changes_nothing(family, model):
    if not family.guided_twice:
        return  # there is nothing to be equal with
    x, t, conditioning = probe(model)
    nothing = model._unconditional(conditioning)
    assert_close(
        model.predict(model.network, x, t, nothing, 7.5), model.predict(model.network, x, t, nothing), **BATCHED
    )


def test_rows_depend_on_nothing_but_themselves(model):
    x, t, conditioning = probe(model)
    together = model.predict(model.network, x, t, conditioning, 2.0)
    alone = [
        model.predict(model.network, x[i : i + 1], t[i : i + 1], conditioning.select([i]), 2.0) for i in INDEX.tolist()
    ]
    assert_close(torch.cat(alone), together, **BATCHED)
    other_prompts = conditioning.select([1, 1, 0, 3])
    swapped = model.predict(model.network, x, t, other_prompts, 2.0)
    assert_close(swapped[[1, 3]], together[[1, 3]], **BATCHED)
    assert (swapped[0] - together[0]).abs().max() > 1e-3  # and they do depend on their prompt


def test_an_encoding_depends_on_its_text_alone(family, model):
    fresh = family.build()
    alone = [fresh.encode([prompt]) for prompt in PROMPTS[::-1]]
    together = model.encode(PROMPTS)
    for name, tensor in Conditioning.cat(alone[::-1]).tensors.items():
        assert_close(tensor, together[name], rtol=0, atol=0)


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_our_rollout_draws_the_pipelines_own_pictures(family, model):
    """The same latents to begin with: rounding may move a pixel by one grey level."""
    fresh = family.build()
    for scale in family.guidance:
        ours = model.decode(drawn(model, guidance_scale=scale))
        assert grey_levels_apart(ours, family.stock_pictures(fresh, scale)) <= 1
        assert np.asarray(ours[0]).std() > 5


def rolled_out(model: DiffusionPipelineModel, sampler: Sampler) -> torch.Tensor:
    """Final latents of a rollout in two batches, from the noise of `noise`."""
    settings = SamplerSettings(
        sampler=sampler, num_inference_steps=STEPS, guidance_scale=2.0, resolution=resolution(model)
    )
    conditioning = model.encode(PROMPTS)
    return torch.cat(
        [
            sample_latents(model, model.network, conditioning.select(rows), rows, settings, "start")
            for rows in INDEX.split(3)
        ]
    )


def test_no_noise_is_the_ode_sampler(model):
    """Every random step rule of the model's path at noise 0, and the rollout's ODE, against a plain loop."""
    expected = drawn(model, guidance_scale=2.0)
    assert_close(rolled_out(model, OdeSampler()), expected, **BATCHED)
    for rule in NOISELESS[type(model.path)]:
        assert_close(rolled_out(model, rule), expected, **BATCHED)


def test_noise_moves_every_rule(model):
    """So that the test above is about the noise and not about rules that never draw any."""
    expected = drawn(model, guidance_scale=2.0)
    for rule in NOISELESS[type(model.path)]:
        level = "eta" if isinstance(rule, DdimSampler) else "noise_level"
        assert (rolled_out(model, replace(rule, **{level: 0.5})) - expected).abs().max() > 0.01


def test_the_ratio_is_exactly_one_before_the_first_update(family):
    """A guided rollout in batches of 8, an update in micro-batches of 4: exactly 1, and off 1 after a change.

    The recomputed log-probabilities differ from the stored ones by rounding only.
    """
    model = family.build()
    flow = not isinstance(model.path, DdpmPath)
    sampler = FlowSdeSampler(noise_level=0.7) if flow else DdimSampler(eta=1.0)
    rollout = replace(CHAIN.rollout, sampler=sampler, guidance_scale=2.0, resolution=resolution(model))
    parts = chained(replace(CHAIN, rollout=rollout), model=model)
    batch = parts.method.collect(1)
    parts.method.prepare_update(0, batch)
    pieces = [piece for rows in torch.arange(len(batch)).split(4) for piece in batch.select(rows).passes()]
    for piece in pieces:
        metrics = parts.method.loss(piece).metrics
        assert metrics["ratio_deviation"] == 0
        assert metrics["log_prob_mismatch"] < 1e-4
    parts.disturb()
    parts.method.prepare_update(1, batch)
    assert any(parts.method.loss(piece).metrics["ratio_deviation"] > 1e-5 for piece in pieces)


def test_times_are_decreasing_and_the_schedulers(family, model):
    times = model.times(STEPS, resolution(model))
    assert (times.shape, times.dtype) == ((STEPS + 1,), torch.float32)
    assert (times.diff() < 0).all()
    assert times[-1] == 0
    times.zero_()  # a copy: the next one is not touched
    again = model.times(STEPS, resolution(model))
    stock = family.build()
    family.stock_pictures(stock, family.guidance[-1])
    units = (
        len(stock.path.abars)
        if isinstance(stock.path, DdpmPath)
        else stock.pipeline.scheduler.config["num_train_timesteps"]
    )
    assert_close(again[:-1] * units, stock.pipeline.scheduler.timesteps.float(), rtol=1e-6, atol=0)
    if not isinstance(model.path, DdpmPath):
        assert again[0] == 1


def test_a_shift_of_ones_own(family, tmp_path):
    """Shift 3 of 1, 3/4, 1/2, 1/4, 0, also through the settings; other families have no such setting."""
    if "shift" not in {entry.name for entry in fields(family.config)}:
        with pytest.raises(TypeError, match="shift"):
            family.settings_of(tmp_path, shift=3.0)
        return
    family.pipeline(0).save_pretrained(tmp_path)
    model = load_model(family.settings_of(tmp_path, shift=3.0), "cpu")
    expected = torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0])
    for pixels in (resolution(model), None):
        assert_close(model.times(4, pixels), expected, rtol=0, atol=1e-7)


def test_a_resolution_that_does_not_fit_is_refused_with_the_nearest(model):
    pixels = resolution(model)
    assert model.latent_shape(pixels)[1:] == (SIDE, SIDE)
    unit = next(size for size in range(1, pixels + 1) if fits(model, size))
    assert unit == 4  # the autoencoder halves, and so does the network or its patches; Sana's autoencoder quarters
    assert model.latent_shape(2 * pixels) == (*model.latent_shape(pixels)[:1], 2 * SIDE, 2 * SIDE)
    with pytest.raises(ModelError, match="multiples of 4 pixels") as error:
        model.latent_shape(pixels + 1)
    assert error.value.way_out == f"The nearest possible resolution is {pixels}."


def fits(model: DiffusionPipelineModel, pixels: int) -> bool:
    try:
        return bool(model.latent_shape(pixels))
    except ModelError:
        return False


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_and_latents_are_inverse_in_scale(model):
    latents = noise(model)
    images = model.decode(latents)
    assert [image.size for image in images] == [(resolution(model), resolution(model))] * len(PROMPTS)
    assert grey_levels_apart(model.decode(latents[2:3]), images[2:3]) <= 1  # whatever the batch, but for rounding
    assert model.encode_images(images).shape == latents.shape
    assert model.encode_images(images).dtype == torch.float32
    assert_close(model._scaled(model._unscaled(latents)), latents, rtol=1e-5, atol=1e-5)
    pixels = model.pipeline.image_processor.preprocess(images)
    with torch.no_grad():
        own = model._encode_pixels(pixels)
        decoded = model._decode_latents(own)
    assert_close(model._unscaled(model.encode_images(images)), own, rtol=1e-5, atol=1e-5)
    again = model.pipeline.image_processor.postprocess(decoded)
    assert grey_levels_apart(model.decode(model.encode_images(images)), again) <= 1


# --- trained weights --------------------------------------------------------------------------------------------------


def test_a_fresh_adapter_changes_no_picture(family, model):
    fresh = family.build()
    policy = adapted(fresh)
    assert_close(drawn(fresh, policy.module), drawn(model), rtol=0, atol=0)
    disturb(policy)
    assert (drawn(fresh, policy.module) - drawn(model)).abs().max() > 1e-2
    with policy.reference() as reference:
        assert_close(drawn(fresh, reference), drawn(model), rtol=0, atol=0)


@pytest.mark.parametrize("targets", ["attention", "feed_forward", "all_linear"])
def test_named_layers_are_found_in_the_blocks(family, targets):
    model = family.build()
    policy = adapted(model, targets)
    layers = {name.rpartition(".lora_")[0] for name in policy.trainable_parameters()}
    assert layers
    assert all(layer.startswith(model.targets.blocks) for layer in layers)
    weights = {
        name: weight
        for name, weight in family.build().network.named_parameters()
        if weight.ndim == 2 or (weight.ndim == 4 and targets != "all_linear")
    }
    named = {name.removesuffix(".weight") for name in weights if model.targets.adapts(targets, name)}
    assert layers == named - set(family.unread)


def test_a_layer_that_is_not_there_is_refused(family):
    model = family.build()
    assert model.lora_targets(("no.such_layer",)) == ("no.such_layer",)
    with pytest.raises(AlignError, match=r"no\.such_layer"):
        adapted(model, ("no.such_layer",))


def test_a_saved_adapter_draws_the_same_pictures_in_stock_diffusers_and_here(family, model, tmp_path):
    trained = family.build()
    policy = adapted(trained)
    disturb(policy, 0.1)
    latents = drawn(trained, policy.module)
    trained.save(tmp_path / "weights", policy)
    assert grey_levels_apart(trained.decode(latents), model.decode(drawn(model))) > 5

    pipeline = family.pipeline(0)
    pipeline.load_lora_weights(tmp_path / "weights")
    stock = family.around(pipeline)
    assert_close(drawn(stock), latents, **BATCHED)
    assert grey_levels_apart(trained.decode(latents), family.stock_pictures(stock, 1.0)) <= 1

    again = family.build()
    other = adapted(again)
    load_lora(tmp_path / "weights", other)
    assert_close(drawn(again, other.module), latents, **BATCHED)


def test_a_saved_pipeline_after_full_fine_tuning_draws_the_same_pictures(family, model, tmp_path):
    trained = family.build()
    policy = Policy.full(trained.network)
    disturb(policy, 0.05)
    ours = drawn(trained, policy.module)
    assert (ours - drawn(model)).abs().max() > 1e-2
    trained.save(tmp_path, policy)
    again = load_model(family.settings_of(tmp_path, lora=None))
    assert_close(drawn(again), ours, **BATCHED)


# --- precision and identity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_frozen_parts_in_half_precision(family, model, tmp_path, dtype):
    """Outputs stay float32, the autoencoder too; the network is float32 where all of it is trained."""
    model.pipeline.save_pretrained(tmp_path)
    half = load_model(family.settings_of(tmp_path, dtype=dtype))
    assert half.network.dtype == half.pipeline.text_encoder.dtype == getattr(torch, dtype)
    assert half.pipeline.vae.dtype == torch.float32
    x, t, conditioning = probe(half)
    output = half.predict(half.network, x, t, conditioning, 2.0)
    assert output.dtype == torch.float32
    full = model.predict(model.network, x, t, model.encode(PROMPTS), 2.0)
    # bfloat16 has 8 bits of mantissa, and FLUX's network multiplies a rounded time by 1000: right but coarse.
    assert (output - full).square().mean().sqrt() < 0.3 * full.std()
    assert load_model(family.settings_of(tmp_path, dtype=dtype, lora=None)).network.dtype == torch.float32


def test_the_fingerprint_is_of_the_weights_and_not_of_their_precision(family, model, tmp_path):
    model.pipeline.save_pretrained(tmp_path)
    for dtype in ("float32", "bfloat16"):
        assert load_model(family.settings_of(tmp_path, dtype=dtype)).fingerprint() == model.fingerprint()
    assert family.build(seed=1).fingerprint() != model.fingerprint()


def test_no_two_families_have_one_fingerprint():
    found = [tuple(family.build().fingerprint().items()) for family in FAMILIES]
    assert len(set(found)) == len(FAMILIES)


def test_everything_is_frozen_in_evaluation_mode_and_quiet(family, model, tmp_path, capfd):
    model.pipeline.save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = load_model(family.settings_of(tmp_path))
    loaded.encode(["a " * 40])  # cut: counted at the start of a run, so not told again
    assert not any(capfd.readouterr())
    for module in loaded._modules():
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
