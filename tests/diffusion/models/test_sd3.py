"""The SD3 family on a miniature pipeline: encodings, guidance, schedule, pictures, saving and loading, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.random import keyed_normal
from diffusion.config import OdeSampler, Sd3Model
from diffusion.models import load_model
from diffusion.models.base import Conditioning, PromptCache
from diffusion.models.locate import ModelError, locate
from diffusion.models.sd3 import StableDiffusion3
from diffusion.rollout import SamplerSettings, sample_latents

from .miniature import PROMPTS, miniature, miniature_pipeline

INDEX = torch.arange(len(PROMPTS))


@pytest.fixture(scope="module")
def model() -> StableDiffusion3:
    return miniature()


def probe(model: StableDiffusion3) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    return keyed_normal(model.latent_shape(), INDEX, "probe"), torch.tensor([0.1, 0.4, 0.7, 1.0]), model.encode(PROMPTS)


def lora_policy(model: StableDiffusion3, seed: int = 0) -> Policy:
    config = LoraConfig(rank=2, alpha=8.0)
    return Policy.lora(model.network, config, model.lora_targets("attention"), seed=seed)


def disturb(policy: Policy) -> None:
    """Weights as after some training."""
    with torch.no_grad():
        for number, weight in enumerate(policy.trainable_parameters().values()):
            weight.add_(0.3 * keyed_normal(tuple(weight.shape), torch.tensor([number]), "disturb")[0])


def pictures_equal(left, right) -> bool:
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(left, right, strict=True))


def test_everything_is_frozen_and_in_evaluation_mode(model):
    modules = [model.network, model.pipeline.vae, model.pipeline.text_encoder, model.pipeline.text_encoder_2]
    assert not any(p.requires_grad for module in modules for p in module.parameters())
    assert not any(module.training for module in modules)


def test_encoding_has_no_empty_t5_tokens_and_is_the_pipelines(model):
    """Without a T5 the stock call appends 256 zero vectors; ours appends none, as the stock call with length 0."""
    found = model.encode(PROMPTS[:1])
    expected, _, pooled, _ = model.pipeline.encode_prompt(
        PROMPTS[0], None, None, do_classifier_free_guidance=False, max_sequence_length=0
    )
    assert found["embeddings"].shape == (1, 14, 16)
    assert_close(found["embeddings"], expected, rtol=0, atol=0)
    assert_close(found["pooled"], pooled, rtol=0, atol=0)


def test_an_encoding_does_not_depend_on_its_neighbours_or_on_the_cache():
    alone = miniature().encode([PROMPTS[1]])
    together = miniature().encode(PROMPTS)
    for name, tensor in alone.tensors.items():
        assert_close(tensor, together.select([1])[name], rtol=0, atol=0)


def test_prompts_are_encoded_once_and_the_oldest_leave_a_full_cache():
    calls: list[str] = []

    def encode_one(text: str) -> Conditioning:
        calls.append(text)
        return Conditioning({"embeddings": torch.full((1, 2), float(len(text)))})  # 8 bytes

    cache = PromptCache(encode_one, limit=16)
    assert cache(["a", "bb", "a"])["embeddings"][:, 0].tolist() == [1, 2, 1]
    assert calls == ["a", "bb"]
    cache(["ccc"])  # "a" was used last by its first mention; the oldest row goes
    assert calls == ["a", "bb", "ccc"]
    assert len(cache) == 2
    cache(["bb", "ccc"])
    assert calls == ["a", "bb", "ccc"]
    assert cache(["dddd", "e", "ff", "ggg"])["embeddings"][:, 0].tolist() == [4, 1, 2, 3]  # more than fits at once


def test_guidance_by_hand(model):
    """v = v_uncond + g (v_cond - v_uncond): one batch of both equals two separate passes."""
    x, t, conditioning = probe(model)
    cond = model.predict(model.network, x, t, conditioning)
    uncond = model.predict(model.network, x, t, model.encode([""] * 4))
    assert_close(
        model.predict(model.network, x, t, conditioning, 2.5), uncond + 2.5 * (cond - uncond), rtol=1e-4, atol=1e-5
    )
    assert (cond - uncond).abs().mean() > 0.1  # the prompt matters, so the line above is no tautology


def test_guidance_of_one_skips_the_second_pass(model):
    seen = []
    x, t, conditioning = probe(model)
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    model.predict(model.network, x, t, conditioning, 1.0)
    model.predict(model.network, x, t, conditioning, 2.0)
    hook.remove()
    assert seen == [4, 8]


def test_the_network_is_fed_a_thousand_t(model):
    fed = []
    x, t, conditioning = probe(model)
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["timestep"]), with_kwargs=True
    )
    model.predict(model.network, x, t, conditioning)
    hook.remove()
    assert_close(fed[0], torch.tensor([100.0, 400.0, 700.0, 1000.0]))


def test_sigmas_are_the_schedulers_and_a_copy(model):
    """Shift 3 and n = 10: the double shift of diffusers (second value .960129, last but one .008929)."""
    sigmas = model.times(10)
    assert sigmas.shape == (11,)
    assert_close(sigmas[[0, 1, 9, 10]], torch.tensor([1.0, 0.960129, 0.008929, 0.0]), rtol=0, atol=1e-6)
    sigmas.zero_()
    assert model.times(10)[0] == 1


def test_dynamic_shift_follows_the_number_of_picture_tokens():
    """mu = 0.5 + 0.65 (L - 256) / (4096 - 256) = 0.459375 at L = 16 tokens; sigma' = e^mu / (e^mu + 1/sigma - 1)."""
    model = miniature()
    model.pipeline.scheduler = type(model.pipeline.scheduler)(use_dynamic_shifting=True)
    raw = torch.linspace(1, 1 / 1000, 4, dtype=torch.float64)
    factor = torch.tensor(0.459375, dtype=torch.float64).exp()
    expected = torch.cat([factor / (factor + 1 / raw - 1), torch.zeros(1)])
    assert_close(model.times(4), expected.float(), rtol=0, atol=1e-6)


def test_latent_shape(model):
    assert model.latent_shape() == (4, 8, 8)
    assert model.latent_shape(32) == (4, 16, 16)
    with pytest.raises(ModelError, match="multiples of 4 pixels") as error:
        model.latent_shape(30)
    assert "nearest possible resolution is 32" in str(error.value) or "nearest possible resolution is 28" in str(
        error.value
    )


def test_our_ode_rollout_draws_the_pipelines_own_pictures(model):
    """Same initial latents, same steps, with and without guidance: the stock sampler and ours give the same picture."""
    for scale in (1.0, 2.0):
        settings = SamplerSettings(sampler=OdeSampler(), num_inference_steps=6, guidance_scale=scale)
        latents = sample_latents(model, model.network, model.encode(PROMPTS), INDEX, settings, 3, 5)
        stock = model.pipeline(
            list(PROMPTS),
            num_inference_steps=6,
            guidance_scale=scale,
            latents=keyed_normal(model.latent_shape(), INDEX, 3, 5, "latents"),
            max_sequence_length=0,
            height=16,
            width=16,
        ).images
        ours = model.decode(latents)
        # rounding of batched products may move a pixel across a rounding edge: one grey level, rarely
        assert max(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(stock, ours, strict=True)) <= 1
        assert np.asarray(ours[0]).std() > 5


def test_decode_does_not_depend_on_the_batch(model):
    x, _, _ = probe(model)
    assert pictures_equal(model.decode(x)[2:3], model.decode(x[2:3]))


def test_lora_targets(model):
    assert model.lora_targets("attention")[0] == "attn.to_q"
    assert model.lora_targets(("a.b", "c")) == ("a.b", "c")
    every = model.lora_targets("all_linear")
    assert len(every) == len(set(every)) > len(model.lora_targets("attention"))
    for name in ("attention", "feed_forward", "all_linear"):
        fresh = miniature()
        policy = Policy.lora(fresh.network, LoraConfig(rank=2), fresh.lora_targets(name), seed=0)
        assert policy.parameter_count() > 0


def test_a_fresh_adapter_changes_nothing():
    model = miniature()
    x, t, conditioning = probe(model)
    before = model.predict(model.network, x, t, conditioning)
    policy = lora_policy(model)
    assert_close(model.predict(policy.module, x, t, conditioning), before, rtol=0, atol=0)
    disturb(policy)
    assert (model.predict(policy.module, x, t, conditioning) - before).abs().max() > 1e-3
    with policy.reference():
        assert_close(model.predict(policy.module, x, t, conditioning), before, rtol=0, atol=0)


def test_saved_adapter_draws_the_same_pictures_in_stock_diffusers(tmp_path):
    """rank 2, alpha 8: a reader that took alpha = rank would scale the update by 1 instead of 4."""
    model = miniature()
    policy = lora_policy(model)
    disturb(policy)
    settings = SamplerSettings(sampler=OdeSampler(), num_inference_steps=4)
    ours = model.decode(sample_latents(model, policy.module, model.encode(PROMPTS), INDEX, settings, 0, 0))
    assert model.save(tmp_path / "out", policy) == tmp_path / "out"

    pipeline = miniature_pipeline()
    pipeline.load_lora_weights(tmp_path / "out")
    loaded = StableDiffusion3(pipeline, 0)
    again = loaded.decode(sample_latents(loaded, loaded.network, loaded.encode(PROMPTS), INDEX, settings, 0, 0))
    assert pictures_equal(ours, again)
    plain = miniature()
    assert not pictures_equal(
        ours, plain.decode(sample_latents(plain, plain.network, plain.encode(PROMPTS), INDEX, settings, 0, 0))
    )


def test_saved_pipeline_after_full_fine_tuning_draws_the_same_pictures(tmp_path):
    model = miniature()
    policy = Policy.full(model.network)
    disturb(policy)
    settings = SamplerSettings(sampler=OdeSampler(), num_inference_steps=4)
    ours = model.decode(sample_latents(model, policy.module, model.encode(PROMPTS), INDEX, settings, 0, 0))
    model.save(tmp_path, policy)
    loaded = load_model(Sd3Model(path=str(tmp_path), max_sequence_length=0))
    again = loaded.decode(sample_latents(loaded, loaded.network, loaded.encode(PROMPTS), INDEX, settings, 0, 0))
    assert pictures_equal(ours, again)


def test_precision_of_the_parts(tmp_path):
    """Frozen parts in `dtype`, the autoencoder in float32, and the transformer in float32 when all of it is trained."""
    miniature_pipeline().save_pretrained(tmp_path)
    half = load_model(Sd3Model(path=str(tmp_path), dtype="bfloat16"))
    assert (half.network.dtype, half.pipeline.vae.dtype) == (torch.bfloat16, torch.float32)
    assert half.pipeline.text_encoder.dtype == torch.bfloat16
    x, t, conditioning = probe(half)
    assert half.predict(half.network, x, t, conditioning).dtype == torch.float32
    full = load_model(Sd3Model(path=str(tmp_path), dtype="bfloat16", lora=None))
    assert full.network.dtype == torch.float32


def test_fingerprint_is_the_models_and_not_the_places(model, tmp_path):
    """Same weights elsewhere and in another precision: equal. Other weights of the same size: different."""
    found = model.fingerprint()
    assert (found["pipeline"], found["layers"], found["width"]) == ("StableDiffusion3Pipeline", "2", "16")
    model.pipeline.save_pretrained(tmp_path)
    for dtype in ("float32", "bfloat16"):
        assert load_model(Sd3Model(path=str(tmp_path), dtype=dtype)).fingerprint() == found
    assert miniature(seed=1).fingerprint() != found


def test_missing_and_wrong_folders_are_clear_errors(tmp_path):
    wanted = "StableDiffusion3Pipeline"
    with pytest.raises(ModelError, match="no such folder"):
        locate(str(tmp_path / "nowhere"), wanted)
    with pytest.raises(ModelError, match="no diffusers folder"):
        locate(str(tmp_path), wanted)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match="holds a FluxPipeline"):
        locate(str(tmp_path), wanted)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        locate(str(tmp_path), wanted)
    (tmp_path / "single.safetensors").touch()
    with pytest.raises(ModelError, match="is a file"):
        locate(str(tmp_path / "single.safetensors"), wanted)
    with pytest.raises(ModelError, match="no such embedded model"):
        locate("builtin:huge", wanted)
    assert locate("stabilityai/stable-diffusion-3.5-medium", wanted) == "stabilityai/stable-diffusion-3.5-medium"


def test_a_folder_with_missing_weights_is_a_clear_error(tmp_path):
    miniature_pipeline().save_pretrained(tmp_path)
    next((tmp_path / "transformer").glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match="could not be loaded"):
        load_model(Sd3Model(path=str(tmp_path)))


def test_pickled_weights_are_not_read(tmp_path):
    """A folder with `.bin` weights only is refused: reading it would unpickle a stranger's file."""
    miniature_pipeline().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ModelError, match="could not be loaded"):
        load_model(Sd3Model(path=str(tmp_path)))


def test_loading_is_quiet(tmp_path, capfd):
    miniature_pipeline().save_pretrained(tmp_path)
    capfd.readouterr()
    load_model(Sd3Model(path=str(tmp_path)))
    assert "Loading" not in "".join(capfd.readouterr())
