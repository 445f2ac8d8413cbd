"""What a round keeps, and whether a policy follows: by hand."""

import pytest
import torch

from preference.dpa.config import DpaConfig
from preference.dpa.control import Control, Scale
from preference.dpa.rounds import Answers, pairs_of, read_rows, replayed, summary, write_rows
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


def test_best_and_worst_of_each_group_along_its_direction():
    """Group 0 asks for a: answers 1 (3.0) and 0 (1.0). Group 1 asks for b: answers 3 (2.0) and 5 (0.0)."""
    rewards = [[1.0, 9.0], [3.0, 0.0], [2.0, 4.0], [0.0, 2.0], [5.0, 1.0], [7.0, 0.0]]
    found = answers(rewards, list("uvwxyz"), [(100, 0)] * 3 + [(0, 100)] * 3, [0, 0, 0, 1, 1, 1])
    rows = pairs_of(found, CONTROL, Scale.none(2), min_margin=0.0)
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows] == [("v", "u"), ("x", "z")]
    assert [row["score_chosen"] - row["score_rejected"] for row in rows] == [2.0, 2.0]
    assert rows[1]["direction"] == {"a": 0, "b": 100}
    assert rows[1]["rewards_chosen"] == [0.0, 2.0]
    assert summary(rows, 2)["dpa/kept"] == 1.0
    assert pairs_of(found, CONTROL, Scale.none(2), min_margin=2.5) == []


def test_ties_unscored_and_empty_answers_make_no_pair():
    tied = answers([[1.0, 0.0], [1.0, 0.0]], ["u", "v"], [(100, 0)] * 2, [0, 0])
    assert pairs_of(tied, CONTROL, Scale.none(2), min_margin=0.0) == []
    alone = answers([[1.0, 0.0], [NAN, 0.0]], ["u", "v"], [(100, 0)] * 2, [0, 0])
    assert pairs_of(alone, CONTROL, Scale.none(2), min_margin=0.0) == []
    empty = answers([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]], ["u", " ", "w"], [(100, 0)] * 3, [0, 0, 0])
    (row,) = pairs_of(empty, CONTROL, Scale.none(2), min_margin=0.0)
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
