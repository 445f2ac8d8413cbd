"""Diffusion-DPO and SFT on stored pictures, on the miniature and on models that predict noise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from align.engine.distributed import Processes
from align.engine.timers import Timers
from align.errors import AlignError
from diffusion.assemble import OFFLINE_ALGORITHMS, make_policy
from diffusion.config import DiffusionDpoConfig, ImagesConfig, NoiseScheduleTimes, PairsConfig, SftConfig
from diffusion.stored_pictures import read_pictures

from .models.assembled import RUN, Assembled
from .models.miniature import miniature
from .models.miniature_unet import miniature_sd2, miniature_sd15
from .stored import PROMPTS, write_pairs

TIMES = NoiseScheduleTimes(draws=2)


class Rank:
    """One of several processes that have nothing to tell each other."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def gather_objects(self, value):
        return [value, *[()] * (self.world - 1)]


def assemble(folder: Path, kind=DiffusionDpoConfig, *, make=miniature, processes=None, data=None, **settings):
    """The method on pictures in this folder."""
    if not (folder / "pairs.jsonl").exists():
        write_pairs(folder)
    path, data = str(folder / "pairs.jsonl"), data or {}
    if kind is DiffusionDpoConfig:
        own = {"data": PairsConfig(path=path, **data), "pairs_per_step": 4, "beta": 3.0}
    else:
        own = {"data": ImagesConfig(path=path, **data), "images_per_step": 4}
    config = replace(RUN, algorithm=kind(**{"times": TIMES, **own, **settings}), rewards=())
    model = make()
    policy, timer = make_policy(config, model, keep_reference=True), Timers().stage
    method = OFFLINE_ALGORITHMS[kind](
        config,
        read_pictures(config.algorithm.data),
        model=model,
        policy=policy,
        processes=processes or Processes(),
        timer=timer,
    )
    return Assembled(config, model, policy, method)


@pytest.mark.parametrize("make", [miniature, miniature_sd15, miniature_sd2])
def test_dpo_loss_equals_a_slow_loop(tmp_path, make):
    """Each pair and draw by itself, the formulas of both paths written out in float64."""
    parts = assemble(tmp_path, make=make)
    parts.disturb()
    batch = parts.awm.collect(1)
    out = parts.awm.loss(batch)
    probe = parts.awm._prober(batch.chosen, batch.index, 1)
    margins = []
    for place in range(len(batch)):
        conditioning = batch.conditioning.select([int(batch.prompt_rows[place])])
        for draw in range(2):
            t, noise = probe.times[draw, place], probe.noise.view(2, 4, *batch.chosen.shape[1:])[draw, place]
            errors = {}
            for name, x0 in (("w", batch.chosen[place]), ("l", batch.rejected[place])):
                x_t, target = noised_by_hand(parts.model.path, x0, noise, float(t))
                with torch.no_grad():
                    new = parts.model.predict(parts.policy.module, x_t[None], t[None], conditioning)[0]
                    with parts.policy.reference() as network:
                        base = parts.model.predict(network, x_t[None], t[None], conditioning)[0]
                errors[name] = float(((new.double() - target) ** 2).mean())
                errors[f"{name}_ref"] = float(((base.double() - target) ** 2).mean())
            margins.append(-1.5 * ((errors["w"] - errors["l"]) - (errors["w_ref"] - errors["l_ref"])))
    losses = [math.log1p(math.exp(-z)) for z in margins]
    assert_close(float(out.loss.detach()), sum(losses) / len(losses), rtol=1e-4, atol=1e-5)
    assert max(abs(z) for z in margins) > 1e-4


def noised_by_hand(path, x0, noise, t):
    kind = getattr(path, "prediction_type", "velocity")
    if kind == "velocity":
        return (1 - t) * x0 + t * noise, noise.double() - x0.double()
    abar = float(path.abars.double()[round(t * len(path.abars))])
    x_t = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise
    v = abar**0.5 * noise.double() - (1 - abar) ** 0.5 * x0.double()
    return x_t, {"epsilon": noise.double(), "v_prediction": v}[kind]


def test_a_fresh_policy_has_loss_ln_2(tmp_path):
    parts = assemble(tmp_path, beta=2000.0)
    batch = parts.awm.collect(1)
    assert batch.samples is batch.rewards is batch.signal is None
    assert_close(float(parts.awm.loss(batch).loss.detach()), math.log(2), rtol=0, atol=1e-12)
    assert parts.gradient(batch).norm() > 1


def test_pairs_come_in_shuffled_epochs_and_follow_from_the_step(tmp_path):
    """12 rows, 4 a step: three steps use each row once; any step can be had without those before it."""
    parts, fresh = assemble(tmp_path), assemble(tmp_path)
    steps = [parts.awm.collect(step) for step in (1, 2, 3, 4)]
    epoch = torch.cat([batch.chosen for batch in steps[:3]])
    assert len(torch.unique(epoch.flatten(1), dim=0)) == 12
    assert torch.equal(fresh.awm.collect(4).rejected, steps[3].rejected)
    assert not torch.equal(steps[3].chosen, steps[0].chosen)


def test_every_picture_meets_its_own_prompt(tmp_path):
    parts = assemble(tmp_path, SftConfig)
    pictures = read_pictures(parts.config.algorithm.data)
    store = parts.awm._steps._store
    batch = parts.awm.collect(1)
    for place in range(len(batch)):
        row = next(r for r in range(12) if torch.equal(store([r]).latents[0, 0], batch.latents[place]))
        expected = parts.model.encode([PROMPTS[row % 3]])
        found = batch.conditioning.select([int(batch.prompt_rows[place])])
        assert pictures.prompts[row] == PROMPTS[row % 3]
        assert all(torch.equal(found[name], expected[name]) for name in expected.tensors)


def test_processes_share_the_rows(tmp_path):
    """Two processes with two rows each have the four rows of one, with the same times and noise."""
    whole = assemble(tmp_path).awm.collect(2)
    halves = [assemble(tmp_path, processes=Rank(rank, 2)).awm.collect(2) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.chosen for half in halves]), whole.chosen)
    assert torch.cat([half.index for half in halves]).tolist() == whole.index.tolist()


def test_sft_loss_is_the_matching_error(tmp_path):
    parts = assemble(tmp_path, SftConfig, kl_beta=0.5)
    parts.disturb()
    batch = parts.awm.collect(1)
    out = parts.awm.loss(batch)
    probe = parts.awm._prober(batch.latents, batch.index, 1)
    output = parts.awm._prober.trained(probe, batch.conditioning, batch.prompt_rows).detach().double()
    error = ((output - (probe.noise - probe.clean).double()) ** 2).mean()
    assert_close(out.metrics["policy_loss"], error, rtol=1e-6, atol=1e-9)
    assert_close(float(out.loss.detach()), float(error) + 0.5 * float(out.metrics["kl"]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [DiffusionDpoConfig, SftConfig])
def test_a_picture_that_cannot_be_read(tmp_path, kind):
    """Stop with row and reason, or leave the row out: weight 0, counted, the mean of the others in the metrics."""
    write_pairs(tmp_path)
    (tmp_path / "images" / "bright2.png").write_bytes(b"text")
    settings = {"images_per_step": 12} if kind is SftConfig else {"pairs_per_step": 12}
    with pytest.raises(AlignError, match=r"pairs\.jsonl:3: no picture that can be read"):
        assemble(tmp_path, kind, **settings).awm.collect(1)
    parts = assemble(tmp_path, kind, data={"bad_rows": "skip"}, **settings)
    parts.disturb()
    batch = parts.awm.collect(1)
    assert batch.weights.sum() == 11
    assert parts.awm.after_step(1) == {"unreadable": 1.0}
    out = parts.awm.loss(batch)
    good = batch.select(batch.weights.nonzero().flatten())
    assert_close(float(out.loss.detach()), float(parts.awm.loss(good).loss.detach()) * 11 / 12, rtol=1e-5, atol=1e-7)


def learned(parts, steps, learning_rate=3e-3):
    """Losses (first, last) of a few updates."""
    weights = list(parts.policy.trainable_parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    losses = []
    for step in range(1, steps + 1):
        out = parts.awm.loss(parts.awm.collect(step))
        losses.append(float(out.loss.detach()))
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return losses, out.metrics


@pytest.mark.parametrize("make", [miniature, miniature_sd15])
def test_dpo_learns_to_tell_bright_from_dark(tmp_path, make):
    losses, metrics = learned(assemble(tmp_path, make=make, pairs_per_step=12, beta=20.0), 15)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-9)
    assert losses[-1] < 0.6
    assert metrics["rewards/accuracies"] > 0.8


def test_sft_learns(tmp_path):
    losses, _ = learned(assemble(tmp_path, SftConfig, images_per_step=12), 15)
    assert losses[-1] < 0.9 * losses[0]


def test_there_is_no_state(tmp_path):
    for kind in (DiffusionDpoConfig, SftConfig):
        method = assemble(tmp_path, kind).awm
        assert method.state_dict() == {}
        method.load_state_dict({})
        method.prepare_update(0, None)
