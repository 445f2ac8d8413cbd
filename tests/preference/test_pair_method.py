"""DPO and SimPO as the loop sees them: where they start, that cuts change nothing, what they log."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.errors import AlignError
from preference.batches import PairBatch
from preference.config import DpoConfig, SimpoConfig
from preference.dpo import Dpo
from preference.losses import dpo, simpo
from preference.scores import sides
from preference.simpo import Simpo
from preference.stored_pairs import annotator_rates

from .pair_data import float32, moved, parts_of, policy_of, token_pairs

DATA = token_pairs(8)


def gradient(method, cuts):
    """Loss and gradient of step 1, its pairs cut so, weighed as the engine does: by pairs."""
    weights = method._parts.policy.trainable_parameters()
    for weight in weights.values():
        weight.grad = None
    batch = method.collect(1)
    method.prepare_update(0, batch)
    total = 0.0
    for part in torch.arange(len(batch)).split(cuts):
        out = method.loss(batch.select(part))
        (out.loss * out.count / len(batch)).backward()
        total += float(out.loss.detach()) * out.count / len(batch)
    return total, {name: weight.grad.clone() for name, weight in weights.items()}


METHODS = [
    (Dpo, DpoConfig()),
    (Dpo, DpoConfig(loss={"sigmoid": 0.8, "bco_pair": 0.2}, sft_weight=1.0)),
    (Dpo, DpoConfig(loss="sigmoid_norm", beta=5.0, label_smoothing=0.1)),
    (Dpo, DpoConfig(ld_alpha=0.3, wpo=True, sft_weight=0.5, sft_mode="seq_mean_token_mean")),
    (Dpo, DpoConfig(reference_weight=0.0)),
    (Simpo, SimpoConfig()),
    (Simpo, SimpoConfig(gamma=1.4, loss="hinge", sft_weight=0.3)),
]


@pytest.mark.parametrize(("method", "config"), METHODS)
def test_micro_batches_of_any_size_give_the_gradient_of_one_batch(method, config):
    """Also of the terms that are means over tokens: answers are of different lengths. Relative to the largest entry."""
    parts = parts_of(DATA, per_step=6)
    moved(parts.policy)
    whole, expected = gradient(method(config, parts), 6)
    for cuts in (2, [1, 5], [3, 2, 1]):
        loss, found = gradient(method(config, parts), cuts)
        assert loss == pytest.approx(whole, rel=1e-5)
        for name, value in expected.items():
            assert (found[name] - value).abs().max() <= 2e-4 * value.abs().max() + 1e-7, (cuts, name)


def test_dpo_starts_at_log_2_with_rewards_of_zero():
    method = Dpo(DpoConfig(), parts_of(DATA))
    batch = method.collect(1)
    method.prepare_update(0, batch)
    out = method.loss(batch)
    assert float(out.loss.detach()) == pytest.approx(math.log(2), abs=1e-5)
    assert float(out.metrics["rewards/margins"]) == pytest.approx(0, abs=1e-5)
    assert float(out.metrics["reference_deviation"]) < 1e-5
    assert out.count == 4


def test_a_reference_that_is_not_the_start_is_told_once(caplog):
    parts = parts_of(DATA)
    moved(parts.policy)
    method = Dpo(DpoConfig(), parts)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            batch = method.collect(step)
            method.prepare_update(0, batch)
            method.loss(batch)
            method.after_step(step)
    assert caplog.text.count("before the first update the policy differs from its reference") == 1


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (DpoConfig(beta=0.3), {"beta": 0.3, "kind": {"sigmoid": 1.0}}),
        (DpoConfig(loss="ipo", beta=0.3), {"beta": 0.3, "kind": {"ipo": 1.0}, "lengths": True}),
        (DpoConfig(loss="ipo", beta=0.3, ipo_average=False), {"beta": 0.3, "kind": {"ipo": 1.0}}),
        (DpoConfig(loss="discopop", discopop_temperature=0.2), {"beta": 0.1, "kind": "discopop", "temperature": 0.2}),
        (DpoConfig(divergence="alpha", alpha=0.2), {"beta": 0.1, "divergence": "alpha", "alpha": 0.2}),
        (DpoConfig(reference_weight=0.5), {"beta": 0.1, "reference_weight": 0.5}),
    ],
)
def test_settings_reach_the_loss(config, options):
    parts = parts_of(DATA)
    moved(parts.policy)
    method = Dpo(config, parts)
    batch = method.collect(1)
    scores = method.scorer.without_gradient(batch.groups())
    reference = scores.like(torch.cat(list(batch.reference)))
    options = dict(options)
    if options.pop("lengths", False):
        lengths = sides(scores.lengths)
        options |= {"chosen_lengths": lengths.chosen, "rejected_lengths": lengths.rejected}
    expected = dpo(*sides(scores.sums()), *sides(reference.sums()), **options)
    assert_close(method.compare(scores, reference).losses, expected.losses)


def test_simpo_compares_averages_and_reads_no_reference():
    parts = parts_of(DATA, stored=False)
    method = Simpo(SimpoConfig(beta=2.5, gamma_beta_ratio=0.55), parts)
    batch = method.collect(1)
    method.prepare_update(0, batch)
    out = method.loss(batch)
    averages = sides(method.scorer.without_gradient(batch.groups()).averages())
    assert_close(out.loss.detach(), simpo(*averages, beta=2.5, gamma_beta_ratio=0.55).losses.mean())
    assert batch.reference is None
    assert not any("reference" in name or name.endswith("_change") for name in out.metrics)


def test_metrics_by_hand():
    """Of two pairs: what TRL calls accuracies compares changes, ranking accuracy the log-probabilities themselves."""
    parts = parts_of(DATA)
    before = parts.scorer.without_gradient(parts.pairs.groups(torch.arange(2))).sums().view(2, 2)
    moved(parts.policy, by=0.05)
    method = Dpo(DpoConfig(beta=0.5), parts)
    batch = parts.pairs.batch(torch.arange(2), torch.arange(2))
    method.collect(1)
    method.prepare_update(0, batch)
    metrics = {name: float(value) for name, value in method.loss(batch).metrics.items()}
    now = parts.scorer.without_gradient(batch.groups()).sums().view(2, 2)
    change = now - before
    assert metrics["rewards/chosen"] == pytest.approx(0.5 * float(change[:, 0].mean()), abs=1e-5)
    assert metrics["rewards/accuracies"] == float((change[:, 0] > change[:, 1]).float().mean())
    assert metrics["ranking/accuracy"] == float((now[:, 0] >= now[:, 1]).float().mean())
    assert metrics["logps/rejected_change"] == pytest.approx(float(change[:, 1].mean()), abs=1e-4)
    assert metrics["ranking/difficulty"] == pytest.approx(float((before[:, 1] - before[:, 0]).mean()), abs=1e-4)
    # alpha = 1 becomes 0.999: the optimum leads by log(999) / beta = 13.8 nats more than the reference does.
    ideal = float((before[:, 0] - before[:, 1] + math.log(999) / 0.5 > 0).float().mean())
    assert metrics["ranking/idealised_accuracy"] == ideal
    assert metrics["ranking/alignment_gap"] == pytest.approx(ideal - metrics["ranking/accuracy"])


def test_annotators_who_disagree_lower_the_idealised_accuracy():
    """A pair that all annotators would flip (rate 0) cannot be ranked as annotated by the best policy."""
    for rate, ideal in ((1.0, 1.0), (0.0, 0.0)):
        data = replace(DATA, columns={"annotator_rate": [rate] * 8})
        method = Dpo(DpoConfig(beta=0.01), parts_of(data))
        batch = method.collect(1)
        method.prepare_update(0, batch)
        assert float(method.loss(batch).metrics["ranking/idealised_accuracy"]) == ideal


def test_a_rate_that_is_no_share():
    data = replace(DATA, columns={"annotator_rate": [0.5] * 7 + [7]})
    with pytest.raises(AlignError, match="row 7: column `annotator_rate`"):
        annotator_rates(data)


def test_a_batch_keeps_its_rows_together():
    batch = PairBatch(
        index=torch.tensor([0, 1, 2]),
        rows=torch.tensor([7, 5, 3]),
        prompts=[torch.tensor([row]) for row in (7, 5, 3)],
        chosen=[torch.tensor([row, row]) for row in (7, 5, 3)],
        rejected=[torch.tensor([row]) for row in (7, 5, 3)],
        reference=[torch.tensor([float(row)] * 3) for row in (7, 5, 3)],
        rates=torch.tensor([0.7, 0.5, 0.3]),
    )
    part = batch.select(torch.tensor([2, 0]))
    assert part.rows.tolist() == [3, 7]
    assert [group.prompt.tolist() for group in part.groups()] == [[3], [7]]
    assert [row[0].item() for row in part.reference] == [3.0, 7.0]
    assert part.rates.tolist() == pytest.approx([0.3, 0.7])
    assert len(part) == 2


def test_a_few_steps_raise_the_margin():
    """Plain gradient steps on the same pairs: each lowers the loss."""
    policy = policy_of(float32())
    method = Dpo(DpoConfig(), parts_of(DATA, policy=policy, per_step=8))
    losses = []
    for _ in range(4):
        loss, found = gradient(method, 8)
        losses.append(loss)
        with torch.no_grad():
            for name, weight in policy.trainable_parameters().items():
                weight.sub_(0.05 * found[name])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01
