"""Rows of tokens: by hand, and what must hold for every batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preference.layout import LAYOUTS, Group, choose_layout, cost, packed, padded, shared, visible
from preference.layout.masks import additive
from preference.layout.support import Support

NONE = -1


def ids(*values):
    return torch.tensor(values, dtype=torch.int64)


# Two prompts with two answers each.
PAIRS = [
    Group(prompt=ids(10, 11), responses=(ids(20, 21, 22), ids(30))),
    Group(prompt=ids(12), responses=(ids(40), ids(50, 51))),
]


def test_padded_by_hand():
    layout = padded(PAIRS, pad_id=9)
    assert layout.input_ids.tolist() == [
        [10, 11, 20, 21, 22],
        [10, 11, 30, 9, 9],
        [12, 40, 9, 9, 9],
        [12, 50, 51, 9, 9],
    ]
    assert layout.units.tolist() == [[0] * 5, [0, 0, 0, NONE, NONE], [0, 0, NONE, NONE, NONE], [0, 0, 0, NONE, NONE]]
    assert layout.predictors.tolist() == [1, 2, 3, 5 + 1, 10 + 0, 15 + 0, 15 + 1]
    assert layout.labels.tolist() == [20, 21, 22, 30, 40, 50, 51]
    assert layout.sequence_ids.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert layout.token_ids.tolist() == [0, 1, 2, 0, 0, 0, 1]
    assert layout.lengths.tolist() == [3, 1, 1, 2]


def test_shared_by_hand():
    """The first group has 6 places, the second 4: two rows. A branch goes on from the prompt's end, and its first token
    is predicted there: place 1 of row 0 for both answers, place 0 of row 1.
    """
    layout = shared(PAIRS, pad_id=9)
    assert layout.input_ids.tolist() == [[10, 11, 20, 21, 22, 30], [12, 40, 50, 51, 9, 9]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 2], [0, 1, 1, 2, 0, 0]]
    assert layout.branches.tolist() == [[NONE, NONE, 0, 0, 0, 1], [NONE, 0, 1, 1, NONE, NONE]]
    assert layout.predictors.tolist() == [1, 2, 3, 1, 6 + 0, 6 + 0, 6 + 2]
    assert layout.labels.tolist() == [20, 21, 22, 30, 40, 50, 51]


def test_packed_by_hand():
    """Lengths 5, 3, 2, 3 in rows of 8: 5 + 3, then 3 + 2; each sequence counts from 0 and is a unit of its own."""
    layout = packed(PAIRS, row_length=8, pad_id=9)
    assert layout.input_ids.tolist() == [[10, 11, 20, 21, 22, 10, 11, 30], [12, 40, 12, 50, 51, 9, 9, 9]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 0, 1, 2, 0, 0, 0]]
    assert layout.units.tolist() == [[0] * 5 + [1] * 3, [0, 0, 1, 1, 1, NONE, NONE, NONE]]
    assert layout.predictors.tolist() == [1, 2, 3, 6, 8 + 0, 8 + 2, 8 + 3]


def test_mask_of_a_shared_row_by_hand():
    """Prompt p q, answers a b and c: c sees p, q and itself, not a and b; padding sees itself."""
    layout = shared([Group(prompt=ids(1, 2), responses=(ids(3, 4), ids(5))), Group(prompt=ids(6), responses=(ids(7),))])
    assert layout.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]]
    expected = [
        ["x....", "xx...", "xxx..", "xxxx.", "xx..x"],
        ["x....", "xx...", "..x..", "...x.", "....x"],
    ]
    found = [["".join("x" if seen else "." for seen in row) for row in sheet[0]] for sheet in visible(layout).tolist()]
    assert found == expected


def test_window_counts_positions_not_places():
    """Window 2 (itself and one before): the second branch's first token still sees the prompt's last."""
    layout = shared([Group(prompt=ids(1, 2, 3), responses=(ids(4, 5), ids(6, 7)))])
    found = ["".join("x" if seen else "." for seen in row) for row in visible(layout, window=2)[0, 0].tolist()]
    assert found == ["x......", "xx.....", ".xx....", "..xx...", "...xx..", "..x..x.", ".....xx"]


def test_additive_mask_by_hand():
    mask = additive(torch.tensor([[True, False]]), torch.float16)
    assert mask.tolist() == [[0.0, torch.finfo(torch.float16).min]]


def test_an_empty_prompt_predicts_nothing():
    """The first token of each answer is not scored, in any layout; an answer of one token cannot be."""
    group = Group(prompt=ids(), responses=(ids(3, 4, 5), ids(6, 7)))
    for make in LAYOUTS.values():
        layout = make([group])
        assert layout.labels.tolist() == [4, 5, 7]
        assert layout.token_ids.tolist() == [1, 2, 1]
        assert layout.lengths.tolist() == [2, 1]
        with pytest.raises(ValueError, match="beginning-of-sequence"):
            make([Group(prompt=ids(), responses=(ids(3, 4), ids(6)))])


def test_tokens_that_are_not_scored():
    """A tool's output inside an answer: its tokens are context."""
    scored = (torch.tensor([True, False, True]), torch.tensor([True]))
    group = Group(prompt=ids(1), responses=(ids(3, 4, 5), ids(6)), scored=scored)
    for make in LAYOUTS.values():
        layout = make([group])
        assert layout.labels.tolist() == [3, 5, 6]
        assert layout.response_mask().tolist() == [[True, False, True], [True, False, False]]


def test_per_response_tables():
    layout = shared(PAIRS)
    assert layout.per_response(layout.labels).tolist() == [[20, 21, 22], [30, 0, 0], [40, 0, 0], [50, 51, 0]]
    wide = layout.per_response(torch.stack([layout.labels, -layout.labels], dim=1))
    assert wide[3].tolist() == [[50, -50], [51, -51], [0, 0]]


LENGTHS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=5
)


@given(lengths=LENGTHS, slack=st.integers(0, 30))
def test_every_layout_holds_the_same_sequences(lengths, slack):
    """Token by token: following a scored token's row back over what it sees gives its prompt and its answer so far."""
    counter = iter(range(1, 10**6))

    def fresh(count):
        return ids(*[next(counter) for _ in range(count)])

    groups = [Group(prompt=fresh(p), responses=tuple(fresh(r) for r in responses)) for p, responses in lengths]
    sequences = [torch.cat([group.prompt, answer]).tolist() for group in groups for answer in group.responses]
    prompts = [len(group.prompt) for group in groups for _ in group.responses]
    longest = max(len(group.prompt) + sum(map(len, group.responses)) for group in groups)
    for layout in (padded(groups), packed(groups), shared(groups), shared(groups, row_length=longest + slack)):
        seen, flat = visible(layout)[:, 0].flatten(0, 1), layout.input_ids
        width = flat.shape[1]
        assert layout.sequences == len(sequences)
        for place, label, sequence, token in zip(
            layout.predictors.tolist(), layout.labels.tolist(), layout.sequence_ids.tolist(), layout.token_ids.tolist()
        ):
            end = prompts[sequence] + token
            assert flat[place // width][seen[place]].tolist() == sequences[sequence][:end]
            assert layout.position_ids[place // width][seen[place]].tolist() == list(range(end))
            assert label == sequences[sequence][end]


@given(lengths=LENGTHS)
def test_rows_waste_no_row(lengths):
    """No two rows of a filled layout could have been one."""
    groups = [Group(prompt=torch.ones(p).long(), responses=[torch.ones(r).long() for r in rs]) for p, rs in lengths]
    for layout in (packed(groups), shared(groups)):
        used = sorted((layout.units >= 0).sum(dim=1).tolist())
        assert len(used) < 2 or used[0] + used[1] > layout.input_ids.shape[1]


def test_cost_by_hand():
    """d = 4, PAIRS: padded 4 rows of 5: 20 (24 + 2.5) = 530; shared 2 rows of 6: 12 (24 + 6) = 360."""
    assert cost(padded(PAIRS), 4) == 530
    assert cost(shared(PAIRS), 4) == 360


def test_cost_of_attention_in_pieces_by_hand():
    """d = 4, a row of 256: prompt 128 and answers of 64. Pieces of 64 see 64, 128, 192 and, without the chosen answer,
    192 keys: 64 x 576 scores and 6 x 256 x 4 = 6144. Whole: 6144 + 256^2. Few places are no pieces, nor are
    padded rows.
    """
    pair = [Group(prompt=torch.ones(128).long(), responses=(torch.ones(64).long(), torch.ones(64).long()))]
    assert cost(shared(pair), 4, pieces=True) == 6144 + 64 * 576
    assert cost(shared(pair), 4) == 6144 + 256**2
    assert cost(shared(PAIRS), 4, pieces=True) == cost(shared(PAIRS), 4)
    assert cost(padded(pair), 4, pieces=True) == cost(padded(pair), 4)


def test_the_cheapest_layout_that_the_model_can_take():
    everything = Support(layouts=("padded", "packed", "shared"))
    assert choose_layout(PAIRS, everything, hidden_size=4).kind == "shared"
    assert choose_layout(PAIRS, Support(layouts=("padded",)), hidden_size=4).kind == "padded"
    # one token of prompt, answers of equal length: sharing saves one place in 18 and costs the causal kernel
    equal = [Group(prompt=ids(1), responses=(torch.ones(8).long(), torch.ones(8).long()))]
    assert choose_layout(equal, everything, hidden_size=4).kind == "padded"


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([], {}, "at least one group"),
        ([Group(prompt=ids(1), responses=())], {}, "has no response"),
        ([Group(prompt=ids(1), responses=(ids(2), ids()))], {}, "empty response"),
        ([Group(prompt=ids(1), responses=(ids(2),), scored=(torch.tensor([True, True]),))], {}, "one entry for each"),
        (
            [Group(prompt=ids(1), responses=(ids(2),), scored=(torch.tensor([False]),))],
            {},
            "no token that can be",
        ),
        (PAIRS, {"row_length": 5}, "one unit has 6 tokens"),
    ],
)
def test_what_is_refused(groups, options, message):
    with pytest.raises(ValueError, match=message):
        shared(groups, **options)
