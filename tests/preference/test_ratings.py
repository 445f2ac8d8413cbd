"""Ratings in several attributes: both public layouts, and the walk to pairs through the shared core."""

import json
import math

import pytest
import torch

from align.errors import AlignError
from align.pairs import best_and_worst, dominating_pairs
from align.shaping.combine import weighted_sum
from preference.ratings import read_ratings

HELPSTEER = [
    {"prompt": "p", "response": "a", "helpfulness": 3, "verbosity": 1, "source": "x"},
    {"prompt": "q", "response": "c", "helpfulness": 2, "verbosity": 2, "source": "x"},
    {"prompt": "p", "response": "b", "helpfulness": 1, "verbosity": 4, "source": "y"},
]
ULTRAFEEDBACK = [
    {
        "instruction": "p",
        "completions": [
            {"response": "a", "annotations": {"honesty": {"Rating": "4"}, "truth": {"Rating": "N/A"}}},
            {"response": "b", "annotations": {"honesty": {"Rating": "2"}, "truth": {"Rating": "5"}}},
        ],
    }
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_columns_of_numbers(tmp_path):
    found = read_ratings(write(tmp_path / "a.jsonl", HELPSTEER))
    assert (found.names, found.group_ids) == (("helpfulness", "verbosity"), (0, 1, 0))
    assert found.values == ((3.0, 1.0), (2.0, 2.0), (1.0, 4.0))
    assert [(row.prompt, row.responses) for row in found.rows] == [("p", ("a",)), ("q", ("c",)), ("p", ("b",))]
    assert read_ratings(write(tmp_path / "a.jsonl", HELPSTEER), attributes=["verbosity"]).values[2] == (4.0,)


def test_lists_of_completions(tmp_path):
    found = read_ratings(write(tmp_path / "a.jsonl", ULTRAFEEDBACK))
    assert (found.names, found.group_ids, len(found)) == (("honesty", "truth"), (0, 0), 2)
    assert found.values[1] == (2.0, 5.0)
    assert math.isnan(found.values[0][1])
    assert found.report.summary() == "1 of 1 rows, 2 answers"


def test_pairs_through_the_shared_core(tmp_path):
    """Helpfulness and half of verbosity: a 3 + 0.5 = 3.5, b 1 + 2 = 3, so a wins; neither dominates the other."""
    found = read_ratings(write(tmp_path / "a.jsonl", HELPSTEER))
    table, groups = found.table([1.0, 0.5]), torch.tensor(found.group_ids)
    pairs = best_and_worst(weighted_sum(table.values, table.weights), groups)
    assert (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.margin.tolist()) == ([0], [2], [0.5])
    assert len(dominating_pairs(table.values, groups)) == 0


@pytest.mark.parametrize(
    ("rows", "attributes", "message"),
    [
        ([{"prompt": "p", "response": "a", "good": "x"}], ["good"], ":1: `good` must be a number, found 'x'"),
        ([{"prompt": "p", "response": "a", "good": 1}, {"prompt": "p", "good": 2}], None, ":2: `response` is missing"),
        ([{"prompt": "p", "completions": 3}], None, ":1: `completions` must be a list"),
        ([{"prompt": "p", "completions": [{"response": "a"}]}], None, "an object with `response` and `annotations`"),
        ([{"response": "a", "good": 1}], None, "expected a column prompt or instruction"),
        ([{"prompt": "p", "good": 1}], None, "expected a column response or completion"),
    ],
)
def test_bad_rows(tmp_path, rows, attributes, message):
    with pytest.raises(AlignError) as caught:
        read_ratings(write(tmp_path / "a.jsonl", rows), attributes=attributes)
    assert message in str(caught.value)


def test_unknown_attributes_and_weights(tmp_path):
    path = write(tmp_path / "a.jsonl", ULTRAFEEDBACK)
    with pytest.raises(AlignError, match=r"has no ratings of `honest`. Did you mean `honesty`\?"):
        read_ratings(path, attributes=["honest"])
    with pytest.raises(AlignError, match=r"expected a weight for each of honesty, truth, found 1"):
        read_ratings(path).table([1.0])


def test_bad_rows_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", [*HELPSTEER, {"prompt": "p", "response": "", "helpfulness": 1}])
    found = read_ratings(path, bad_rows="skip")
    assert found.report.summary() == "3 of 4 rows, 1 left out: not usable, 3 answers"
