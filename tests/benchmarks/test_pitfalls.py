"""Every line that the command prints stands in the page, and every figure of the page has its command."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "advantages_pitfalls.md").read_text(encoding="utf-8")
SPEC = importlib.util.spec_from_file_location("benchmark_pitfalls", ROOT / "benchmarks" / "pitfalls.py")
PITFALLS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(PITFALLS)


@pytest.mark.parametrize("figure", PITFALLS.FIGURES)
def test_the_page_has_what_the_command_prints(figure):
    lines = list(PITFALLS.FIGURES[figure]())
    assert lines
    assert [line for line in lines if line not in PAGE] == []
    assert f"`python benchmarks/pitfalls.py {figure}`" in PAGE


def test_no_figure_of_the_page_is_without_a_command():
    """Rows of tables with digits in them come from the commands, heads of tables apart."""
    printed = {line for figure in PITFALLS.FIGURES.values() for line in figure()}
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and any(letter.isdigit() for letter in line)]
    assert [line for line in rows if line not in printed and "eps 1e-8" not in line] == []
