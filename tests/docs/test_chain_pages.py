"""The methods on a toy in the documents run as printed and learn."""

import re

import pytest

from .test_pages import ROOT, text_of


@pytest.mark.parametrize("page", ["policy_gradient.md", "flow_grpo.md"])
def test_a_method_on_a_toy_runs_as_printed_and_learns(page):
    """A ring of radius 2 is 8 / pi = 2.55 away from the point (2, 0) on average; training should more than halve it."""
    (source,) = re.findall(r"```python\n(.*?)```", text_of(ROOT / "docs" / page), re.S)
    assert len(source.splitlines()) < 60
    names: dict = {}
    exec(compile(source, f"docs/{page}", "exec"), names)
    assert names["before"].item() == pytest.approx(-2.55, abs=0.25)
    assert names["after"].item() > -1.0
