"""Parity across user groups: from rows of an evaluation, through its record, to the page and the terminal."""

import json

import pytest

from align.errors import AlignError
from align.heldout import EvaluatedRow, HeldoutRows, user_groups, write_record
from align.report.build import write_report
from align.report.parity import parity_rows
from align.report.read import read_run
from align.report.terminal import print_report


def evaluation(step, scores):
    """Group -> scores; every score is a prompt of its own."""
    rows = [(group, score) for group, members in scores.items() for score in members]
    return HeldoutRows(
        step=step,
        weights="raw",
        rows=[
            EvaluatedRow(number=i, prompt=f"p{i}", group="all", seed=0, rewards={"ok": score}, user_group=group)
            for i, (group, score) in enumerate(rows)
        ],
    )


BEFORE = {"<young>": (0.5, 0.7), "old": (0.4, 0.4), None: (9.0,)}
AFTER = {"<young>": (0.9, 0.9), "old": (0.3, None), None: (9.0,)}


@pytest.fixture
def folder(tmp_path):
    for step, scores in ((0, BEFORE), (4, AFTER)):
        write_record(tmp_path / "evaluations" / f"step_{step:06d}.json", evaluation(step, scores))
    return tmp_path


def test_the_record_by_hand():
    """Means 0.6 and 0.4: mean 0.5, worst 0.4, 20 % of the way 0.44, Gini 2 * 0.2 / (2 * 4 * 0.5) = 0.1.

    The row that stands for nobody does not count.
    """
    found = evaluation(0, BEFORE).as_json()
    numbers = found["parity"]["ok"]
    assert [numbers[key] for key in ("mean", "worst", "low", "gini")] == pytest.approx([0.5, 0.4, 0.44, 0.1])
    assert {name: group["mean"] for name, group in numbers["groups"].items()} == pytest.approx(
        {"<young>": 0.6, "old": 0.4}
    )
    assert numbers["groups"]["old"]["n"] == 2
    assert [row.get("user_group") for row in found["rows"]] == ["<young>", "<young>", "old", "old", None]


def test_costs_have_no_gini_coefficient():
    found = evaluation(0, {"a": (-1.0,), "b": (-2.0,)}).as_json()["parity"]["ok"]
    assert (found["worst"], found["gini"]) == (-2.0, None)


def test_one_group_or_none_is_no_comparison():
    for scores in ({None: (1.0, 2.0)}, {"a": (1.0, 2.0)}):
        assert "parity" not in evaluation(0, scores).as_json()
    assert evaluation(0, {"a": (None,), "b": (None,)}).parity() == {}


def test_rows_before_and_after(folder):
    rows = {row.what: (row.before, row.after) for row in parity_rows(read_run(folder))}
    assert rows == {
        "mean of groups": ("0.500", "0.600"),
        "worst group": ("0.400 (old)", "0.300 (old)"),
        "20th percentile": ("0.440", "0.420"),
        "Gini": ("0.100", "0.250"),
        "group <young>": ("0.600", "0.900"),
        "group old": ("0.400", "0.300"),
    }


def test_a_single_evaluation_has_no_after(tmp_path):
    write_record(tmp_path / "evaluations" / "step_000000.json", evaluation(0, BEFORE))
    assert {row.after for row in parity_rows(read_run(tmp_path))} == {"–"}


def test_page_and_terminal_show_it(folder, capsys):
    page = write_report(folder).read_text()
    assert "Parity across user groups" in page
    assert "group &lt;young&gt;" in page
    print_report(folder)
    assert "worst group" in capsys.readouterr().out


def test_a_run_without_groups_has_no_section(tmp_path):
    record = json.loads(json.dumps(evaluation(0, {None: (1.0,)}).as_json()))
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "step_000000.json").write_text(json.dumps(record))
    assert parity_rows(read_run(tmp_path)) == []
    assert "Parity" not in write_report(tmp_path).read_text()


def test_a_column_that_is_not_there():
    columns = {"user": ("a", None, 3)}
    assert user_groups(columns, "user", 3) == ["a", None, "3"]
    assert user_groups(columns, None, 3) == [None] * 3
    with pytest.raises(AlignError, match=r"no column `users` \(`evaluation.group_column`\). Did you mean `user`"):
        user_groups(columns, "users", 3)
