"""The toys of the pages on DPO and SimPO run as printed and learn; the settings that the pages name exist."""

import re
from pathlib import Path

import pytest

from align.config import shipped

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(("page", "start"), [("dpo.md", 0.8), ("simpo.md", 0.15)])
def test_the_toy_runs_as_printed_and_learns(page, start):
    """Tokens are drawn almost evenly at first: about 4 of them before the end, one in six of the right kind."""
    (source,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert len([line for line in source.splitlines() if line.strip()]) < 60
    names: dict = {}
    exec(compile(source, page, "exec"), names)
    assert names["before"].item() == pytest.approx(start, abs=0.3 * start)
    assert names["after"].item() > 2 * names["before"].item()


@pytest.mark.parametrize("page", ["dpo.md", "simpo.md"])
def test_what_the_page_points_at_is_there(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:preference|tests)/[\w/]+\.py)(?::\w+(?:\.\w+)?)?`", text):
        assert (DOCS.parent / path).is_file(), path
    for name in re.findall(r"`(preference/(?:dpo|simpo)_\w+)`", text):
        assert shipped.find(name) is not None, name
