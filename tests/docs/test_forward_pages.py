"""The toys of the pages on DiffusionNFT and DPO run as printed and learn."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["nft.md", "diffusion_dpo.md"])
def test_the_toy_runs_as_printed_and_learns(page):
    """A ring of radius 2 is 8 / pi = 2.55 away from the point (2, 0) on average; that should more than halve."""
    (source,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    lines = source.splitlines()
    assert len([line for line in lines if line.strip()]) < 60
    names: dict = {}
    exec(compile(source, page, "exec"), names)
    assert names["before"].item() == pytest.approx(-2.55, abs=0.25)
    assert names["after"].item() > -1.2
