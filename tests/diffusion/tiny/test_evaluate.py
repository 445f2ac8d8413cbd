"""Prompts are spread evenly, the table is arithmetic, the page keeps what is not measured."""

import numpy as np
import pytest

from align.statistics import wilson_interval
from diffusion.tiny import evaluate, world
from diffusion.tiny.evaluate import BEGIN, END, Row


class TestSpread:
    def test_a_large_class_gives_different_captions(self) -> None:
        chosen = evaluate.spread("three", 64)
        assert len(set(chosen)) == 64
        assert set(chosen) <= set(world.captions("three"))

    def test_a_small_class_repeats(self) -> None:
        assert evaluate.spread("one", 32) == [*world.captions("one") * 2, *world.captions("one")[:2]]


def test_summary_of_known_pictures() -> None:
    """Three right pictures and one that shows a square for a circle: 3 of 4 strict; constraints (3 + 2/3) / 4."""
    rng = np.random.default_rng(0)
    images = [world.render(world.parse(text), rng) for text in ["a red circle"] * 3 + ["a red square"]]
    row = evaluate.summarise("one", images, ["a red circle"] * 4)
    assert row.strict == wilson_interval(3, 4)
    assert row.score == pytest.approx((3 + 2 / 3) / 4)


def test_table_pools_classes() -> None:
    """8 of 10 and 10 of 30: together 18 of 40 = 45 %; constraints (0.9 * 10 + 0.5 * 30) / 40 = 60 %."""
    text = evaluate.table([Row("one", wilson_interval(8, 10), 0.9), Row("two", wilson_interval(10, 30), 0.5)])
    last = text.splitlines()[-1]
    assert "| all |" in last
    assert "| 40 | 45.0 % |" in last
    assert last.endswith("| 60.0 % |")


class TestInsert:
    def test_only_the_middle_changes(self) -> None:
        page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
        assert evaluate.insert(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"

    def test_a_page_without_markers(self) -> None:
        with pytest.raises(ValueError, match="add both"):
            evaluate.insert("nothing", "new")
