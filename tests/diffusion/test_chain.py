"""The methods on a chain, on a flow model and on one that predicts noise: ratio, slow loops, gradients, trees."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.config.estimators import DdpoTracked
from align.config.pipeline import DrGrpo, PipelineConfig
from align.config.shared import TrainingConfig
from align.config.trees import BranchGrpo, TreeGrpo
from align.engine.accumulation import Accumulator
from diffusion.chain_batch import piece_of
from diffusion.config import (
    AllSteps,
    BranchingConfig,
    CpsSampler,
    DanceGrpoConfig,
    DanceSdeSampler,
    DdimSampler,
    DdpoConfig,
    FlowGrpoConfig,
    GuardConfig,
    LoopConfig,
    RandomSteps,
    RandomWindow,
    ReinforceConfig,
    SlidingWindow,
)

from .models.chained import FLOW, LOOP, NOISE, Chained, chained

METHODS = [
    ReinforceConfig(),
    DdpoConfig(steps=AllSteps(share=1.0)),
    LoopConfig(),
    LoopConfig(objective="clip_only"),
    FlowGrpoConfig(),
    FlowGrpoConfig(kl_beta=0.3, kl_norm="exact", guard=GuardConfig()),
    FlowGrpoConfig(steps=RandomWindow(size=2), kl_beta=0.1, kl_norm="velocity"),
    DanceGrpoConfig(),
]
RUNS = {"flow": FLOW, "noise": NOISE}


def named(method) -> str:
    return method.kind if not isinstance(method, FlowGrpoConfig) else f"{method.kind}-{method.kl_norm}"


def run_of(name: str, method, updates: int = 1):
    training = TrainingConfig(micro_batch_size=4, updates_per_rollout=updates)
    return replace(RUNS[name], algorithm=method, training=training)


def later(parts: Chained, batch):
    """The rows of the second update, after the weights have moved."""
    rows = batch.select(torch.arange(len(batch) // 2, len(batch)))
    parts.disturb("trained", 0.02)
    parts.method.prepare_update(1, rows)
    return rows


# --- before the first update ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_off_before_the_first_update(name, method):
    """Invariants 5 and 17: ratio exactly 1, stored log-probabilities recomputed to the bit, KL 0, loss -mean(A)."""
    parts = chained(run_of(name, method))
    batch = parts.method.collect(1)
    for piece in batch.passes():
        out = parts.method.loss(piece)
        assert out.metrics["log_prob_mismatch"] == 0
        if method.kind != "reinforce":
            assert out.metrics["ratio_deviation"] == out.metrics["clip_ratio"] == out.metrics["approx_kl"] == 0
        assert out.metrics.get("kl", torch.zeros(())) == 0
    if method.kind in ("ddpo", "loop", "dance_grpo"):
        assert_close(parts.loss(batch), -float(batch.signal.advantages.mean()), rtol=0, atol=1e-6)


def test_a_ratio_of_one_is_exact_in_whatever_batches():
    """Rollout in batches of 3, update in ones of 2: rounding shows in the mismatch, never in the ratio."""
    parts = chained(replace(FLOW, rollout=replace(FLOW.rollout, batch_size=3)))
    batch = parts.method.collect(1).select(torch.arange(2))
    for piece in batch.passes():
        metrics = parts.method.loss(piece).metrics
        assert metrics["ratio_deviation"] == 0
        assert metrics["log_prob_mismatch"] < 1e-5


# --- against slow loops -----------------------------------------------------------------------------------------------


def outputs(parts: Chained, x, t, prompt) -> torch.Tensor:
    model = parts.model
    with torch.no_grad():
        scale = parts.config.rollout.guidance_scale
        found = model.predict(parts.policy.module, x[None].float(), torch.tensor([t]), model.encode([prompt]), scale)
    return found[0].double()


def slow_transition(parts: Chained, x, m, t, t_next, t_second):
    """Mean and standard deviation of one transition, the formulas written out again in float64."""
    sampler, dt = parts.config.rollout.sampler, t_next - t
    if isinstance(sampler, DdimSampler):
        abars = parts.model.path.abars.double()
        a, p = float(abars[round(t * len(abars))]), float(abars[round(t_next * len(abars))])
        sd = sampler.eta * math.sqrt((1 - p) / (1 - a) * (1 - a / p))
        clean = (x - math.sqrt(1 - a) * m) / math.sqrt(a)
        return math.sqrt(p) * clean + math.sqrt(max(1 - p - sd**2, 0)) * m, sd
    if isinstance(sampler, DanceSdeSampler):
        g = sampler.noise_level
    else:
        g = sampler.noise_level * math.sqrt(t / (1 - (t_second if t == 1 else t)))
    mean = x * (1 + g * g / (2 * t) * dt) + m * (1 + g * g * (1 - t) / (2 * t)) * dt
    return mean, g * math.sqrt(-dt)


def slow_row(parts: Chained, batch, row: int, place: int) -> dict:
    """Log-probability, mean, and everything else of one sample at one trained step, under the current weights."""
    way = batch.trajectory
    j = way.trained[place]
    t, t_next = way.times[j], way.times[j + 1]
    x, x_next = (state[row].double() for state in way.around(place))
    prompt = batch.samples.prompts[row]
    m = outputs(parts, x, t, prompt)
    mean, sd = slow_transition(parts, x, m, t, t_next, way.times[1])
    density = -((x_next - mean) ** 2) / (2 * sd**2) - math.log(sd) - 0.5 * math.log(2 * math.pi)
    with parts.policy.reference():
        base = outputs(parts, x, t, prompt)
    base_mean, _ = slow_transition(parts, x, base, t, t_next, way.times[1])
    pooled = density.sum() if parts.config.algorithm.log_prob == "sum" else density.mean()
    return {
        "log_prob": float(pooled),
        "mean": mean,
        "sd": sd,
        "m": m,
        "base": base,
        "base_mean": base_mean,
        "dt": t - t_next,
    }


def slow_loss(parts: Chained, batch, old: dict) -> float:
    """Mean over rows and steps of the loss, one sample and one step at a time."""
    method, total = parts.config.algorithm, []
    for row in range(len(batch)):
        advantage = float(batch.signal.advantages[row])
        for place in range(len(batch.trajectory.trained)):
            now, then = slow_row(parts, batch, row, place), old[row, place]
            d = now["log_prob"] - then["log_prob"]
            guard = getattr(method, "guard", None)
            if guard is not None:
                d = now["sd"] * d + float(((now["mean"] - then["mean"]) ** 2).mean()) / (2 * now["sd"])
            if method.kind == "reinforce":
                loss = -advantage * now["log_prob"]
            else:
                rho = math.exp(d)
                bounded = min(max(rho, 1 - method.clip_range), 1 + method.clip_range)
                loss = -min(rho * advantage, bounded * advantage)
                if getattr(method, "objective", "ppo_min") == "clip_only":
                    loss = -bounded * advantage
            if guard is not None and guard.divide_by_dt:
                loss /= now["dt"]
            beta = getattr(method, "kl_beta", 0.0)
            if beta:
                squared = (now["mean"] - now["base_mean"]) ** 2
                forms = {
                    "exact": float(squared.sum()) / (2 * now["sd"] ** 2),
                    "released": float(squared.mean()) / (2 * now["sd"] ** 2 / now["dt"]),
                    "velocity": float(((now["m"] - now["base"]) ** 2).mean()),
                }
                loss += beta * forms[method.kl_norm]
            total.append(loss)
    return sum(total) / len(total)


SLOW = [
    ("flow", ReinforceConfig(), None),
    ("flow", LoopConfig(clip_range=0.001), None),
    ("flow", LoopConfig(clip_range=0.001, objective="clip_only", log_prob="mean"), None),
    ("flow", DdpoConfig(clip_range=0.2, log_prob="sum", steps=RandomSteps()), None),
    ("flow", FlowGrpoConfig(clip_range=0.002, kl_beta=0.5, kl_norm="released"), None),
    ("flow", FlowGrpoConfig(clip_range=0.002, kl_beta=0.01, kl_norm="exact"), DanceSdeSampler(noise_level=0.5)),
    ("flow", FlowGrpoConfig(clip_range=0.002, kl_beta=0.5, kl_norm="velocity", steps=SlidingWindow(size=2)), None),
    ("flow", FlowGrpoConfig(clip_range=0.002, guard=GuardConfig()), None),
    ("noise", ReinforceConfig(steps=AllSteps(share=1.0)), None),
    ("noise", LoopConfig(clip_range=0.001, steps=AllSteps(share=1.0)), None),
    ("noise", FlowGrpoConfig(clip_range=0.002, guard=GuardConfig(divide_by_dt=False)), DdimSampler(eta=0.6)),
    ("noise", FlowGrpoConfig(clip_range=0.002, kl_beta=0.01, kl_norm="exact"), None),
]


@pytest.mark.parametrize(("name", "method", "sampler"), SLOW)
def test_loss_equals_a_slow_loop(name, method, sampler):
    """The policy that drew the samples, the current one and the base all differ.

    float32 networks on other batch shapes agree to about 1e-6, and log-probabilities are of order 1.
    """
    run = run_of(name, method, updates=1 if method.kind == "reinforce" else 2)
    if sampler is not None:
        run = replace(run, rollout=replace(run.rollout, sampler=sampler))
    parts = chained(run)
    parts.disturb("drawn", 0.05)
    batch = parts.method.collect(1)
    if method.kind == "reinforce":
        rows, old = batch, {(row, place): {"log_prob": 0.0} for row in range(8) for place in range(9)}
    else:
        rows = batch.select(torch.arange(4, 8))
        places = range(len(batch.trajectory.trained))
        old = {(row, place): slow_row(parts, rows, row, place) for row in range(4) for place in places}
        rows = later(parts, batch)
    expected = slow_loss(parts, rows, old)
    found = [parts.method.loss(piece) for piece in rows.passes()]
    assert sum(out.count for out in found) == rows.unit_count() == len(rows) * len(rows.trajectory.trained)
    assert_close(parts.loss(rows), expected, rtol=2e-4, atol=1e-5)
    if method.kind != "reinforce":
        assert float(found[0].metrics["ratio_deviation"]) > 0
        assert "log_prob_mismatch" not in found[0].metrics


def test_cps_compares_squared_differences():
    """Its log-probability is -mean((x_next - mean)^2), constants and 1 / (2 std^2) left out."""
    parts = chained(replace(FLOW, rollout=replace(FLOW.rollout, sampler=CpsSampler(noise_level=0.8))))
    batch = parts.method.collect(1)
    way = batch.trajectory
    x, x_next = (state[0].double() for state in way.around(1))
    t, t_next = way.times[way.trained[1]], way.times[way.trained[1] + 1]
    m = outputs(parts, x, t, batch.samples.prompts[0])
    mean = (1 - t_next) * (x - t * m) + t_next * math.cos(0.4 * math.pi) * (x + (1 - t) * m)
    assert_close(float(way.log_probs[0, 1]), -float(((x_next - mean) ** 2).mean()), rtol=1e-4, atol=1e-6)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_the_ladder_has_one_gradient_on_policy():
    """REINFORCE, PPO and LOOP (both objectives) before the first update: -A grad log p, whatever the clip."""
    gradients = []
    for method in (ReinforceConfig(), DdpoConfig(), LoopConfig(), LoopConfig(objective="clip_only")):
        parts = chained(replace(LOOP, algorithm=method))
        gradients.append(parts.gradient(parts.method.collect(1).passes()))
    for other in gradients[1:]:
        assert_close(other, gradients[0], rtol=1e-4, atol=1e-7)
    assert gradients[0].norm() > 1e-4


@pytest.mark.parametrize("name", RUNS)
def test_a_good_picture_becomes_likelier_and_a_bad_one_less(name):
    """A small step along minus the gradient raises mean A log p."""
    parts = chained(run_of(name, ReinforceConfig()))
    batch = parts.method.collect(1)
    before = parts.loss(batch)
    gradient = parts.gradient(batch.passes())
    with torch.no_grad():
        start = 0
        for weight in parts.policy.trainable_parameters().values():
            step = gradient[start : start + weight.numel()].view_as(weight)
            weight.sub_(0.05 * step / gradient.norm())
            start += weight.numel()
    assert parts.loss(batch) < before


def without_advantages(batch):
    return replace(batch, signal=replace(batch.signal, advantages=torch.zeros_like(batch.signal.advantages)))


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_zero_advantages_leave_only_the_pull(method):
    """Invariant 15: exactly no gradient without a KL; with one, that of the KL alone."""
    run = run_of("flow", method)
    parts = chained(run)
    parts.disturb()
    batch = parts.method.collect(1)
    gradient = parts.gradient(without_advantages(batch).passes())
    if getattr(method, "kl_beta", 0.0) == 0:
        assert gradient.abs().max() == 0
    else:
        assert gradient.abs().max() > 0
        whole, policy_only = parts.gradient(batch.passes()), chained(run, kl_beta=0.0)
        policy_only.disturb()
        rest = policy_only.gradient(policy_only.method.collect(1).passes())
        assert_close(whole, gradient + rest, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["released", "exact", "velocity"])
def test_the_kl_of_a_fresh_adapter_is_zero_with_zero_gradient(norm):
    """Invariant 17."""
    parts = chained(FLOW, kl_beta=1.0, kl_norm=norm)
    batch = without_advantages(parts.method.collect(1))
    assert parts.loss(batch) == 0
    assert parts.gradient(batch.passes()).abs().max() == 0


def test_a_kl_weight_of_zero_saves_the_pass_and_changes_no_number():
    calls = []
    parts = chained(FLOW, kl_beta=0.0)
    predict = parts.model.predict
    parts.model.predict = lambda *given, **named: calls.append(1) or predict(*given, **named)
    batch = parts.method.collect(1)
    drawn = len(calls)
    loss = parts.loss(batch)
    assert len(calls) - drawn == len(batch.trajectory.trained)
    assert loss == pytest.approx(chained(FLOW, kl_beta=0.5).loss(batch), abs=1e-7)  # a fresh adapter: its KL is 0


def test_reference_is_the_model_before_training_also_with_all_weights_trained():
    """The KL of full fine-tuning reads a frozen copy."""
    run = replace(FLOW, model=replace(FLOW.model, lora=None))
    parts = chained(run, kl_beta=1.0)
    batch = without_advantages(parts.method.collect(1))
    assert parts.loss(batch) == 0
    parts.disturb(scale=0.01)
    assert parts.loss(batch) > 0


# --- guidance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_guided_training_is_the_guided_policy(name):
    """The same guidance in rollout and update: what is stored is recomputed to the bit."""
    run = run_of(name, FlowGrpoConfig())
    parts = chained(replace(run, rollout=replace(run.rollout, guidance_scale=3.0)))
    batch = parts.method.collect(1)
    assert all(parts.method.loss(piece).metrics["log_prob_mismatch"] == 0 for piece in batch.passes())
    unguided = chained(run)  # another policy, as the mismatch shows
    assert all(unguided.method.loss(piece).metrics["log_prob_mismatch"] > 1e-4 for piece in batch.passes())


def test_the_unconditional_branch_can_be_left_out_of_the_graph():
    """The same loss; the gradient is that of the conditional branch, g = 3 times as steep as without guidance.

    By hand: m = u + 3 (c - u), so dm = 3 dc with u constant. A model whose u is replaced by a constant of equal value
    has the same gradient.
    """
    run = replace(FLOW, rollout=replace(FLOW.rollout, guidance_scale=3.0))
    whole, detached = chained(run), chained(run, detach_unconditional=True)
    for parts in (whole, detached):
        parts.disturb()
    batch = whole.method.collect(1)
    assert_close(detached.loss(batch), whole.loss(batch), rtol=1e-4, atol=1e-6)
    gradient = detached.gradient(batch.passes())
    assert not torch.allclose(gradient, whole.gradient(batch.passes()), rtol=1e-2)
    model, forward = whole.model, whole.model._forward
    blank = model.encode([""])["pooled"][0]

    def frozen(network, x_t, t, conditioning):
        """Both branches alike, but the rows of the empty prompt without gradient."""
        found = forward(network, x_t, t, conditioning)
        empty = (conditioning["pooled"] == blank).all(dim=1).view(-1, 1, 1, 1)
        return torch.where(empty, found.detach(), found)

    model._forward = frozen
    assert_close(gradient, whole.gradient(batch.passes()), rtol=1e-3, atol=1e-6)


# --- cutting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [FlowGrpoConfig(kl_beta=0.1), FlowGrpoConfig(guard=GuardConfig())], ids=["kl", "guard"]
)
@pytest.mark.parametrize("name", RUNS)
def test_passes_and_micro_batches_add_up_to_one_batch(name, method):
    """Invariant 27: steps and rows cut in any way; in a later update, so that stored numbers take part."""
    kl_norm = "exact" if name == "noise" else "released"
    parts = chained(run_of(name, replace(method, kl_norm=kl_norm), updates=2))
    rows = later(parts, parts.method.collect(1))
    gradients = []
    for size, steps in ((4, 4), (4, 1), (3, 2), (1, 3)):
        pieces = [
            piece
            for part in torch.arange(4).split(size)
            for piece in replace(rows.select(part), steps_per_pass=steps).passes()
        ]
        gradients.append(parts.gradient(pieces))
    for other in gradients[1:]:
        assert float((other - gradients[0]).norm() / gradients[0].norm()) < 1e-4


def test_a_batch_counts_rows_times_steps():
    parts = chained(FLOW, steps_per_pass=3)
    batch = parts.method.collect(1)
    assert batch.unit_count() == 8 * 4
    assert [piece.unit_count() for piece in batch.passes()] == [24, 8]
    assert [piece.places for piece in batch.passes()] == [(0, 1, 2), (3,)]
    part = batch.select(torch.tensor([5, 2]))
    assert part.unit_count() == 8
    assert torch.equal(part.trajectory.states, batch.trajectory.states[[5, 2]])


def test_a_step_is_a_function_of_its_number_alone():
    """Invariant 29: nothing sequential."""
    one, two = chained(FLOW), chained(FLOW)
    one.method.collect(1)
    first, again = one.method.collect(2), two.method.collect(2)
    assert torch.equal(first.trajectory.states, again.trajectory.states)
    assert torch.equal(first.trajectory.log_probs, again.trajectory.log_probs)
    assert torch.equal(first.signal.advantages, again.signal.advantages)


@pytest.mark.parametrize("branching", [None, BranchingConfig(at=(0, 2), factor=2)], ids=["apart", "tree"])
def test_a_step_does_not_depend_on_batch_sizes(branching):
    batches = []
    for size in (8, 3, 1):
        parts = chained(replace(FLOW, rollout=replace(FLOW.rollout, batch_size=size)), branching=branching)
        batches.append(parts.method.collect(1))
    for other in batches[1:]:
        assert other.samples.index.tolist() == batches[0].samples.index.tolist()
        assert other.samples.prompts == batches[0].samples.prompts
        assert_close(other.trajectory.states, batches[0].trajectory.states, rtol=1e-4, atol=1e-4)
        assert_close(other.trajectory.log_probs, batches[0].trajectory.log_probs, rtol=1e-4, atol=1e-5)
        assert_close(other.rewards.values, batches[0].rewards.values, rtol=0, atol=1e-3)


# --- rows without a signal --------------------------------------------------------------------------------------------


def quarter_known(*, images):
    """Rewards that differ for the first two pictures of a call only."""
    return [float(place) if place < 2 else 5.0 for place in range(len(images))]


class Recorded:
    """Stands for Accelerate in an `Accumulator`."""

    def no_sync(self, network):
        return nullcontext()

    def backward(self, loss):
        loss.backward()


def test_skipping_rows_without_a_signal_changes_nothing_but_the_cost():
    """Advantages of 6 of 8 rows are 0: three micro-batches of 2 are left out, the gradient is the same."""
    run = replace(FLOW, training=TrainingConfig(micro_batch_size=2), pipeline=PipelineConfig(base=DrGrpo()))
    results = []
    for skip in (False, True):
        parts = chained(run, skip_zero_advantages=skip)
        batch = parts.method.collect(1)
        few = torch.zeros(8)
        few[[1, 6]] = torch.tensor([1.0, -2.0])
        batch = replace(batch, signal=replace(batch.signal, advantages=few))
        if skip:
            batch = parts.method._with_idle_rows(batch)
            assert batch.idle.tolist() == [True] * 6 + [False] * 2
            assert batch.samples.index.tolist() == [0, 2, 3, 4, 5, 7, 1, 6]
        calls, predict = [], parts.model.predict

        def counted(*given, calls=calls, predict=predict, **named):
            calls.append(1)
            return predict(*given, **named)

        parts.model.predict = counted
        weights = parts.policy.trainable_parameters()
        accumulator = Accumulator(
            Recorded(), parts.policy.module, parts.method._collector.processes, micro_batch_size=2
        )
        accumulator.begin(batch)
        for piece in accumulator.micro_batches(batch):
            accumulator.backward(parts.method.loss(piece))
        accumulator.finish()
        results.append((len(calls), torch.cat([weight.grad.flatten() for weight in weights.values()])))
    assert [calls for calls, _ in results] == [4 * 4, 1 * 4]
    assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-8)


def test_the_last_micro_batch_always_runs_and_processes_agree():
    """No signal at all: all but the last micro-batch are left out; fewer where another process has less to skip."""
    run = replace(FLOW, training=TrainingConfig(micro_batch_size=2, updates_per_rollout=2))
    parts = chained(run, skip_zero_advantages=True)
    batch = without_advantages(parts.method.collect(1))
    assert parts.method._with_idle_rows(batch).idle.tolist() == [True, True, False, False] * 2

    class Two:
        def gather_objects(self, value):
            return [value, [0, value[1]]]

    parts.method._collector.processes = Two()
    assert parts.method._with_idle_rows(batch).idle.tolist() == [False] * 4 + [True, True, False, False]


# --- branching and credit over steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [BranchGrpo(), TreeGrpo()], ids=lambda b: b.kind)
def test_a_tree_gives_each_step_its_own_advantage(base):
    """Two splits into two: before the second, two rollouts share a node and its advantage; leaves have their own."""
    run = replace(FLOW, pipeline=PipelineConfig(base=base))
    parts = chained(run, branching=BranchingConfig(at=(0, 2), factor=2))
    batch = parts.method.collect(1)
    advantages, way, ids = batch.signal.advantages, batch.trajectory, batch.samples.group_ids
    assert advantages.shape == (8, 4)
    for group in ids.unique():
        rows = (ids == group).nonzero().flatten()
        for place, distinct in enumerate([2, 2, 4, 4]):
            states = way.around(place)[1][rows].flatten(1)
            assert len(states.unique(dim=0)) == distinct
            same = (states[:, None] == states[None]).all(dim=2)
            assert (advantages[rows, place][:, None] == advantages[rows, place][None])[same].all()
    assert advantages.abs().max() > 0.1
    shares = batch.signal.aux["edge_share"]
    assert shares[:, :2].tolist() == [[0.5, 0.5]] * 8
    assert shares[:, 2:].tolist() == [[1.0, 1.0]] * 8


def test_branch_advantages_by_hand():
    """Rewards 0, 2, 4, 10 of a group in order of rows: nodes of depth 1 are worth 1 and 7, leaves themselves.

    Depth 1 (steps 0 and 1): mean 4, unbiased standard deviation sqrt(18) -> -0.7071, 0.7071.
    Depth of the leaves: mean 4, deviations -4, -2, 0, 6, std sqrt(56 / 3) = 4.3205 -> -0.9258, -0.4629, 0, 1.3887.
    """

    def rewards(*, images):
        return [[0.0, 2.0, 4.0, 10.0][place % 4] for place in range(len(images))]

    run = replace(FLOW, pipeline=PipelineConfig(base=BranchGrpo()), rollout=replace(FLOW.rollout, prompts_per_step=1))
    parts = chained(run, reward=rewards, branching=BranchingConfig(at=(0, 2), factor=2))
    advantages = parts.method.collect(1).signal.advantages
    assert_close(advantages[:, 0], torch.tensor([-0.7071, -0.7071, 0.7071, 0.7071]), rtol=0, atol=1e-4)
    assert_close(advantages[:, 3], torch.tensor([-0.9258, -0.4629, 0.0, 1.3887]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("edges", "weight"), [("once", 0.5), ("each", 1.0)])
def test_shared_edges_count_once_or_for_each_rollout(edges, weight):
    run = replace(FLOW, pipeline=PipelineConfig(base=BranchGrpo()))
    parts = chained(run, branching=BranchingConfig(at=(0, 2), factor=2, edges=edges))
    batch = parts.method.collect(1)
    once = parts.method._counts_edges_once()
    first, *_, last = (piece_of(piece, parts.model.device, edges_once=once) for piece in batch.passes())
    assert first.weight.tolist() == [weight] * 8
    assert last.weight.tolist() == [1.0] * 8
    assert torch.equal(first.advantages, batch.signal.advantages[:, 0])


def test_the_first_form_of_fast_branches_where_its_window_begins():
    """One shared deterministic way to the window, K continuations, one window for the whole step."""
    run = replace(FLOW, rollout=replace(FLOW.rollout, num_inference_steps=8))
    parts = chained(run, steps=RandomWindow(size=2, earliest=0.25), branching=BranchingConfig(at=(0,), factor=4))
    seen, predict = [], parts.model.predict
    parts.model.predict = lambda network, x, *rest, **named: seen.append(len(x)) or predict(network, x, *rest, **named)
    batch = parts.method.collect(1)
    first = batch.trajectory.trained[0]
    assert 2 <= first <= 2
    assert seen == [2] * (first + 1) + [8] * (8 - first - 1)  # two prompts, until the first noise is drawn
    before, after = batch.trajectory.around(0)
    assert len(before.flatten(1).unique(dim=0)) == 2
    assert len(after.flatten(1).unique(dim=0)) == 8
    assert len({image.tobytes() for image in batch.samples.images}) == 8


def test_a_group_can_start_from_the_same_noise():
    run = replace(FLOW, rollout=replace(FLOW.rollout, share_initial_noise=True))
    batch = chained(run).method.collect(1)
    before, after = batch.trajectory.around(0)
    ids = batch.samples.group_ids
    same = ids[:, None] == ids[None]
    flat = before.flatten(1)
    assert torch.equal((flat[:, None] == flat[None]).all(dim=2), same)
    assert len(after.flatten(1).unique(dim=0)) == 8


# --- state ------------------------------------------------------------------------------------------------------------


def test_state_of_the_pipeline_survives_a_round_trip():
    """DDPO's memory of a prompt's rewards: all four prompts are in every step, so the second step reads the first's."""
    rollout = replace(FLOW.rollout, prompts_per_step=4, group_size=2)
    run = replace(FLOW, rollout=rollout, pipeline=PipelineConfig(base=DdpoTracked(min_count=2)), algorithm=DdpoConfig())
    one, two = chained(run), chained(run)
    one.method.collect(1)
    two.method.load_state_dict(one.method.state_dict())
    found, again = one.method.collect(2), two.method.collect(2)
    assert torch.equal(found.signal.advantages, again.signal.advantages)
    assert not torch.equal(found.signal.advantages, chained(run).method.collect(2).signal.advantages)


def test_the_window_is_logged():
    parts = chained(FLOW, steps=SlidingWindow(size=2, every=1))
    parts.method.collect(3)
    assert parts.method.after_step(3) == {"first_trained_step": 2.0}
