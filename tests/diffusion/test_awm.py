"""AWM on the miniature: the ratio, both pulls, old log-probabilities, gradients, against slow loops and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.config.pipeline import PipelineConfig
from align.config.shared import TrainingConfig
from align.engine.random import keyed_normal
from diffusion.config import LaggedPolicyConfig, LinearLag, LogitNormalTimes, UniformTimes
from diffusion.timesteps import draw_times

from .models.assembled import RUN, Assembled, assemble, with_reward

ONLY_POLICY = {"kl_beta": 0.0, "lagged": None}


def slow_velocity(parts: Assembled, x_t: torch.Tensor, t: float, prompt: str) -> torch.Tensor:
    """One network call for one latent."""
    model = parts.model
    scale = parts.config.rollout.guidance_scale
    with torch.no_grad():
        velocity = model.predict(parts.policy.module, x_t[None], torch.tensor([t]), model.encode([prompt]), scale)
    return velocity[0].double()


def slow_terms(parts: Assembled, batch, step: int) -> list[list[dict[str, float]]]:
    """Every (sample, draw) by itself: matching error, weighting, pulls in float64, the formulas written out again."""
    config, awm = parts.config, parts.config.algorithm
    key = (config.seed, step)
    sigmas = parts.model.times(config.rollout.num_inference_steps)
    samples = []
    for place, index in enumerate(batch.samples.index.tolist()):
        row = torch.tensor([index])
        times = draw_times(awm.times, sigmas, row, 1, *key, "train_times")[:, 0].tolist()
        noises = keyed_normal((len(times), *batch.latents.shape[1:]), row, *key, "train_noise")[0]
        draws = []
        for t, noise in zip(times, noises, strict=True):
            x0, prompt = batch.latents[place], batch.samples.prompts[place]
            x_t = (1 - t) * x0 + t * noise
            velocity = slow_velocity(parts, x_t, t, prompt)
            error = float(((velocity - (noise.double() - x0.double())) ** 2).mean())
            terms = {"t": t, "error": error, "log_prob": slow_log_prob(awm.weighting, error, t)}
            weight = (1 - min(t, 0.99)) / (2 * 0.49 * t) if awm.kl_weighting == "elbo" else 1.0
            with parts.policy.reference():
                terms["kl"] = weight * float(((velocity - slow_velocity(parts, x_t, t, prompt)) ** 2).mean())
            with parts.policy.swapped(parts.awm._lagged.weights if parts.awm._lagged else parts.policy.state_dict()):
                terms["kl_lagged"] = weight * float(((velocity - slow_velocity(parts, x_t, t, prompt)) ** 2).mean())
            draws.append(terms)
        samples.append(draws)
    return samples


def slow_log_prob(weighting: str, error: float, t: float) -> float:
    return {
        "uniform": -error,
        "t": -t * error,
        "t_squared": -t * t * error,
        "huber": -t * ((error + 1e-10) ** 0.5 - 1e-5),
        "ghuber": -t * ((error + 1e-10) ** 0.25 - (1e-10) ** 0.25) / 0.25,
    }[weighting]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def slow_loss(parts: Assembled, batch, new, old) -> float:
    """Loss from the terms under the current and the old weights, sample by sample."""
    awm = parts.config.algorithm
    policy = []
    for place, (now, then) in enumerate(zip(new, old, strict=True)):
        advantage = float(batch.signal.advantages[place]) / parts.config.pipeline.clip * awm.advantage_max
        logs = [(a["log_prob"], b["log_prob"]) for a, b in zip(now, then, strict=True)]
        if awm.ratio == "sum_first":
            logs = [(mean(a for a, _ in logs), mean(b for _, b in logs))]
        ratios = [torch.tensor(a - b, dtype=torch.float64).exp().item() for a, b in logs]
        low, high = 1 - awm.clip_range, 1 + awm.clip_range
        policy.append(mean(max(-advantage * r, -advantage * min(max(r, low), high)) for r in ratios))
    loss = mean(policy) + awm.kl_beta * mean(term["kl"] for draws in new for term in draws)
    if awm.lagged is not None:
        loss += awm.lagged.kl_beta * mean(term["kl_lagged"] for draws in new for term in draws)
    return loss


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_nothing_is_off_before_the_first_update():
    """Fresh adapter: the ratio is exactly 1 (bitwise), the clip idle, both velocity differences exactly 0."""
    parts = assemble()
    metrics = parts.awm.loss(parts.awm.collect(1)).metrics
    assert metrics["ratio_deviation"] == 0
    assert metrics["clip_ratio"] == 0
    assert metrics["kl"] == 0
    assert metrics["kl_lagged"] == 0
    assert metrics["matching_error"] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weighting": "uniform", "ratio": "sum_first", "kl_beta": 0.5},
        {"weighting": "huber", "kl_weighting": "elbo", "kl_beta": 0.3, "lagged": None},
        {"weighting": "t", "kl_beta": 0.0, "times": UniformTimes(draws=3)},
        {"weighting": "t_squared", "times": LogitNormalTimes(draws=2), "clip_range": 0.01},
    ],
)
def test_loss_equals_a_slow_loop(settings):
    """The policy, the lagged one and the one that drew the samples all differ; each sample and draw is passed alone.

    float32 networks on other batch shapes agree to about 1e-6, and the loss is of order 0.1 to 1.
    """
    run = replace(RUN, training=TrainingConfig(micro_batch_size=4, updates_per_rollout=2))
    parts = assemble(run, **settings)
    parts.disturb("drawn", 0.1)
    batch = parts.awm.collect(1).select(torch.arange(4, 8))
    old = slow_terms(parts, batch, 1)
    parts.disturb("trained", 0.05)
    new = slow_terms(parts, batch, 1)
    out = parts.awm.loss(batch)
    assert out.count == 4
    assert_close(float(out.loss.detach()), slow_loss(parts, batch, new, old), rtol=1e-4, atol=2e-6)
    assert_close(float(out.metrics["matching_error"]), mean(t["error"] for d in new for t in d), rtol=1e-5, atol=1e-6)
    assert out.metrics["ratio_deviation"] > 1e-4  # the case is no trivial one


def test_guided_training_is_the_guided_policy():
    """With guidance 1.5 in the rollout the loss passes through the guided velocity, and its ratio is 1 all the same."""
    run = replace(RUN, rollout=replace(RUN.rollout, guidance_scale=1.5))
    parts = assemble(run, kl_beta=0.2)
    batch = parts.awm.collect(1)
    assert parts.awm.loss(batch).metrics["ratio_deviation"] == 0
    parts.disturb()
    terms = slow_terms(parts, batch, 1)
    assert_close(
        float(parts.awm.loss(batch).loss.detach()), slow_loss(parts, batch, terms, terms), rtol=1e-4, atol=2e-6
    )


def test_two_micro_batches_equal_one():
    """Gradient accumulation over uneven pieces equals the whole update; so does its loss."""
    parts = assemble(kl_beta=0.1)
    parts.disturb()
    batch = parts.awm.collect(1)
    whole = parts.gradient(batch)
    pieces = parts.gradient(batch.select(torch.arange(5)), batch.select(torch.arange(5, 8)))
    assert relative_error(pieces, whole) < 1e-4
    assert whole.norm() > 1e-3


def test_on_policy_gradient_is_that_of_weighted_matching():
    """At ratio 1: grad loss = grad mean_i,t A_i t (L + 1e-10)^p / p for ghuber, whatever the ratio form."""
    for ratio in ("exp_first", "sum_first"):
        parts = assemble(**ONLY_POLICY, ratio=ratio)
        parts.disturb()
        batch = parts.awm.collect(1)
        found = parts.gradient(batch)
        probe = parts.awm._probe(batch)
        velocity = parts.awm._prober.trained(probe, batch.conditioning, batch.prompt_rows).double()
        error = ((velocity - (probe.noise - probe.clean).double()) ** 2).flatten(1).mean(1).view_as(probe.times)
        weighted = batch.signal.advantages.double() / 5 * probe.times * (error + 1e-10) ** 0.25 / 0.25
        weights = list(parts.policy.trainable_parameters().values())
        expected = torch.autograd.grad(weighted.mean(), weights, allow_unused=True)
        expected = torch.cat([torch.zeros(w.numel()) if g is None else g.flatten() for w, g in zip(weights, expected)])
        assert relative_error(found, expected) < 1e-5


def without_advantages(batch):
    return replace(batch, signal=replace(batch.signal, advantages=torch.zeros_like(batch.signal.advantages)))


def test_zero_advantages_leave_only_the_pulls():
    parts = assemble(**ONLY_POLICY)
    parts.disturb()
    assert parts.gradient(without_advantages(parts.awm.collect(1))).abs().max() == 0

    pulled = assemble(kl_beta=0.3, lagged=None)
    pulled.disturb()
    batch = without_advantages(pulled.awm.collect(1))
    found = pulled.gradient(batch)
    doubled = assemble(kl_beta=0.6, lagged=None)
    doubled.disturb()
    assert relative_error(doubled.gradient(without_advantages(doubled.awm.collect(1))), 2 * found) < 1e-5
    assert found.norm() > 1e-4


def test_equal_rewards_teach_nothing():
    """A reward that is constant within each group: advantages and policy gradient are exactly 0."""

    def length(*, images, prompts):
        return [float(len(prompt)) for prompt in prompts]

    parts = with_reward(length, replace(RUN, pipeline=PipelineConfig()), **ONLY_POLICY)
    batch = parts.awm.collect(1)
    assert batch.signal.advantages.abs().max() == 0
    assert parts.gradient(batch).abs().max() == 0


def test_a_weight_of_zero_saves_its_pass():
    """3 passes with both pulls, 2 with one, 1 with none; each pull stands without the other."""
    for settings, passes, names in [
        ({}, 3, {"kl", "kl_lagged"}),
        ({"kl_beta": 0.0}, 2, {"kl_lagged"}),
        ({"lagged": None}, 2, {"kl"}),
        ({"lagged": LaggedPolicyConfig(kl_beta=0.0)}, 2, {"kl"}),
        (ONLY_POLICY, 1, set()),
    ]:
        parts = assemble(**settings)
        batch = parts.awm.collect(1)
        calls = []
        hook = parts.model.network.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        out = parts.awm.loss(batch)
        hook.remove()
        assert len(calls) == passes
        assert {name for name in out.metrics if name.startswith("kl")} == names


def test_removing_a_pull_of_weight_zero_changes_no_number():
    """kl_beta -> 0 reaches the loss without that pass."""
    with_pass, without = assemble(kl_beta=1e-30), assemble(kl_beta=0.0)
    losses = []
    for parts in (with_pass, without):
        parts.disturb()
        losses.append(float(parts.awm.loss(parts.awm.collect(1)).loss.detach()))
    assert losses[0] == losses[1]


def test_lagged_policy_by_hand():
    """per_step 0.1, max_decay 0.15. Weights w0 -> w1 -> w2.

    after step 1: 0.10 w0 + 0.90 w1
    after step 2: 0.15 (0.1 w0 + 0.9 w1) + 0.85 w2, because 0.1 * 2 exceeds the maximum
    """
    parts = assemble(lagged=LaggedPolicyConfig(schedule=LinearLag(per_step=0.1, max_decay=0.15)))
    w0 = {k: v.clone() for k, v in parts.policy.state_dict().items()}
    parts.disturb("one")
    w1 = {k: v.clone() for k, v in parts.policy.state_dict().items()}
    assert parts.awm.after_step(1) == {"lagged_decay": 0.1}
    parts.disturb("two")
    w2 = parts.policy.state_dict()
    assert parts.awm.after_step(2) == {"lagged_decay": 0.15}
    for name, lagged in parts.awm._lagged.weights.items():
        assert_close(lagged, 0.15 * (0.1 * w0[name] + 0.9 * w1[name]) + 0.85 * w2[name])


def test_old_log_probs_are_of_the_weights_that_drew_the_samples():
    """Two updates: the first needs none (NaN), the second keeps those from before the first."""
    parts = assemble(replace(RUN, training=TrainingConfig(micro_batch_size=4, updates_per_rollout=2)))
    parts.disturb()
    batch = parts.awm.collect(1)
    assert batch.old_log_probs.shape == (8, 2)
    assert batch.old_log_probs[:4].isnan().all()
    assert not batch.old_log_probs[4:].isnan().any()
    second = batch.select(torch.arange(4, 8))
    assert parts.awm.loss(second).metrics["ratio_deviation"] < 1e-6  # nothing has changed yet
    parts.disturb("update")
    assert parts.awm.loss(second).metrics["ratio_deviation"] > 1e-4


def test_off_policy_rolls_out_and_compares_with_the_lagged_policy():
    on, off = assemble(), assemble(off_policy=True)
    plain = on.awm.collect(1)
    off.disturb()  # the lagged policy still is the fresh one
    batch = off.awm.collect(1)
    assert_close(batch.latents, plain.latents, rtol=0, atol=0)
    assert not batch.old_log_probs.isnan().any()
    assert off.awm.loss(batch).metrics["ratio_deviation"] > 1e-4
    with off.policy.swapped(off.awm._lagged.weights):
        assert off.awm.loss(batch).metrics["ratio_deviation"] < 1e-6


def test_advantages_are_rescaled():
    """Clip 5, advantage_max 2: an advantage a enters as 2 a / 5; without a clip as 2 a."""
    for clip, factor in [(5.0, 0.4), (None, 2.0)]:
        run = replace(RUN, pipeline=replace(RUN.pipeline, clip=clip))
        scaled, plain = (
            assemble(run, **ONLY_POLICY, advantage_max=2.0),
            assemble(replace(RUN, pipeline=replace(RUN.pipeline, clip=1.0)), **ONLY_POLICY),
        )
        found, base = (parts.gradient(with_advantages(parts.awm.collect(1))) for parts in (scaled, plain))
        assert relative_error(found, factor * base) < 1e-5


def with_advantages(batch):
    values = torch.linspace(-1, 1, len(batch))
    return replace(batch, signal=replace(batch.signal, advantages=values))


def test_a_step_does_not_depend_on_batch_sizes():
    """Rollout batches of 8 and 3, micro-batches of 8 and 3: same samples, rewards, advantages and loss to rounding."""
    small = replace(RUN, rollout=replace(RUN.rollout, batch_size=3), training=TrainingConfig(micro_batch_size=3))
    batches, losses = [], []
    for run in (RUN, small):
        parts = assemble(run)
        batches.append(parts.awm.collect(1))
        losses.append(parts.gradient(batches[-1]))
    assert_close(batches[0].latents, batches[1].latents, rtol=1e-4, atol=1e-4)
    assert_close(batches[0].rewards.values, batches[1].rewards.values, rtol=0, atol=2e-3)


def test_steps_and_seeds_differ():
    parts = assemble()
    first, second = parts.awm.collect(1), parts.awm.collect(2)
    assert not torch.equal(first.latents, second.latents)
    assert set(first.samples.group_ids.tolist()).isdisjoint(second.samples.group_ids.tolist())
    other = assemble(replace(RUN, seed=1))
    assert not torch.equal(other.awm.collect(1).latents, first.latents)


def test_collect_is_a_function_of_the_step_alone():
    """What a resumed run needs: no hidden state, bit for bit."""
    fresh, walked = assemble(), assemble()
    walked.awm.collect(1)
    walked.awm.collect(2)
    assert_close(walked.awm.collect(3).latents, fresh.awm.collect(3).latents, rtol=0, atol=0)


def test_state_survives_a_round_trip():
    parts, again = assemble(), assemble()
    parts.disturb()
    parts.awm.after_step(1)
    again.awm.load_state_dict(dict(parts.awm.state_dict()))
    for name, weight in parts.awm._lagged.weights.items():
        assert torch.equal(weight, again.awm._lagged.weights[name])


def test_a_lagged_policy_switched_on_later_starts_from_the_current_weights():
    before, now = assemble(lagged=None), assemble()
    now.disturb()
    now.awm.load_state_dict(dict(before.awm.state_dict()))
    for name, weight in now.policy.state_dict().items():
        assert torch.equal(weight, now.awm._lagged.weights[name])


def test_full_fine_tuning_works_as_well():
    run = replace(RUN, model=replace(RUN.model, lora=None))
    parts = assemble(run, kl_beta=0.1)
    batch = parts.awm.collect(1)
    assert parts.awm.loss(batch).metrics["kl"] == 0
    assert parts.gradient(batch).norm() > 0
    parts.disturb(scale=0.02)
    assert parts.awm.loss(batch).metrics["kl"] > 0
