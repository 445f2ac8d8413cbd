"""The one table of metrics."""

from pathlib import Path

import pytest

from align.report.metrics import GROUPS, describe, markdown

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_the_page_is_up_to_date():
    assert DOCS.read_text(encoding="utf-8") == markdown(), "run `python -m align.report.metrics > docs/metrics.md`"


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("reward", "reward"),
        ("rewards/shapes/mean", "rewards/<name>/mean"),
        ("eval/shapes/mean", "eval/<name>/mean"),
        ("eval/shapes/two", "eval/<name>/<class>"),
        ("time/step", "time/step"),
        ("time/rollout", "time/<stage>"),
    ],
)
def test_logged_names_find_their_entry(name, entry):
    assert describe(name).name == entry


def test_an_unknown_name_has_no_entry():
    assert describe("nothing/of/the/kind") is None
    assert describe("rewards") is None


def test_names_are_unique_and_every_field_is_written():
    metrics = [metric for group in GROUPS.values() for metric in group]
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert all((metric.title, metric.formula, metric.meaning, metric.healthy, metric.remedy))
