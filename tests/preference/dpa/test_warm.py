"""Rated answers before the first round: which are imitated under which direction, a whole run, what contradicts."""

import json
import logging
from dataclasses import replace

import pytest

from align.config.directions import Listed
from align.errors import AlignError
from align.shaping.steering import Scale
from preference.dpa import commands
from preference.dpa.check_warm import read_rated
from preference.dpa.checks import contradictions
from preference.dpa.config import WarmStart
from preference.dpa.control import Control
from preference.dpa.kept import kept_pairs, read_rows, scores_of
from preference.dpa.warm import rated_answers

from .runs import config_of

RATED = [("q", "aaa", 4.0, 1), ("q", "b", 1.0, 4), ("p", "cc", 2.0, None), ("p", "dd", 3.0, 2), ("p", "e", 3.5, 0)]


@pytest.fixture
def rated(tmp_path):
    """Answers to two prompts, rated in `vowels` and in `tidy`, which stands for the reward `length`."""
    chat = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "response": [{"role": "assistant", "content": text}],
            "vowels": vowels,
            "tidy": tidy,
        }
        for prompt, text, vowels, tidy in RATED
    ]
    path = tmp_path / "rated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chat))
    return path


def warmed(folder, rated, **algorithm):
    warm = WarmStart(data=str(rated), columns={"length": "tidy"}, steps=2)
    config = config_of(folder, **{"warm_start": warm, "rounds": 1, **algorithm})
    return replace(config, data=replace(config.data, answers_per_step=2))


def test_the_best_of_each_prompt_under_its_direction(folder, rated):
    """Everybody asks for `length`, rated as `tidy`: of q it is b (4), of p dd (2); cc has no such rating. With two
    directions a prompt has two groups."""
    config = warmed(folder, rated, directions=Listed(directions=({"length": 1.0},)), directions_per_prompt=2)
    control = Control.of(config.algorithm, config.reward_names())
    found = rated_answers(config, control, read_rated(config, config.algorithm.warm_start))
    assert found.group_ids.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
    assert found.rewards[4].isnan().tolist() == [False, True]
    assert found.vectors[0] == (0, 100)
    assert "100 x length" in found.rows[0].prompt[0]["content"]
    scores = scores_of(found, control, Scale.of(found.rewards))
    best = kept_pairs(found, scores, min_margin=0.0).chosen.tolist()
    assert [found.completions[place] for place in best] == ["b", "b", "dd", "dd"]


def test_a_run_begins_with_the_rated_answers(folder, rated):
    """Two steps on them and two of a round; the scale is of the base model's answers, the round of the warmed model's:
    its log counts from round 0."""
    config = warmed(folder, rated, loss="grpo")
    assert not list(contradictions(config))
    run = commands.train(config, name="warm")
    best = read_rows(run / "rounds" / "round_00.jsonl")
    assert [row["prompt"][-1]["content"] for row in best] == ["q", "p"]
    assert {"chosen", "rejected", "score_chosen"} <= set(best[0])
    assert "advantage" in read_rows(run / "rounds" / "round_01.jsonl")[0]
    assert (run / "rounds" / "scale.json").is_file()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["dpa/round"] for line in lines if "dpa/round" in line] == [0.0, 0.0, 1.0, 1.0]


def test_a_reward_that_tells_nothing_apart_is_named(folder, tmp_path, caplog):
    """All answers of the first round have the same length of 7 by this reward."""
    (tmp_path / "flat.py").write_text("def flat(completions, **_):\n    return [7.0] * len(completions)\n")
    config = config_of(folder, rounds=1)
    rewards = (config.rewards[0], replace(config.rewards[1], function=f"{tmp_path / 'flat.py'}:flat"))
    config = replace(config, rewards=rewards, training=replace(config.training, steps=1))
    with caplog.at_level(logging.WARNING):
        commands.train(config, name="flat")
    assert "the reward `flat` is 7 for all 24 answers of the first round" in caplog.text


def test_a_reward_that_scores_nothing_ends_the_run(folder, tmp_path):
    (tmp_path / "mute.py").write_text("def mute(completions, **_):\n    return [None] * len(completions)\n")
    config = config_of(folder, rounds=1, scale="none")
    rewards = (config.rewards[0], replace(config.rewards[1], function=f"{tmp_path / 'mute.py'}:mute"))
    with pytest.raises(AlignError, match="`mute` has scored none of the 24 answers of round 1"):
        commands.train(replace(config, rewards=rewards), name="mute")


def test_contradictions(folder, rated, tmp_path):
    def said(config):
        return "\n".join(str(problem) for problem in contradictions(config))

    config = warmed(folder, rated)
    warm = config.algorithm.warm_start

    def changed(**fields):
        return replace(config, algorithm=replace(config.algorithm, warm_start=replace(warm, **fields)))

    assert said(config) == ""
    assert "the warm start takes 4 of 4 steps, so the rounds have none" in said(changed(steps=4))
    uneven = changed(steps=3)
    uneven = replace(uneven, algorithm=replace(uneven.algorithm, rounds=2))
    assert "1 steps do not divide over 2 rounds" in said(uneven)
    missing = said(changed(columns={}))
    assert "has no ratings of `length`" in missing
    assert "`algorithm.warm_start.columns`" in missing
    assert "names `lenght`, which is no reward" in said(changed(columns={"lenght": "tidy"}))
    single = tmp_path / "single.jsonl"
    single.write_text(rated.read_text().splitlines()[0] + "\n")
    assert "one rated answer for each prompt, so there is none to prefer" in said(changed(data=str(single)))
