"""The numbers that a person asks for first."""

import json
import math
from dataclasses import replace

import pytest

from align.report.read import read_run
from align.report.summary import REST, problems, samples_per_step, sentences, stage_times, summarise


def test_stage_times_by_hand():
    """Two steps of 10 s and 30 s. rollout 4 + 14, backward 5 + 13, optimizer 0 + 2: 36 of 40 s, 10 % overhead.

    Of it the optimizer has 2 s, and 2 s belong to no stage. Evaluation is apart from the step.
    """
    metrics = [
        {"time/step": 10.0, "time/rollout": 4.0, "time/backward": 5.0, "time/evaluate": 7.0},
        {"time/step": 30.0, "time/rollout": 14.0, "time/backward": 13.0, "time/optimizer": 2.0, "time/evaluate": 1.0},
    ]
    stages, seconds, overhead = stage_times(metrics)
    found = {stage.name: stage for stage in stages}
    assert seconds == 40.0
    assert overhead == pytest.approx(0.1)
    assert found["rollout"].seconds == 9.0
    assert found["rollout"].share == pytest.approx(0.45)
    assert found[REST].share == pytest.approx(0.05)
    assert found["evaluate"].seconds == 4.0
    assert math.isnan(found["evaluate"].share)
    assert [stage.name for stage in stages][-1] == "evaluate"


def test_shares_of_the_step_add_up_to_one(make_run):
    stages, _, _ = stage_times(read_run(make_run(steps=5)).metrics)
    assert sum(stage.share for stage in stages if math.isfinite(stage.share)) == pytest.approx(1.0)


def test_no_times_give_no_table():
    stages, seconds, overhead = stage_times([{"reward": 1.0}])
    assert stages == ()
    assert math.isnan(seconds)
    assert math.isnan(overhead)


def test_the_headline_is_the_success_rate(make_run):
    summary = summarise(read_run(make_run(steps=6)))
    assert [gain.reward for gain in summary.overall] == ["shapes", "shapes_strict"]
    assert summary.headline.reward == "shapes_strict"
    assert summary.samples == 6 * 64


def test_what_a_model_answers_is_quoted_before_how_it_ranks(make_run):
    """Rates of stored pairs come first in a record of a language model; the answers' rate is what counts."""
    summary = summarise(read_run(make_run()))
    (rate,) = [gain for gain in summary.overall if gain.is_rate]
    ranking = replace(rate, reward="ranking_accuracy")
    assert replace(summary, gains=(ranking, rate)).headline is rate
    assert replace(summary, gains=(ranking,)).headline is ranking


def test_the_paragraph_says_what_when_and_how_much(make_run):
    run = read_run(make_run(steps=6))
    text = " ".join(sentences(run, summarise(run)))
    assert text.startswith("AWM trained builtin:tiny on the reward shapes for 6 steps: 384 pictures in ")
    assert "On 16 held-out prompts with 4 seeds each, shapes_strict went from" in text
    assert "95 % interval" in text


def test_without_evaluation_the_paragraph_speaks_of_the_training_reward(make_run):
    run = read_run(make_run(steps=2, evaluations=False))
    assert "The training reward went from" in " ".join(sentences(run, summarise(run)))


def test_a_run_without_a_step_says_so(tmp_path):
    (tmp_path / "config.yaml").write_text("branch: diffusion\n")
    run = read_run(tmp_path)
    assert sentences(run, summarise(run)) == ["No step has finished yet."]


def test_mishaps_become_sentences(tmp_path):
    rows = [{"step": 1, "unscored": 3.0, "skipped_updates": 1.0, "kl": None}, {"step": 2, "unscored": 1.0}]
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = problems(read_run(tmp_path), ())
    assert found[0].startswith("4 samples could not be scored")
    assert found[1].startswith("1 update left out")
    assert found[2] == "kl was not a finite number in 1 step."


def test_a_held_out_reward_that_fell_is_a_problem(make_run):
    folder = make_run(steps=6)
    first, last = folder / "evaluations" / "step_000000.json", folder / "evaluations" / "step_000006.json"
    early, late = first.read_text(), last.read_text()
    first.write_text(late)
    last.write_text(early)
    assert any("got worse" in problem for problem in summarise(read_run(folder)).problems)


@pytest.mark.parametrize("config", [{}, {"rollout": None}, {"rollout": {"group_size": "x"}}])
def test_a_config_that_does_not_say_gives_no_samples(config):
    assert samples_per_step(config) == 0


def test_a_folder_of_evaluations_alone_is_summarised(make_run):
    folder = make_run(steps=6)
    (folder / "metrics.jsonl").unlink()
    run = read_run(folder)
    summary = summarise(run)
    assert sentences(run, summary)[0] == "builtin:tiny was evaluated."
    assert summary.headline is not None
    assert summary.problems == ()
