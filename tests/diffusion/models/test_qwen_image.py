"""What is Qwen-Image's own: padded prompts, guidance at equal length, a film's autoencoder scaled channel by channel.

What holds for every family is in `test_every_family`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from align.engine.adapters import Policy
from align.engine.random import keyed_normal
from diffusion.models.base import Conditioning
from diffusion.models.qwen_image import QwenImage, guided_at_equal_length, unread_layers

from .families import adapted, disturb, probe
from .miniature import PROMPTS
from .miniature_qwen_image import LENGTH, miniature_qwen_image


@pytest.fixture(scope="module")
def model() -> QwenImage:
    return miniature_qwen_image()


def test_prompts_are_padded_to_one_length_with_a_mask(model):
    """Words and the five tokens that end the chat template; the states are the pipeline's."""
    found = model.encode(PROMPTS)
    assert found["embeddings"].shape == (4, LENGTH, 16)
    assert found["mask"].sum(1).tolist() == [len(prompt.split()) + 5 for prompt in PROMPTS]
    own, _ = model.pipeline.encode_prompt(PROMPTS[1], max_sequence_length=LENGTH)
    assert_close(found["embeddings"][1, :8], own[0], rtol=0, atol=0)
    assert not found["embeddings"][1, 8:].any()


def test_padding_changes_nothing(model):
    """As each prompt alone at its own length without a mask, which is how the pipeline calls; and as other padding."""
    x, t, conditioning = probe(model)
    padded = model.predict(model.network, x, t, conditioning)
    for i in range(4):
        tokens = int(conditioning["mask"][i].sum())
        short = {"embeddings": conditioning["embeddings"][i : i + 1, :tokens], "mask": None}
        row = slice(i, i + 1)
        assert_close(model._forward(model.network, x[row], t[row], short), padded[row], rtol=1e-4, atol=1e-5)
    mask, states = conditioning["mask"], conditioning["embeddings"]
    other = keyed_normal(tuple(states.shape[1:]), torch.arange(4), "padding")
    disturbed = Conditioning({"mask": mask, "embeddings": torch.where(mask[..., None], states, other)})
    assert_close(model.predict(model.network, x, t, disturbed), padded, rtol=1e-5, atol=1e-5)


def test_guidance_at_equal_length_by_hand():
    """m_uncond = (0, 0), m_cond = (3, 4), g = 2: (6, 8) of length 10, scaled back to 5. And (4, 0) with (0, 3)."""
    without = torch.tensor([[[0.0, 0.0], [4.0, 0.0]]])
    given = torch.tensor([[[3.0, 4.0], [0.0, 3.0]]])
    found = guided_at_equal_length(without, given, 2.0)
    # (4, 0) + 2 ((0, 3) - (4, 0)) = (-4, 6), of length sqrt(52); scaled to length 3
    second = [-12 / 52**0.5, 18 / 52**0.5]
    assert_close(found, torch.tensor([[[3.0, 4.0], second]]))


def test_guidance_at_equal_length_has_gradients_everywhere():
    without = keyed_normal((3, 4), torch.arange(2), "without").double().requires_grad_(True)
    given = keyed_normal((3, 4), torch.arange(2), "given").double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a, b: guided_at_equal_length(a, b, 3.0), (without, given))
    zeros = torch.zeros(1, 1, 4, requires_grad=True)
    guided_at_equal_length(zeros, zeros, 3.0).sum().backward()
    assert torch.isfinite(zeros.grad).all()


@pytest.mark.parametrize("targets", ["attention", "feed_forward", "all_linear"])
def test_every_adapter_gets_a_gradient(targets):
    """A layer without one would stop distributed training: the last block's text output is left out."""
    model = miniature_qwen_image()
    policy = adapted(model, targets)
    disturb(policy)
    model.predict(policy.module, *probe(model)).sum().backward()
    assert all(weight.grad is not None for weight in policy.trainable_parameters().values())
    layers = {name.rpartition(".lora_")[0] for name in policy.trainable_parameters()}
    assert not layers & set(unread_layers(2))
    assert any(layer.startswith("transformer_blocks.0.") for layer in layers)


def test_only_the_unread_layers_get_none():
    model = miniature_qwen_image()
    policy = Policy.full(model.network)
    model.predict(policy.module, *probe(model)).sum().backward()
    without = {name.rpartition(".")[0] for name, weight in policy.trainable_parameters().items() if weight.grad is None}
    assert without == set(unread_layers(2))


def test_what_guidance_compares_with_is_one_space(model):
    nothing = model._unconditional(model.encode(PROMPTS))
    assert_close(nothing["embeddings"][:1], model.encode([" "])["embeddings"], rtol=0, atol=0)
    assert len(nothing) == 4


def test_the_network_is_fed_t(model):
    fed = []
    x, t, conditioning = probe(model)
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["timestep"]), with_kwargs=True
    )
    model.predict(model.network, x, t, conditioning)
    hook.remove()
    assert_close(fed[0], t)


def test_latents_are_scaled_channel_by_channel(model):
    """z = deviation x0 + mean with means .1, -.2, .3, 0 and deviations .5, 1, 2, 1.5."""
    ones = torch.ones(1, 4, 2, 2)
    expected = torch.tensor([0.6, 0.8, 2.3, 1.5]).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
    assert_close(model._unscaled(ones), expected)
    assert_close(model._scaled(expected), ones)
    image = model.decode(keyed_normal((4, 8, 8), torch.arange(1), "picture"))[0]
    pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    own = model.pipeline.vae.encode(pixels).latent_dist.mode()[:, :, 0]
    assert_close(model._unscaled(model.encode_images([image])), own, rtol=1e-4, atol=1e-4)


def test_times_by_hand(model):
    """64 x 64 latents are L = 1024 tokens: mu = .5 + .4 (1024 - 256) / 3840 = .58; e^mu = 1.786038.

    sigma' = e^mu / (e^mu + 1/sigma - 1) at 1, 3/4, 1/2, 1/4: 1, .84272, .64107, .37318.
    """
    assert_close(model.times(4, 128), torch.tensor([1.0, 0.84272, 0.64107, 0.37318, 0.0]), rtol=0, atol=1e-5)


def test_sizes(model):
    assert model.latent_shape() == (4, 128, 128)  # a constant of the pipeline: 1024 pixels of the real autoencoder
    assert model.fingerprint()["layers"] == "2"


def test_the_forward_pass_compiles_whole(model):
    """No step of it depends on data or leaves the graph."""
    x, t, conditioning = probe(model)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, t: model._forward(model.network, x, t, conditioning), backend="eager", fullgraph=True
    )
    assert_close(compiled(x, t), model._forward(model.network, x, t, conditioning))
