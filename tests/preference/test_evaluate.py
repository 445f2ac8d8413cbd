"""The ranking report by hand, and the evaluation around it: rows in order, answers with rewards, several processes."""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from align.config.shared import RewardConfig
from align.engine.distributed import Processes
from align.heldout import gain, write_record
from align.report.read import read_run
from align.report.texts import text_pairs
from align.rewards.scorer import Scorer
from preference.config import DpoConfig, GenerationConfig, SimpoConfig
from preference.dpo import Dpo
from preference.evaluate import AnswerEvaluator, Evaluator, PairEvaluator
from preference.pair_report import PairTable, figures, pair_rewards
from preference.simpo import Simpo
from preference.tokens import TokenPrompts

from .pair_data import moved, parts_of, token_pairs

# loss, rewards, summed log-probabilities, tokens, reference's, entropy: three pairs
TABLE = PairTable(
    values=torch.tensor(
        [
            [0.5, 0.2, -0.1, -10.0, -12.0, 5.0, 3.0, -12.0, -11.0, 8.0],
            [0.6, -0.3, -0.4, -20.0, -15.0, 4.0, 5.0, -17.0, -11.0, 18.0],
            [0.7, 0.0, 0.1, -6.0, -9.0, 2.0, 3.0, -6.0, -10.0, 10.0],
        ],
        dtype=torch.float64,
    )
)


def test_rows_by_hand():
    """Pair 0: -10 >= -12, but -2 a token >= -4; pair 1: -20 < -15, -5 < -3; pair 2: -6 >= -9, -3 >= -3."""
    rows = pair_rewards(TABLE)
    assert [row["ranking_accuracy"] for row in rows] == [1, 0, 1]
    assert [row["ranking_accuracy_normalised"] for row in rows] == [1, 0, 1]
    assert [row["likelihood_margin"] for row in rows] == [2, -5, 3]
    assert [row["chosen_log_prob"] for row in rows] == [-2, -5, -3]


def test_figures_by_hand():
    """c = -11 + 12, -11 + 17, -10 + 6 = 1, 6, -4. With beta 2 the optimum adds log(999) / 2 = 3.45 nats to the lead:
    -1 + 3.45 > 0, -6 + 3.45 < 0, 4 + 3.45 > 0. Changes of the chosen: 2, -3, 0; of the rejected: -1, -4, 1.
    Both fall and the margin grows: pair 1 (-3 > -4)."""
    found = figures(TABLE, beta=2.0)
    assert found["loss"] == pytest.approx(0.6)
    assert found["ranking/accuracy"] == pytest.approx(2 / 3)
    assert found["ranking/difficulty"] == pytest.approx(1.0)
    assert found["ranking/idealised_accuracy"] == pytest.approx(2 / 3)
    assert found["ranking/alignment_gap"] == pytest.approx(0.0)
    assert found["logps/chosen_change"] == pytest.approx(-1 / 3)
    assert found["logps/rejected_change"] == pytest.approx(-4 / 3)
    assert found["logps/both_falling"] == pytest.approx(1 / 3)
    assert found["rewards/accuracies"] == pytest.approx(2 / 3)
    assert found["entropy"] == pytest.approx(36 / 22)
    assert "ranking/idealised_lowest" not in found


def test_figures_without_a_beta_give_the_range_over_the_usual_ones():
    """The lead that the optimum adds, log(999) / beta = 691, 69, 6.9, 1.4, 0.69, turns pair 1 from beta 1 down."""
    found = figures(TABLE, beta=None)
    assert found["ranking/idealised_highest"] == 1.0
    assert found["ranking/idealised_lowest"] == pytest.approx(1 / 3)
    assert found["ranking/idealised_accuracy"] == 1.0


@pytest.mark.parametrize(("method", "config"), [(Dpo, DpoConfig(beta=0.2)), (Simpo, SimpoConfig())])
def test_held_out_pairs(method, config):
    """What training would say of the same pairs; SimPO compares with the start, too, although it trains without it."""
    parts = parts_of(token_pairs(7, columns={"class": list("ababaab")}))
    moved(parts.policy)
    made = method(config, parts)
    evaluator = PairEvaluator(made, parts.pairs, processes=Processes(), batch_size=3)
    table = evaluator.table()
    rows = evaluator.rows(table)
    assert [row.group for row in rows] == list("ababaab")
    assert [row.number for row in rows] == list(range(7))
    batch = parts.pairs.batch(torch.arange(7), torch.arange(7))
    out = made.loss(batch)
    found = evaluator.figures(table)
    assert found["loss"] == pytest.approx(float(out.loss.detach()), abs=1e-5)
    for name in ("rewards/margins", "logps/chosen", "ranking/accuracy"):
        assert found[name] == pytest.approx(float(out.metrics[name]), abs=1e-4)
    assert found["logps/chosen_change"] != 0
    assert 0 < found["entropy"] < math.log(97)


def model_of(policy):
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: " ".join(map(str, ids)))
    return SimpleNamespace(network=policy.module, tokenizer=tokenizer, stop_ids=(2,), pad_id=0)


def prompts_of(data):
    return TokenPrompts(
        rows=data.rows,
        prompts=data.prompts,
        prompt_ids=data.prompt_ids,
        columns={},
        report=data.report,
        tokenizer="none",
    )


def test_answers_are_scored_and_paired_with_those_of_the_start(tmp_path):
    """Two evaluations: the same prompts and seeds in the same order, texts in the record, texts on the page."""
    parts = parts_of(token_pairs(5))
    (tmp_path / "measure.py").write_text(
        "def length(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    )
    scorer = Scorer((RewardConfig(function=f"{tmp_path / 'measure.py'}:length"),))
    settings = GenerationConfig(max_new_tokens=4, seeds=2, temperature=1.0, batch_size=3)

    parts_of_answers = {"scorer": scorer, "processes": Processes(), "timer": nullcontext}
    answers = AnswerEvaluator(model_of(parts.policy), prompts_of(token_pairs(5)), settings, **parts_of_answers)
    pairs = PairEvaluator(Dpo(DpoConfig(), parts), parts.pairs, processes=Processes(), batch_size=4)
    evaluator = Evaluator(pairs, answers)
    before = evaluator.evaluate(0, parts.policy.module, "raw")
    moved(parts.policy, by=0.3)
    after = evaluator.evaluate(3, parts.policy.module, "raw")
    assert len(before.rows) == 5 + 2 * 5
    assert [row.seed for row in before.rows[5:]] == [0] * 5 + [1] * 5
    assert all(row.rewards == {"length": float(len(row.completion))} for row in after.rows[5:])
    assert gain(before, after, "length").n == 10
    assert gain(before, after, "ranking_accuracy").n == 5
    assert after.metrics()["eval/loss"] == after.figures["loss"]
    for evaluation in (before, after):
        write_record(tmp_path / "evaluations" / f"step_{evaluation.step:06d}.json", evaluation)
    record = json.loads((tmp_path / "evaluations" / "step_000003.json").read_text())
    assert record["rows"][5]["completion"] == after.rows[5].completion
    shown = text_pairs(read_run(tmp_path))
    assert [pair.before.text for pair in shown] == [row.completion for row in before.rows[5:]]
    assert shown[0].after.scores == (("length", f"{after.rows[5].rewards['length']:.2f}"),)
