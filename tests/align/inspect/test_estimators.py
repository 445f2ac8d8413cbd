"""The page of estimators is what they declare; the figure shows what they compute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from align.advantages import available
from align.advantages.registry import find
from align.inspect.estimators import (
    BEGIN,
    END,
    describe,
    main,
    table,
    with_table,
)
from align.inspect.estimators_figure import compared_samples, compared_tokens, example, figure

PAGE = Path(__file__).parents[3] / "docs" / "advantages.md"
NOT_ZERO_BY_DESIGN = {"ngrpo", "psr_nsr", "ddpo_tracked"}


def test_the_page_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    again = "run `python -m align.inspect.estimators docs/advantages.md docs/images/advantages.png`"
    assert with_table(page) == page, again


def test_every_estimator_has_one_row_with_all_cells():
    rows = table().splitlines()[2:]
    assert sorted(re.match(r"\| `(\w+)`", row)[1] for row in rows) == sorted(available())
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 8
        assert all(cells)


@pytest.mark.parametrize("kind", available())
def test_a_source_says_where_in_it_or_that_nobody_looked(kind):
    source = describe(kind).source
    assert re.search(r"(equations?|algorithm|section) \d", source) or source.endswith("Equation number not checked.")


def test_a_row_by_hand():
    row = describe("canon")
    assert row.formula.startswith("A_i = mu inter_i + (1 - mu) intra_i")
    assert row.needs == "`group_ids`, `metric`"
    assert row.scope == "group (by option)"
    assert row.use.startswith("to compare by a second number")
    assert "https://arxiv.org/abs/2509.23962" in row.source
    assert describe("tempo").what == "GRPO plus a temporal difference where rollouts branch (reconstruction)"
    assert describe("tempo").needs == "`group_ids`, `mask`, `token_ids` or `step_key`"
    assert describe("ddpo_tracked").scope == "batch, keeps statistics"
    assert describe("negative_only").needs == "nothing else"


def test_an_estimator_that_does_not_say_when_to_use_it_is_named(monkeypatch):
    monkeypatch.setattr(find("rloo").options_type, "__doc__", "Only what it does.")
    with pytest.raises(ValueError, match="rloo does not say when to use it"):
        describe("rloo")


def test_a_page_without_a_place_for_the_table():
    with pytest.raises(ValueError, match="needs the two lines"):
        with_table("# Advantages\n")


def test_the_figure_has_every_estimator(tmp_path):
    samples, tokens = dict(compared_samples()), dict(compared_tokens())
    assert sorted((*samples, *tokens)) == sorted(available())
    assert all(values.shape == (12, 4) for values in tokens.values())
    figure(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_the_lower_half_by_hand():
    """Four rollouts aaaa aaba abaa baaa with rewards 1 0 0 0.

    spo_tree: children are averaged, so V(aaa) = 1, V(aab) = 0, V(aa) = 1/2, V(ab) = 0, V(a) = 1/4, V(b) = 0, and the
    root is 1/8. Returns: the reward everywhere.
    """
    rows = dict(compared_tokens())
    torch.testing.assert_close(rows["spo_tree"][0], torch.tensor([0.125, 0.25, 0.5, 0.0]))
    torch.testing.assert_close(rows["spo_tree"][3], torch.tensor([-0.125, 0.0, 0.0, 0.0]))
    assert rows["returns"][0].tolist() == [1.0] * 4


def test_numbers_of_the_upper_half():
    rows = dict(compared_samples())
    assert all(values.shape == example().rewards.shape for values in rows.values())
    for kind, values in rows.items():
        assert bool((values[8:] == 0).all()) == (kind not in NOT_ZERO_BY_DESIGN)  # the third group is all equal
    torch.testing.assert_close(rows["dr_grpo"][:4], torch.tensor([0.75, -0.25, -0.25, -0.25]))


def test_the_command_writes_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    main([str(page)])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| kind |")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text.splitlines()
    with pytest.raises(SystemExit):
        main([])
