from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers

from align.engine.batching import even_cuts, micro_cuts, unit_count


def test_cuts_by_hand():
    """10 rows in 4 updates: borders at 0, 10/4 = 2, 20/4 = 5, 30/4 = 7, 10. In micro-batches of 4: 4, 4 and 2."""
    assert even_cuts(10, 4) == [range(2), range(2, 5), range(5, 7), range(7, 10)]
    assert micro_cuts(10, 4) == [range(4), range(4, 8), range(8, 10)]


@given(rows=integers(0, 60), parts=integers(1, 12))
def test_cuts_hold_every_row_once_in_order(rows: int, parts: int):
    assert [row for cut in even_cuts(rows, parts) for row in cut] == list(range(rows))
    assert [row for cut in micro_cuts(rows, parts) for row in cut] == list(range(rows))
    sizes = [len(cut) for cut in even_cuts(rows, parts)]
    assert max(sizes) - min(sizes) <= 1
    assert all(len(cut) == parts for cut in micro_cuts(rows, parts)[:-1])


def test_units_are_rows_unless_the_batch_counts_tokens():
    class Tokens(list):
        def unit_count(self) -> int:
            return sum(self)

    assert unit_count([5, 7]) == 2
    assert unit_count(Tokens([5, 7])) == 12
