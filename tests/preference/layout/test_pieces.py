"""Attention in pieces: which queries with which keys, and the same numbers as a loop over single places."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from preference.layout import Group, packed, shared, visible
from preference.layout.pieces import Piece, attend, masks_of, pieces_of


def ids(count):
    return torch.ones(count, dtype=torch.int64)


# Rows [p p a a a b] and [q c d d . .]: a and b answer p, c and d answer q.
PAIRS = [Group(prompt=ids(2), responses=(ids(3), ids(1))), Group(prompt=ids(1), responses=(ids(1), ids(2)))]


def test_pieces_of_a_ragged_batch_by_hand():
    """The six places of the first row see 0, 01, 012, 0123, 01234, 015; those of the second 0, 01, 02, 023, 4, 5."""
    mask = visible(shared(PAIRS))
    alone = pieces_of(mask, tile=1)
    assert [piece.keys for piece in alone] == [((0, end),) for end in range(1, 6)] + [((0, 2), (5, 6))]
    assert pieces_of(mask, tile=4) == (
        Piece(first=0, last=4, keys=((0, 4),)),
        Piece(first=4, last=6, keys=((0, 6),)),
    )
    assert [piece.pairs for piece in alone] == [1, 2, 3, 4, 5, 3]


def test_pieces_of_what_is_read_by_hand():
    """Read are places 1, 2, 3 of the first row and 0, 0, 2 of the second, flat 6, 6, 8: columns 0 to 3."""
    layout = shared(PAIRS)
    assert (layout.read % 6).unique().tolist() == [0, 1, 2, 3]
    assert [(piece.first, piece.last) for piece in pieces_of(visible(layout), layout.read, tile=3)] == [(0, 3), (3, 6)]
    far = torch.tensor([1, 6 + 4])
    assert [(piece.first, piece.last) for piece in pieces_of(visible(layout), far, tile=2)] == [(1, 3), (4, 6)]


def test_later_sequences_of_a_packed_row_leave_the_earlier_ones_out():
    """Two sequences of 4 and 3 places in one row: the second sees columns from 4 on."""
    layout = packed([Group(prompt=ids(2), responses=(ids(2), ids(1)))], row_length=7)
    assert [piece.keys for piece in pieces_of(visible(layout), tile=4)] == [((0, 4),), ((4, 7),)]


def test_an_answer_leaves_out_the_one_before_it():
    """Prompt of 4, answers of 8: the second one, places 12 to 19, sees the prompt and itself."""
    layout = shared([Group(prompt=ids(4), responses=(ids(8), ids(8)))])
    assert pieces_of(visible(layout), tile=8)[1:] == (
        Piece(first=8, last=16, keys=((0, 16),)),
        Piece(first=16, last=20, keys=((0, 4), (12, 20))),
    )


GROUPS = st.lists(
    st.tuples(st.integers(0, 5), st.lists(st.integers(2, 6), min_size=1, max_size=3)), min_size=1, max_size=4
)


@given(
    lengths=GROUPS,
    tile=st.integers(1, 6),
    window=st.sampled_from([None, 1, 3]),
    make=st.sampled_from([packed, shared]),
    room=st.sampled_from([None, 40]),
    some=st.booleans(),
)
def test_pieces_hold_every_visible_pair_once_and_leave_wide_gaps_out(lengths, tile, window, make, room, some):
    layout = make([Group(prompt=ids(p), responses=[ids(r) for r in rs]) for p, rs in lengths], row_length=room)
    mask = visible(layout, window)
    wanted = layout.read if some else None
    width = mask.shape[-1]
    held = torch.zeros(width, width, dtype=torch.int64)
    for piece in pieces_of(mask, wanted, tile=tile):
        assert 0 < piece.last - piece.first <= tile
        seen = mask[:, 0, piece.first : piece.last].any(dim=0).any(dim=0)
        for first, last in piece.keys:
            assert bool(seen[first])
            assert bool(seen[last - 1])
            held[piece.first : piece.last, first:last] += 1
        assert all(after[0] - before[1] >= tile for before, after in zip(piece.keys, piece.keys[1:]))
    assert int(held.max()) == 1
    columns = range(width) if wanted is None else (wanted % width).unique().tolist()
    for column in columns:
        assert bool((held[column] >= mask[:, 0, column].any(dim=0).long()).all())


def by_places(query, key, value, mask, scale):
    """softmax over the visible keys, one place after the other."""
    out = torch.zeros_like(query)
    for row in range(len(query)):
        for place in range(query.shape[2]):
            seen = mask[row, 0, place].nonzero().flatten()
            scores = (query[row, :, place, None] * key[row, :, seen]).sum(dim=-1) * scale
            out[row, :, place] = (scores.softmax(dim=-1)[..., None] * value[row, :, seen]).sum(dim=1)
    return out


@pytest.mark.parametrize("read_only", [False, True])
def test_attention_and_its_gradients_are_those_of_a_loop_over_places(read_only):
    layout = shared([*PAIRS, Group(prompt=ids(0), responses=(ids(2), ids(4)))], row_length=10)
    mask = visible(layout)
    rows, _, width, _ = mask.shape
    places = layout.read if read_only else torch.arange(rows * width)
    pieces = pieces_of(mask, places, tile=2)
    inputs = torch.randn(3, rows, 2, width, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, key, value = inputs.requires_grad_().unbind()
    counted = torch.zeros(rows * width, dtype=torch.float64)
    counted[places] = torch.arange(1.0, len(places) + 1, dtype=torch.float64)
    counted = counted.view(rows, 1, width, 1)
    ours = attend(query, key, value, 0.7, pieces, masks_of(mask, pieces, torch.float64))
    expected = by_places(query, key, value, mask, 0.7)
    assert_close(ours * (counted > 0), expected * (counted > 0))
    gradients = [
        torch.autograd.grad((out.sin() * counted).sum(), inputs, retain_graph=True)[0] for out in (ours, expected)
    ]
    assert_close(*gradients)


def test_queries_in_no_piece_give_zeros():
    mask = visible(shared(PAIRS))
    pieces = pieces_of(mask, torch.tensor([4]), tile=1)
    inputs = torch.randn(3, 2, 1, 6, 4)
    out = attend(*inputs.unbind(), None, pieces, masks_of(mask, pieces, torch.float32))
    assert out.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist() == [4]
