"""What is Sana's own: the instruction, masks, the schedule of a DPM-Solver, adapters on convolutions.

What holds for every family is in `test_every_family`.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch.testing import assert_close

from align.engine.random import keyed_normal
from diffusion.models.locate import ModelError
from diffusion.models.sana import Sana, own_instruction

from .families import adapted, drawn, noise, probe, resolution
from .miniature import PROMPTS
from .miniature_sana import LENGTH, SHIFT, dpm_scheduler, miniature_sana, miniature_sana_pipeline

# diffusers' solver hands tensors to numpy in a way that numpy 2 has deprecated.
SOLVER_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@pytest.fixture(scope="module")
def model() -> Sana:
    return miniature_sana()


@pytest.fixture(scope="module")
def instructed() -> Sana:
    return Sana(miniature_sana_pipeline(), max_sequence_length=LENGTH, source="miniature")


def test_the_instruction_is_the_pipelines_own_call_unasked(instructed):
    """Prompts with the instruction, the empty prompt of guidance without it: as a call that says nothing about it."""
    pixels = resolution(instructed)
    stock = instructed.pipeline(
        list(PROMPTS),
        num_inference_steps=5,
        guidance_scale=3.0,
        latents=noise(instructed),
        height=pixels,
        width=pixels,
        max_sequence_length=LENGTH,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    assert_close(drawn(instructed, guidance_scale=3.0), stock, rtol=1e-4, atol=1e-4)


def test_the_instruction_changes_prompts_and_not_the_empty_prompt_of_guidance(model, instructed):
    plain, with_instruction = model.encode(PROMPTS), instructed.encode(PROMPTS)
    assert plain["embeddings"].shape == with_instruction["embeddings"].shape == (4, LENGTH, 16)
    assert (plain["embeddings"] - with_instruction["embeddings"]).abs().max() > 0.1
    assert own_instruction(model.pipeline)[-1] == "User Prompt: "
    for name, rows in model._unconditional(plain).tensors.items():
        assert_close(rows, instructed._unconditional(plain)[name], rtol=0, atol=0)


def test_padding_is_masked(model):
    """Other states where the mask is 0 change nothing; where it is 1 they do."""
    x, t, conditioning = probe(model)
    before = model.predict(model.network, x, t, conditioning)
    mask, states = conditioning["mask"], conditioning["embeddings"]
    assert mask.sum(1).tolist() == [3, 5, 6, 9]
    other = keyed_normal(tuple(states.shape[1:]), torch.arange(4), "padding")
    for kept, changes in ((mask == 1, False), (mask == 0, True)):
        disturbed = type(conditioning)({"mask": mask, "embeddings": torch.where(kept[..., None], states, other)})
        after = model.predict(model.network, x, t, disturbed)
        assert bool((after - before).abs().max() > 1e-3) is changes


def test_the_network_is_fed_a_thousand_t_times_its_scale():
    model = miniature_sana()
    model.network.register_to_config(timestep_scale=0.5)
    fed = []
    model.network.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["timestep"]), with_kwargs=True
    )
    x, _, conditioning = probe(model)
    model.predict(model.network, x, torch.tensor([0.1, 0.4, 0.7, 1.0]), conditioning)
    assert_close(fed[0], torch.tensor([50.0, 200.0, 350.0, 500.0]))


@SOLVER_WARNS
def test_times_of_the_multistep_solver_begin_at_one():
    """s = .999 (1 - j/6), shifted 3 s / (1 + 2 s): .99967, .93715, ... The first is moved to 1, the others stay."""
    model = miniature_sana()
    model.pipeline.scheduler = dpm_scheduler()
    unshifted = 0.999 * (1 - torch.arange(7, dtype=torch.float64) / 6)
    expected = (SHIFT * unshifted / (1 + (SHIFT - 1) * unshifted)).float()
    assert abs(float(expected[0]) - 0.99967) < 1e-5
    found = model.times(6)
    assert found[0] == 1
    assert_close(found[1:], expected[1:], rtol=0, atol=1e-6)
    assert found.shape == (7,)


@SOLVER_WARNS
def test_the_multistep_solver_of_first_order_is_eulers_step():
    """Except for what the network is fed: the solver cuts times to whole thousandths. So do we here."""
    model = miniature_sana()
    scheduler = DPMSolverMultistepScheduler.from_config(dpm_scheduler().config, solver_order=1)
    model.pipeline.scheduler = scheduler
    pixels = resolution(model)
    stock = model.pipeline(
        list(PROMPTS),
        num_inference_steps=5,
        guidance_scale=1.0,
        latents=noise(model),
        height=pixels,
        width=pixels,
        max_sequence_length=LENGTH,
        complex_human_instruction=None,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    x, conditioning = noise(model), model.encode(PROMPTS)
    with torch.no_grad():
        for t, t_next in pairwise(scheduler.sigmas):
            fed = (1000 * t).floor() / 1000
            x = x + (t_next - t) * model.predict(model.network, x, fed.expand(4), conditioning)
    assert_close(x, stock, rtol=1e-3, atol=1e-3)


@SOLVER_WARNS
def test_a_scheduler_of_another_kind_is_refused():
    model = miniature_sana()
    model.pipeline.scheduler = DPMSolverMultistepScheduler()
    with pytest.raises(ModelError, match="expected exactly 1"):
        model.times(6)


def test_an_output_with_a_variance_is_cut(model):
    x, t, conditioning = probe(model)
    seen = model.predict(lambda *args, **kwargs: (torch.cat([x, x + 1], dim=1),), x, t, conditioning)
    assert torch.equal(seen, x)


def test_feed_forward_layers_are_convolutions_of_one_pixel():
    policy = adapted(miniature_sana(), "feed_forward")
    shapes = {name: tuple(weight.shape) for name, weight in policy.trainable_parameters().items()}
    assert all(shape[2:] == (1, 1) for shape in shapes.values())
    assert len(shapes) == 2 * 2 * 2  # layers, convolutions, A and B


def test_the_forward_pass_compiles_whole(model):
    """No step of it depends on data or leaves the graph."""
    x, t, conditioning = probe(model)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, t: model._forward(model.network, x, t, conditioning), backend="eager", fullgraph=True
    )
    assert_close(compiled(x, t), model._forward(model.network, x, t, conditioning))
