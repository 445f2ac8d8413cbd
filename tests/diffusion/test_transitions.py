"""The table from sampler and path to step rule; the walk over it; what it records."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from align.engine.random import keyed_normal
from align.errors import AlignError
from diffusion.branches import noise_keys
from diffusion.chain_steps import StepPlan
from diffusion.config import (
    CpsSampler,
    DanceSdeSampler,
    DdimSampler,
    FlowSdeSampler,
    OdeSampler,
    SaSolverSampler,
)
from diffusion.denoise import denoise
from diffusion.paths import DdpmPath, FlowPath
from diffusion.rollout import Recording, SamplerSettings, sample_latents, walk
from diffusion.samplers import ddim_step, ode_step
from diffusion.trajectory import Recorder
from diffusion.transitions import RULES, Interval, transition

from .models.miniature import PROMPTS, miniature
from .models.miniature_unet import miniature_sd2, miniature_sd15

FLOW_RULES = [FlowSdeSampler(noise_level=0.7), DanceSdeSampler(noise_level=0.3), CpsSampler(noise_level=0.8)]
ABARS = torch.linspace(0.999, 0.01, 20, dtype=torch.float64)
PATHS = {
    "flow": FlowPath(),
    "epsilon": DdpmPath(ABARS, "epsilon"),
    "v_prediction": DdpmPath(ABARS, "v_prediction"),
}


def randn(*shape, seed=0):
    return keyed_normal(shape, torch.tensor([seed]), "transitions")[0].double()


def between(path) -> Interval:
    return Interval(t=0.6, t_next=0.4, t_second=0.9)


@pytest.mark.parametrize("sampler", FLOW_RULES, ids=lambda s: s.kind)
def test_a_step_without_noise_is_the_ode_step(sampler):
    """Invariants 1: a = 0 is x + dt v, also from pure noise."""
    x, v = randn(3, 4), randn(3, 4, seed=1)
    for t, t_next in ((0.6, 0.4), (1.0, 0.9)):
        at = Interval(t=t, t_next=t_next, t_second=0.9, noisy=0)
        step = transition(sampler, FlowPath(), at, x, v)
        assert_close(step.prev_sample, ode_step(x, v, t, t_next).prev_sample, rtol=0, atol=1e-12)
        assert step.std.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["epsilon", "v_prediction"])
def test_the_deterministic_sampler_of_the_diffusion_path_is_ddim_without_eta(name):
    path = PATHS[name]
    x, output = randn(3, 4), randn(3, 4, seed=1)
    expected = ddim_step(x, output, path.abar(0.6), path.abar(0.4), prediction_type=name, eta=0.0)
    at = Interval(t=0.6, t_next=0.4, t_second=0.9)
    assert torch.equal(transition(OdeSampler(), path, at, x, output).prev_sample, expected.prev_sample)
    quiet = transition(DdimSampler(eta=1.0), path, Interval(t=0.6, t_next=0.4, t_second=0.9, noisy=0), x, output)
    assert torch.equal(quiet.prev_sample, expected.prev_sample)


@pytest.mark.parametrize(("kind", "path"), sorted(RULES, key=str), ids=lambda k: k.__name__)
def test_a_stored_step_has_the_log_prob_it_was_drawn_with(kind, path):
    """Invariant 5, for every rule: the same call evaluates what it drew, to the last bit."""
    sampler, path = kind(), {FlowPath: PATHS["flow"], DdpmPath: PATHS["epsilon"]}[path]
    x, output, noise = randn(3, 4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    drawn = transition(sampler, path, between(path), x, output, noise=None if kind is OdeSampler else noise)
    again = transition(sampler, path, between(path), x, output, prev_sample=drawn.prev_sample)
    assert torch.equal(again.log_prob, drawn.log_prob)
    assert torch.equal(again.mean, drawn.mean)


@pytest.mark.parametrize("sampler", [*FLOW_RULES, DdimSampler()], ids=lambda s: s.kind)
def test_rows_of_different_steps_equal_the_loop_over_rows(sampler):
    """Invariant 4: times per row, as passes over several steps have them."""
    path = PATHS["epsilon"] if isinstance(sampler, DdimSampler) else PATHS["flow"]
    x, output, noise = randn(3, 4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    t, t_next = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0.6, 0.3, 0.2])
    mixed = transition(sampler, path, Interval(t=t, t_next=t_next, t_second=0.9), x, output, noise=noise)
    for row in range(3):
        at = Interval(t=float(t[row]), t_next=float(t_next[row]), t_second=0.9)
        one = transition(sampler, path, at, x[row : row + 1], output[row : row + 1], noise=noise[row : row + 1])
        for name in ("prev_sample", "mean", "std", "log_prob"):
            assert_close(getattr(mixed, name)[row], getattr(one, name)[0], rtol=1e-12, atol=1e-12)


def test_sampler_and_model_that_do_not_fit_are_named():
    x = torch.zeros(1, 2)
    with pytest.raises(AlignError, match="`flow_sde` does not fit a noise-predicting") as error:
        transition(FlowSdeSampler(), PATHS["epsilon"], between(None), x, x)
    assert "ddim, ode" in error.value.way_out
    with pytest.raises(AlignError, match="`ddim` does not fit a flow model") as error:
        transition(DdimSampler(), PATHS["flow"], between(None), x, x)
    assert "cps, dance_sde, flow_sde, ode" in error.value.way_out
    with pytest.raises(TypeError, match="no step rule for str"):
        transition("ode", PATHS["flow"], between(None), x, x)


def test_sa_solver_keeps_no_way_and_knows_no_diffusion_path():
    settings = SamplerSettings(sampler=SaSolverSampler(), num_inference_steps=3)
    model = miniature_sd15()
    with pytest.raises(AlignError, match="SA-Solver is for flow models"):
        sample_latents(model, model.network, model.encode(PROMPTS[:1]), torch.tensor([0]), settings, 0)
    flow = miniature()
    plan = StepPlan(noisy=(True,) * 3, trained=(0,))
    with pytest.raises(AlignError, match="no log-probability"):
        walk(flow, flow.network, flow.encode(PROMPTS[:1]), torch.tensor([0]), settings, recording=Recording(plan=plan))


# --- the walk ---------------------------------------------------------------------------------------------------------

CASES = [
    (miniature, FlowSdeSampler()),
    (miniature, DanceSdeSampler()),
    (miniature, CpsSampler()),
    (miniature_sd15, DdimSampler()),
    (miniature_sd2, DdimSampler(eta=0.5)),
]


def recorded(make, sampler, plan, keys=None, **recording):
    model = make()
    index = torch.arange(len(PROMPTS))
    settings = SamplerSettings(sampler=sampler, num_inference_steps=len(plan.noisy))
    found = walk(
        model,
        model.network,
        model.encode([PROMPTS[0]] * len(PROMPTS)),
        index,
        settings,
        3,
        keys=keys,
        recording=Recording(plan=plan, **recording),
    )
    return model, found


@pytest.mark.parametrize(("make", "sampler"), CASES, ids=lambda x: getattr(x, "kind", None) or x.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_is_kept_evaluates_to_the_stored_log_prob(make, sampler, dtype):
    """Invariants 5 and 30: bit for bit, also where states are kept in 16 bits."""
    plan = StepPlan(
        noisy=(True, True, False, True), trained=(0, 1, 3) if not isinstance(sampler, CpsSampler) else (0, 1)
    )
    model, found = recorded(make, sampler, plan, dtype=dtype, keep_means=True)
    way = found.trajectory
    assert way.states.dtype == dtype
    assert way.log_probs.dtype == torch.float32
    conditioning = model.encode([PROMPTS[0]] * 4)
    for place, j in enumerate(way.trained):
        x, x_next = (state.float() for state in way.around(place))
        at = Interval(t=way.times[j], t_next=way.times[j + 1], t_second=way.times[1])
        output = model.predict(model.network, x, torch.full((4,), way.times[j]), conditioning).detach()
        again = transition(sampler, model.path, at, x, output, prev_sample=x_next)
        assert torch.equal(again.log_prob, way.log_probs[:, place])
        assert torch.equal(again.mean, way.means[:, place])


def test_neighbouring_steps_share_their_state():
    """Steps 1, 2 and 4 of 6 touch times 1, 2, 3, 4, 5: five states, not six; steps 1 and 2 meet at time 2."""
    plan = StepPlan(noisy=(True,) * 6, trained=(1, 2, 4))
    _, found = recorded(miniature, FlowSdeSampler(), plan)
    way = found.trajectory
    assert way.states.shape[1] == 5
    assert torch.equal(way.around(0)[1], way.around(1)[0])
    assert not torch.equal(way.around(1)[1], way.around(2)[1])


def test_the_last_state_is_the_picture():
    plan = StepPlan(noisy=(True,) * 3, trained=(0, 1, 2))
    _, found = recorded(miniature, FlowSdeSampler(), plan)
    assert torch.equal(found.trajectory.states[:, -1], found.latents)


@pytest.mark.parametrize(("make", "sampler"), CASES, ids=lambda x: getattr(x, "kind", None) or x.__name__)
def test_replaying_the_noise_gives_the_same_latents(make, sampler):
    """Invariant 5: noise is a function of its key. Recording changes no number."""
    plan = StepPlan(noisy=(True,) * 3, trained=(0,))
    model, found = recorded(make, sampler, plan)
    settings = SamplerSettings(sampler=sampler, num_inference_steps=3)
    again = sample_latents(model, model.network, model.encode([PROMPTS[0]] * 4), torch.arange(4), settings, 3)
    assert torch.equal(again, found.latents)


def test_noise_only_inside_the_window():
    """Deterministic steps before and behind the window: by a plain loop over the two rules."""
    plan = StepPlan(noisy=(False, True, False), trained=(1,))
    model, found = recorded(miniature, FlowSdeSampler(noise_level=0.7), plan)
    conditioning, times = model.encode([PROMPTS[0]] * 4), model.times(3).tolist()
    shape = model.latent_shape()
    x = keyed_normal(shape, torch.arange(4), 3, "latents")
    for j in range(3):
        with torch.no_grad():
            v = model.predict(model.network, x, torch.full((4,), times[j]), conditioning)
        if j == 1:
            g2 = 0.49 * times[1] / (1 - times[1])
            dt = times[2] - times[1]
            noise = keyed_normal(shape, torch.arange(4), 3, "rollout_noise", 1)
            x = x + (v + g2 / (2 * times[1]) * (x + (1 - times[1]) * v)) * dt + (g2 * -dt) ** 0.5 * noise
        else:
            x = x + (times[j + 1] - times[j]) * v
    assert_close(found.latents, x, rtol=1e-5, atol=1e-5)


# --- trees ------------------------------------------------------------------------------------------------------------


def test_rows_that_are_still_one_go_through_the_network_once():
    """A group of 4, splits before steps 0 and 2: the network sees 1, 2, 2 and 4 latents at steps 0, 1, 2, 3."""
    keys = noise_keys(torch.zeros(4, dtype=torch.int64), 4, splits=[0, 2], factor=2)
    seen = []

    def predict(x, t, rows):
        seen.append(len(x))
        return -x

    recorder = Recorder((0, 1, 2, 3))
    noise = lambda numbers, *purpose: keyed_normal((1, 2, 2), numbers, *purpose)  # noqa: E731
    times = [1.0, 0.8, 0.6, 0.4, 0.2]
    found = denoise(FlowSdeSampler(), FlowPath(), predict, noise, torch.arange(4), times, keys=keys, recorder=recorder)
    assert seen == [1, 2, 2, 4]
    way = recorder.trajectory(times)
    assert way.states.shape[:2] == (4, 5)
    for time, distinct in enumerate([1, 2, 2, 4, 4]):
        assert len(way.states[:, time].flatten(1).unique(dim=0)) == distinct
    assert torch.equal(way.states[:, -1], found)
    assert len(way.log_probs[:, 1].unique()) == 2


def test_a_tree_equals_the_same_noise_walked_row_by_row():
    """Sharing saves network calls and changes nothing: each row alone, with the noise of its leaders."""
    keys = noise_keys(torch.zeros(4, dtype=torch.int64), 4, splits=[1, 2], factor=2)
    plan = StepPlan(noisy=(False, True, True, True), trained=(1, 2))
    _, together = recorded(miniature, FlowSdeSampler(), plan, keys=keys)
    for row in range(4):
        model = miniature()
        alone = walk(
            model,
            model.network,
            model.encode(PROMPTS[:1]),
            torch.tensor([row]),
            SamplerSettings(sampler=FlowSdeSampler(), num_inference_steps=4),
            3,
            keys=keys[row : row + 1],
            recording=Recording(plan=plan),
        )
        assert_close(alone.latents[0], together.latents[row], rtol=1e-4, atol=1e-5)
        assert_close(alone.trajectory.log_probs[0], together.trajectory.log_probs[row], rtol=1e-4, atol=1e-5)
