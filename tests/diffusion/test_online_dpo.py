"""On-line DPO on the miniature: which pairs, a slow float64 loop, the reference, ties and gaps, processes."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from align.config.shared import TrainingConfig
from align.engine.random import keyed_normal
from diffusion.config import LogitNormalTimes, NoiseScheduleTimes, OnlineDpoConfig
from diffusion.exchange import WholeStep, fetch_latents, whole_step
from diffusion.timesteps import draw_times

from .models.assembled import RUN, Assembled, assemble, with_reward
from .models.miniature_unet import miniature_sd15

DPO = replace(RUN, algorithm=OnlineDpoConfig(beta=3.0, times=LogitNormalTimes(draws=2)))


def error_of(parts: Assembled, network, x0, noise, t: float, prompt: str) -> float:
    """Matching error of one latent at one time, in float64 from the formula of the flow path."""
    x_t = (1 - t) * x0 + t * noise
    with torch.no_grad():
        v = parts.model.predict(network, x_t[None], torch.tensor([t]), parts.model.encode([prompt]))[0]
    return float(((v.double() - (noise.double() - x0.double())) ** 2).mean())


def slow_margins(parts: Assembled, batch, step: int) -> list[list[float]]:
    """z of each pair and draw."""
    config, dpo = parts.config, parts.config.algorithm
    sigmas = parts.model.times(config.rollout.num_inference_steps)
    margins = []
    for place, index in enumerate(batch.index.tolist()):
        row = torch.tensor([index])
        times = draw_times(dpo.times, sigmas, row, 1, config.seed, step, "train_times")[:, 0].tolist()
        noises = keyed_normal((len(times), *batch.chosen.shape[1:]), row, config.seed, step, "train_noise")[0]
        prompt = prompt_of(parts, batch, place)
        draws = []
        for t, noise in zip(times, noises, strict=True):
            errors = [
                error_of(parts, parts.policy.module, x0[place], noise, t, prompt)
                for x0 in (batch.chosen, batch.rejected)
            ]
            with parts.policy.reference() as network:
                base = [error_of(parts, network, x0[place], noise, t, prompt) for x0 in (batch.chosen, batch.rejected)]
            draws.append(-dpo.beta / 2 * ((errors[0] - errors[1]) - (base[0] - base[1])))
        margins.append(draws)
    return margins


def prompt_of(parts: Assembled, batch, place: int) -> str:
    """The prompt of a pair, by the group that its better picture belongs to."""
    samples = batch.samples
    row = next(i for i in range(len(samples)) if torch.equal(parts.drawn[i], batch.chosen[place]))
    return samples.prompts[row]


def collected(parts: Assembled, step: int = 1):
    """Pairs of a step; `parts.drawn` are the latents of the whole rollout, in the order of its samples."""
    collector = parts.awm._collector

    def keep(number, network):
        batch = collector(number, network)
        parts.drawn = batch.latents
        return batch

    keep.encode = collector.encode
    parts.awm._collector = keep
    batch = parts.awm.collect(step)
    parts.awm._collector = collector
    return batch


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_a_slow_loop(smoothing):
    parts = assemble(DPO, label_smoothing=smoothing)
    parts.disturb()
    batch = collected(parts)
    assert len(batch) == 2
    out = parts.awm.loss(batch)
    margins = [z for draws in slow_margins(parts, batch, 1) for z in draws]
    losses = [(1 - smoothing) * math.log1p(math.exp(-z)) + smoothing * math.log1p(math.exp(z)) for z in margins]
    assert_close(float(out.loss.detach()), sum(losses) / len(losses), rtol=1e-5, atol=1e-6)
    assert_close(float(out.metrics["rewards/margins"]), sum(margins) / len(margins), rtol=1e-3, atol=1e-5)
    assert float(out.metrics["rewards/accuracies"]) == sum(z > 0 for z in margins) / len(margins)
    assert_close(
        float(out.metrics["rewards/chosen"] - out.metrics["rewards/rejected"]),
        float(out.metrics["rewards/margins"]),
        rtol=1e-6,
        atol=1e-9,
    )
    assert max(abs(z) for z in margins) > 1e-3  # the case is no trivial one


def test_a_fresh_policy_has_loss_ln_2():
    parts = assemble(DPO)
    out = parts.awm.loss(parts.awm.collect(1))
    assert_close(float(out.loss.detach()), math.log(2), rtol=0, atol=1e-12)
    assert out.metrics["rewards/margins"] == 0
    assert parts.gradient(parts.awm.collect(1)).norm() > 1e-3


def test_pairs_are_the_best_and_the_worst_of_each_prompt():
    parts = assemble(DPO)
    batch = collected(parts)
    scores, groups = batch.signal.scores, batch.samples.group_ids
    for place in range(len(batch)):
        rows = {
            name: next(i for i in range(8) if torch.equal(parts.drawn[i], latents[place]))
            for name, latents in (("chosen", batch.chosen), ("rejected", batch.rejected))
        }
        mine = scores[groups == groups[rows["chosen"]]]
        assert groups[rows["rejected"]] == groups[rows["chosen"]]
        assert scores[rows["chosen"]] == mine.max()
        assert scores[rows["rejected"]] == mine.min()
    assert parts.awm.after_step(1)["pairs"] == 2
    assert parts.awm.after_step(1)["pairs/score_margin"] > 0


def test_swapping_the_pictures_negates_the_margin():
    parts = assemble(DPO)
    parts.disturb()
    batch = parts.awm.collect(1)
    there = parts.awm.loss(batch).metrics
    back = parts.awm.loss(replace(batch, chosen=batch.rejected, rejected=batch.chosen)).metrics
    assert_close(float(back["rewards/margins"]), -float(there["rewards/margins"]), rtol=1e-6, atol=1e-9)


def test_ties_and_gaps_make_no_pair_and_weigh_nothing():
    """One prompt's pictures all score alike, of the other's one has no score: one pair, one empty place."""

    def uneven(*, images, prompts):
        values = [float(len(set(image.tobytes()))) for image in images]
        tied = prompts[0]
        scores = [1.0 if prompt == tied else value for prompt, value in zip(prompts, values, strict=True)]
        first = next(i for i, prompt in enumerate(prompts) if prompt != tied)
        return [float("nan") if i == first else score for i, score in enumerate(scores)]

    parts = with_reward(uneven, DPO)
    parts.disturb()
    batch = parts.awm.collect(1)
    assert sorted(batch.weights.tolist()) == [0.0, 1.0]
    assert batch.share == 0.5
    assert parts.awm.after_step(1)["pairs"] == 1
    out = parts.awm.loss(batch)
    alone = batch.select((batch.weights > 0).nonzero().flatten())
    assert_close(float(out.loss.detach()), float(parts.awm.loss(alone).loss.detach()) / 2, rtol=1e-6, atol=1e-9)
    single = replace(alone, share=1.0)
    for name in ("rewards/margins", "rewards/accuracies", "matching_error"):
        assert_close(float(out.metrics[name]), float(parts.awm.loss(single).metrics[name]), rtol=1e-6, atol=1e-9)


def test_a_step_without_any_pair_goes_on_and_changes_nothing():
    parts = with_reward(lambda *, images, prompts: [0.5] * len(prompts), DPO)
    parts.disturb()
    batch = parts.awm.collect(1)
    out = parts.awm.loss(batch)
    assert out.loss == 0
    assert parts.gradient(batch).abs().max() == 0
    assert math.isnan(out.metrics["rewards/margins"])
    assert parts.awm.after_step(1)["pairs"] == 0


def test_two_micro_batches_equal_one():
    run = replace(DPO, rollout=replace(DPO.rollout, prompts_per_step=4, group_size=2))
    parts = assemble(run)
    parts.disturb()
    batch = parts.awm.collect(1)
    whole = parts.gradient(batch)
    pieces = parts.gradient(batch.select(torch.arange(3)), batch.select(torch.arange(3, 4)))
    assert (pieces - whole).norm() < 1e-4 * whole.norm()


class Ranks:
    """Two processes played by one: each call of a collective is answered from what both have said."""

    def __init__(self, rank: int, answers: list) -> None:
        self.rank, self.world, self._answers = rank, 2, answers

    def gather_rows(self, rows):
        return torch.cat(self._next(rows))

    def gather_objects(self, value):
        return self._next(value)

    def _next(self, own):
        other = self._answers.pop(0)
        return [own, other] if self.rank == 0 else [other, own]


def test_latents_travel_between_processes():
    """Rows 0 1 2 here, 3 4 5 there. Here rows 4 and 0 are wanted, 2 there: 4 and 0 come back in this order."""
    latents = torch.arange(6.0).view(6, 1, 1, 1)
    here, there = (
        SimpleNamespace(samples=SimpleNamespace(index=rows), latents=latents[rows])
        for rows in (torch.arange(3), torch.arange(3, 6))
    )
    chosen = torch.tensor([4, 0, 2])
    sent = torch.isin(there.samples.index, chosen)
    answers = [there.samples.index[sent], there.latents[sent]]
    found = fetch_latents(here, chosen, torch.tensor([4, 0]), Ranks(0, answers))
    assert found.flatten().tolist() == [4.0, 0.0]


def test_the_whole_step_in_global_order():
    """Rank 0 has rows 2 and 0, rank 1 rows 1 and 3."""

    def part(rows, scores, groups, prompts):
        samples = SimpleNamespace(index=torch.tensor(rows), group_ids=torch.tensor(groups), prompts=prompts)
        return SimpleNamespace(samples=samples, signal=SimpleNamespace(scores=torch.tensor(scores)))

    here = part([2, 0], [0.2, 0.0], [9, 5], ["nine", "five"])
    there = part([1, 3], [0.1, 0.3], [9, 5], ["nine", "five"])
    answers = [there.samples.index, {9: "nine", 5: "five"}, there.signal.scores, there.samples.group_ids]
    found = whole_step(here, Ranks(0, answers))
    assert_close(found.scores, torch.tensor([0.0, 0.1, 0.2, 0.3]))
    assert found.group_ids.tolist() == [5, 9, 9, 5]
    assert found.groups().tolist() == [5, 9]
    assert found.prompts == {9: "nine", 5: "five"}
    assert isinstance(found, WholeStep)


def test_two_updates_share_the_pairs():
    run = replace(
        DPO,
        rollout=replace(DPO.rollout, prompts_per_step=4, group_size=2),
        training=TrainingConfig(micro_batch_size=4, updates_per_rollout=2),
    )
    batch = assemble(run).awm.collect(1)
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert batch.select(torch.tensor([2, 3])).index.tolist() == [2, 3]
    assert len(batch.select(torch.tensor([2, 3])).samples) == 8  # the record is of the whole rollout


def test_works_on_models_that_predict_noise():
    """Diffusion-DPO's own times: uniform over all of the noise schedule."""
    parts = assemble(DPO, model=miniature_sd15(), beta=2000.0, times=NoiseScheduleTimes())
    batch = parts.awm.collect(1)
    assert_close(float(parts.awm.loss(batch).loss.detach()), math.log(2), rtol=0, atol=1e-9)
    assert parts.gradient(batch).norm() > 0


def test_full_fine_tuning_compares_with_the_kept_weights():
    parts = assemble(replace(DPO, model=replace(DPO.model, lora=None)))
    batch = parts.awm.collect(1)
    assert_close(float(parts.awm.loss(batch).loss.detach()), math.log(2), rtol=0, atol=1e-9)
    parts.disturb(scale=0.02)
    assert abs(float(parts.awm.loss(batch).metrics["rewards/margins"])) > 1e-6


def test_collect_is_a_function_of_the_step_alone():
    fresh, walked = assemble(DPO), assemble(DPO)
    walked.awm.collect(1)
    assert torch.equal(walked.awm.collect(2).chosen, fresh.awm.collect(2).chosen)
    fresh.awm.load_state_dict(dict(walked.awm.state_dict()))
