"""All answers of a round: their coefficients by hand, their losses against a slow loop, and whole runs."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from align.config.credit import Gae
from align.config.group_relative import DrGrpo, Grpo
from align.types import LossOutput
from preference.batches import ResponseBatch
from preference.dpa import commands
from preference.dpa.checks import contradictions
from preference.dpa.kept import read_rows
from preference.dpa.rounds import RoundMaker
from preference.dpa.scored import Clipped, Regression, ScoredBatch, group_advantages, regression_weights
from preference.stored_pairs import UpdateSize

from .runs import config_of

NAN = float("nan")


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_weights_are_the_softmax_times_the_number_of_scored_answers():
    """tau = 1/2, scores 0 and ln 2: powers 1 and 4, softmax 1/5 and 4/5, of two scored answers 2/5 and 8/5."""
    found = regression_weights(f64(0.0, math.log(2), NAN, 7.0), torch.tensor([0, 0, 0, 1]), 0.5)
    assert_close(found, f64(0.4, 1.6, 0.0, 1.0))


def test_advantages_compare_answers_under_one_direction_only():
    """Direction of group 0 scores 1 and 3, that of group 1 101 and 103: each group by itself gives -1 and 1."""
    scores, groups = f64(1.0, 3.0, 101.0, 103.0, NAN), torch.tensor([0, 0, 1, 1, 1])
    assert_close(group_advantages(scores, groups, DrGrpo()), f64(-1.0, 1.0, -1.0, 1.0, 0.0))
    mixed = group_advantages(scores, torch.zeros(5, dtype=torch.int64), DrGrpo())
    assert mixed[1] < 0 < mixed[2]  # in one group the first direction would be blamed for the other's scores


class Scores:
    """Log-probabilities of two answers, of two tokens and one."""

    def __init__(self, log_probs):
        self.log_probs = log_probs

    def table(self, values=None):
        flat = self.log_probs if values is None else values
        return torch.stack([flat[:2], torch.cat([flat[2:], flat.new_zeros(1)])])

    def mask(self):
        return torch.tensor([[True, True], [True, False]])

    def sums(self):
        return self.table().sum(dim=1)

    @property
    def lengths(self):
        return torch.tensor([2, 1])


class Scorer:
    def __init__(self, log_probs):
        self.scores = Scores(log_probs)

    def lay(self, groups):
        return None

    def score(self, layout):
        return self.scores


class Parts:
    def __init__(self, log_probs):
        self.scorer = Scorer(log_probs)


def batch_of(coefficients, old=None):
    one, two = torch.tensor([5]), torch.tensor([5, 6])
    return ScoredBatch(
        index=torch.arange(2),
        rows=torch.arange(2),
        prompts=[one, one],
        responses=[two, one],
        coefficients=coefficients,
        old=old,
    )


def loss_of(method, batch, pairs=4, tokens=10):
    method._size = UpdateSize(pairs=pairs, chosen_tokens=tokens)
    found = method.loss(batch)
    assert isinstance(found, LossOutput)
    return found


def test_regression_by_hand():
    """-(2 (-1 - 3) + 0.5 (-4)) = 10 over the 10 tokens of the update; the micro-batch has 2 of its 4 answers, so its
    mean counts twice: 2. The gradient is -c / 10 * 2."""
    log_probs = f64(-1.0, -3.0, -4.0).requires_grad_()
    found = loss_of(Regression(Parts(log_probs)), batch_of(f64(2.0, 0.5)))
    assert found.loss.item() == pytest.approx(2.0)
    assert found.count == 2
    found.loss.backward()
    assert_close(log_probs.grad, f64(-0.4, -0.4, -0.1))


def test_coefficients_of_one_are_supervised_fine_tuning():
    from preference.config import SftConfig
    from preference.sft import Sft

    log_probs = f64(-1.0, -3.0, -4.0)
    weighted = loss_of(Regression(Parts(log_probs)), batch_of(f64(1.0, 1.0))).loss
    assert_close(weighted, loss_of(Sft(SftConfig(), Parts(log_probs)), batch_of(f64(1.0, 1.0))).loss)


def slow_surrogate(log_probs, old, advantages, clip):
    """Token by token; answers of two tokens and one."""
    total = 0.0
    for place, (new, before) in enumerate(zip(log_probs, old, strict=True)):
        advantage = advantages[0 if place < 2 else 1]
        ratio = math.exp(new - before)
        total += -min(advantage * ratio, advantage * min(max(ratio, 1 - clip), 1 + clip))
    return total


def test_the_surrogate_is_clipped_around_the_rounds_start():
    new, old, advantages = (-1.0, -3.0, -4.0), (-1.5, -2.9, -3.2), (1.5, -0.7)
    batch = batch_of(f64(*advantages), old=[f64(*old[:2]), f64(*old[2:])])
    found = loss_of(Clipped(Parts(f64(*new)), 0.2), batch)
    assert float(found.loss) == pytest.approx(slow_surrogate(new, old, advantages, 0.2) / 10 * 2)
    assert float(found.metrics["clip_ratio/high"]) == pytest.approx(1 / 3)  # e^0.5 > 1.2, where the advantage pushes
    assert float(found.metrics["clip_ratio/low"]) == pytest.approx(1 / 3)  # e^-0.8 < 0.8 of the bad one


def test_before_the_first_update_it_is_the_advantage_weighted_likelihood():
    """Without old numbers the ratio is 1 and its gradient that of log p: -A / 10 * 2 for each token."""
    log_probs = f64(-1.0, -3.0, -4.0).requires_grad_()
    found = loss_of(Clipped(Parts(log_probs), 0.2), batch_of(f64(1.5, -0.7)))
    found.loss.backward()
    assert_close(log_probs.grad, f64(-0.3, -0.3, 0.14))
    assert float(found.metrics["ratio_deviation"]) == 0.0


def test_a_batch_keeps_what_belongs_together():
    batch = batch_of(f64(2.0, 0.5), old=[f64(1.0, 2.0), f64(3.0)]).select(torch.tensor([1, 0, 1]))
    assert isinstance(batch, ResponseBatch)
    assert batch.coefficients.tolist() == [0.5, 2.0, 0.5]
    assert [len(part) for part in batch.old] == [len(part) for part in batch.responses] == [1, 2, 1]


def metrics_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {key: value for line in lines for key, value in line.items()}


def test_a_run_of_weighted_regression(folder):
    """All answers are in the file, their weights have the mean 1 in each group of the first round; a tenth comes back
    in the second."""
    config = config_of(folder, loss="rwr", tau=0.5)
    assert not list(contradictions(config))
    run = commands.train(config, name="rwr")
    first, second = (read_rows(run / "rounds" / f"round_0{number}.jsonl") for number in (1, 2))
    groups = {}
    for row in first:
        groups.setdefault(row["group"], []).append(row)
    assert max(map(len, groups.values())) == 3
    for rows in groups.values():
        assert sum(row["weight"] for row in rows) == pytest.approx(len(rows))
        assert max(rows, key=lambda row: row["score"])["weight"] == max(row["weight"] for row in rows)
    assert sum(row in first for row in second) == round(0.1 * len(first))
    assert {"dpa/kept", "dpa/margin", "logps/chosen"} <= set(metrics_of(run))


def test_a_run_on_advantages(folder):
    """Two updates a round: the ratio is 1 in the first and not in the second. Nothing is replayed."""
    config = config_of(folder, loss="grpo", estimator=Grpo(scale="none"), clip_range=0.1)
    assert not list(contradictions(config))
    run = commands.train(config, name="grpo")
    first, second = (read_rows(run / "rounds" / f"round_0{number}.jsonl") for number in (1, 2))
    assert not any(row in first for row in second)
    by_group = {}
    for row in first:
        by_group.setdefault(row["group"], []).append(row["advantage"])
    assert all(sum(values) == pytest.approx(0.0, abs=1e-5) for values in by_group.values())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    moved = [line["ratio_deviation"] for line in lines if "ratio_deviation" in line]
    assert moved[0] == pytest.approx(0.0, abs=1e-4)
    assert moved[1] > 1e-4
    assert moved[2] == pytest.approx(0.0, abs=1e-4)
    assert list((run / "rounds").glob("*.safetensors"))


def test_it_goes_on_within_a_round_with_what_was_said_at_its_start(folder, monkeypatch):
    """Back to the checkpoint of step 3, in the middle of round 2: neither answers nor old numbers are made again."""
    config = config_of(folder, loss="grpo")
    run = commands.train(config, name="stopped")
    last = run / "checkpoints" / "step_000004"
    whole = load_file(last / "weights.safetensors")
    shutil.rmtree(last)
    monkeypatch.setattr(RoundMaker, "sample", None)
    monkeypatch.setattr("preference.reference._compute", None)
    commands.train(config, resume=run)
    again = load_file(last / "weights.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_round_of_one_update_asks_nobody(folder):
    config = replace(config_of(folder, loss="grpo", rounds=1), training=replace(config_of(folder).training, steps=1))
    run = commands.train(config, name="once")
    assert not list((run / "rounds").glob("*.safetensors"))
    assert metrics_of(run)["ratio_deviation"] == 0.0


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"tau": 1.0}, "algorithm.tau", "`tau` belongs to `loss: rwr`"),
        ({"clip_range": 0.1, "loss": "rwr"}, "algorithm.clip_range", "belongs to `loss: grpo`"),
        ({"estimator": Grpo(), "loss": "dpo"}, "algorithm.estimator", "belongs to `loss: grpo`"),
        ({"loss": "grpo", "replay": 0.1}, "algorithm.replay", "older answers are not its own"),
        ({"loss": "grpo", "estimator": Gae()}, "algorithm.estimator", "gae needs"),
    ],
)
def test_contradictions(folder, change, key, message):
    found = [problem for problem in contradictions(config_of(folder, **change)) if key in problem.keys]
    assert found, key
    assert message in found[0].message
