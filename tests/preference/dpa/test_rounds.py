"""What a round keeps, and whether a policy follows: by hand."""

import pytest
import torch

from align.shaping.steering import Scale
from preference.dpa.config import DpaConfig
from preference.dpa.control import Control
from preference.dpa.kept import kept_pairs, pair_rows, read_rows, replayed, scored_rows, scores_of, summary, write_rows
from preference.dpa.rounds import Answers
from preference.dpa.steering import steering_figures
from preference.formats import TextRow

CONTROL = Control.of(DpaConfig(), ("a", "b"))
NAN = float("nan")


def answers(rewards, texts, vectors, groups):
    chat = TextRow(prompt=({"role": "user", "content": "q"},))
    return Answers(
        rows=[chat] * len(texts),
        vectors=vectors,
        completions=texts,
        rewards=torch.tensor(rewards).double(),
        group_ids=torch.tensor(groups),
    )


def pairs_of(found, min_margin=0.0):
    """Rows of the kept pairs, raw rewards as the scale."""
    scores = scores_of(found, CONTROL, Scale.none(2))
    return pair_rows(found, CONTROL, scores, kept_pairs(found, scores, min_margin=min_margin))


def test_best_and_worst_of_each_group_along_its_direction():
    """Group 0 asks for a: answers 1 (3.0) and 0 (1.0). Group 1 asks for b: answers 3 (2.0) and 5 (0.0)."""
    rewards = [[1.0, 9.0], [3.0, 0.0], [2.0, 4.0], [0.0, 2.0], [5.0, 1.0], [7.0, 0.0]]
    found = answers(rewards, list("uvwxyz"), [(100, 0)] * 3 + [(0, 100)] * 3, [0, 0, 0, 1, 1, 1])
    rows = pairs_of(found)
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows] == [("v", "u"), ("x", "z")]
    assert [row["score_chosen"] - row["score_rejected"] for row in rows] == [2.0, 2.0]
    assert rows[1]["direction"] == {"a": 0, "b": 100}
    assert rows[1]["rewards_chosen"] == [0.0, 2.0]
    assert pairs_of(found, min_margin=2.5) == []


def test_ties_unscored_and_empty_answers_make_no_pair():
    tied = answers([[1.0, 0.0], [1.0, 0.0]], ["u", "v"], [(100, 0)] * 2, [0, 0])
    assert pairs_of(tied) == []
    alone = answers([[1.0, 0.0], [NAN, 0.0]], ["u", "v"], [(100, 0)] * 2, [0, 0])
    assert pairs_of(alone) == []
    empty = answers([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]], ["u", " ", "w"], [(100, 0)] * 3, [0, 0, 0])
    (row,) = pairs_of(empty)
    assert row["chosen"][0]["content"] == "u"


def test_a_file_gives_back_its_rows(tmp_path):
    rows = [{"prompt": "ü", "chosen": "a\nb", "rejected": "c", "rewards_chosen": [None, 1.0]}]
    write_rows(tmp_path / "rounds" / "round_01.jsonl", rows)
    assert read_rows(tmp_path / "rounds" / "round_01.jsonl") == rows


def test_replay_draws_a_share_once():
    rows = [{"number": number} for number in range(10)]
    found = replayed(rows, 0.3, 0, 2)
    assert len(found) == len({row["number"] for row in found}) == 3
    assert found == replayed(rows, 0.3, 0, 2)
    assert replayed(rows, 0.0, 0, 2) == []


def test_figures_of_a_policy_that_follows_and_of_one_that_does_the_opposite():
    """Two directions, each best in its own objective: the boxes from -1 to (1, 0) and (0, 1) cover 2 + 2 - 1 = 3."""
    directions = torch.eye(2).double()
    follows = steering_figures(directions, torch.eye(2).double(), ("a", "b"), reference=-1.0)
    assert follows == {
        "control/a": pytest.approx(1.0),
        "control/b": pytest.approx(1.0),
        "control/violated_pairs": 0.0,
        "control/hypervolume": pytest.approx(3.0),
    }
    opposite = steering_figures(directions, 1 - torch.eye(2).double(), ("a", "b"), reference=-1.0)
    assert opposite["control/a"] == pytest.approx(-1.0)
    assert opposite["control/violated_pairs"] == 1.0


def test_figures_of_a_policy_that_does_not_listen_and_of_one_direction():
    """The same whatever is asked: no correlation, 0. One direction asks for nothing different: no number at all."""
    deaf = steering_figures(torch.eye(2).double(), torch.full((2, 2), 0.5).double(), ("a", "b"), reference=-1.0)
    assert (deaf["control/a"], deaf["control/b"]) == (0.0, 0.0)
    alone = steering_figures(torch.eye(2).double()[:1], torch.ones(1, 2).double(), ("a", "b"), reference=-1.0)
    assert "control/a" not in alone


def test_all_scored_answers_of_the_kept_groups():
    """Group 0: 1, 3 and an unscored answer; group 1: two equal scores, not kept. Numbers ride along by their name."""
    rewards = [[1.0, 0.0], [3.0, 5.0], [NAN, 0.0], [2.0, 0.0], [2.0, 1.0]]
    found = answers(rewards, list("uvwxy"), [(100, 0)] * 5, [0, 0, 0, 1, 1])
    scores = scores_of(found, CONTROL, Scale.none(2))
    pairs = kept_pairs(found, scores, min_margin=0.0)
    rows = scored_rows(found, CONTROL, scores, pairs, {"weight": torch.arange(5.0)})
    assert [(row["completion"][0]["content"], row["score"], row["weight"], row["group"]) for row in rows] == [
        ("u", 1.0, 0.0, 0),
        ("v", 3.0, 1.0, 0),
    ]
    assert rows[1]["rewards"] == [3.0, 5.0]
    assert rows[0]["direction"] == {"a": 100, "b": 0}


def test_what_a_round_kept_in_numbers():
    """One of two groups, margin 3 - 1, the best scores 3 and has four letters."""
    rewards = [[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
    found = answers(rewards, ["u", "four", "x", "y"], [(100, 0)] * 4, [0, 0, 1, 1])
    scores = scores_of(found, CONTROL, Scale.none(2))
    assert summary(found, kept_pairs(found, scores, min_margin=0.0), scores) == {
        "dpa/kept": 0.5,
        "dpa/margin": 2.0,
        "dpa/score_chosen": 3.0,
        "dpa/characters_chosen": 4.0,
    }
    nothing = kept_pairs(found, scores, min_margin=9.0)
    assert summary(found, nothing, scores)["dpa/margin"] == 0.0
