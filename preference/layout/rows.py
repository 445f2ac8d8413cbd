"""Prompts and their responses as rows of tokens: padded, packed, or with the prompt shared by its responses.

    padded     [prompt chosen . .]  [prompt rejected]        a row each, the shorter ones filled up
    packed     [prompt chosen | prompt rejected | ...]       several sequences in a row that do not see each other
    shared     [prompt chosen rejected | ...]                the prompt once; every response is a *branch* that sees the
                                                             prompt and itself and goes on from the prompt's positions

All three give the same hidden states at the same tokens, to rounding; they differ in the number of places to compute.
A sequence is a prompt with one response. Sequences are numbered group by group: with pairs, 2 i is the chosen and
2 i + 1 the rejected answer of pair i, and `values.view(-1, 2)` puts them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PROMPT = -1
"""Branch number of a prompt's tokens."""

NOTHING = -1
"""Unit number of padding."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A prompt and the responses to it.

    Attributes:
        prompt: token ids. Its last token predicts the first token of every response; without a prompt nothing does, and
            that token is not scored.
        responses: token ids, with their end tokens.
        scored: per response, which of its tokens are scored; None = all.
    """

    prompt: Int[Tensor, "p"]
    responses: Sequence[Int[Tensor, "_"]]
    scored: Sequence[Bool[Tensor, "_"]] | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Rows of tokens, and where in them the scored tokens are.

    Attributes:
        kind: `padded`, `packed` or `shared`.
        input_ids: tokens; padding is filled with the given id.
        position_ids: distance of each token from the start of its own sequence.
        units: number of the unit that a place belongs to: tokens of different units never see each other. -1 = padding.
        branches: response number within the unit, -1 for what all of its responses see.
        predictors: flat place (row * t + column) of the hidden state that predicts each scored token.
        read: these places, each once, ascending.
        labels: the scored tokens.
        sequence_ids: sequence of each scored token, 0 .. sequences - 1, ascending.
        token_ids: index of each scored token in its response.
        sequences: n.
        lengths: scored tokens of each sequence.
    """

    kind: str
    input_ids: Int[Tensor, "b t"]
    position_ids: Int[Tensor, "b t"]
    units: Int[Tensor, "b t"]
    branches: Int[Tensor, "b t"]
    predictors: Int[Tensor, "m"]
    read: Int[Tensor, "r"]
    labels: Int[Tensor, "m"]
    sequence_ids: Int[Tensor, "m"]
    token_ids: Int[Tensor, "m"]
    sequences: int
    lengths: Int[Tensor, "n"]

    def predicting(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "m d"]:
        """Hidden states that predict the scored tokens, in the order of `labels`."""
        return hidden.flatten(0, 1).index_select(0, self.predictors)

    def per_response(self, values: Tensor) -> Tensor:
        """Values of scored tokens [m, ...] as a table [n, s, ...]: sequence, index in the response; 0 elsewhere."""
        width = int(self.token_ids.max()) + 1 if len(self.token_ids) else 0
        table = values.new_zeros(self.sequences, width, *values.shape[1:])
        return table.index_put((self.sequence_ids, self.token_ids), values)

    def response_mask(self) -> Bool[Tensor, "n s"]:
        """Which places of `per_response` hold a scored token."""
        return self.per_response(torch.ones_like(self.labels, dtype=torch.bool))

    def to(self, device: torch.device | str) -> Layout:
        """The same on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


@dataclass
class _Row:
    """A row that grows unit by unit."""

    length: int = 0
    ids: list[Tensor] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    units: list[Tensor] = field(default_factory=list)
    branches: list[Tensor] = field(default_factory=list)

    def add(self, tokens: Tensor, start: int, unit: int, branch: int) -> int:
        """Appends tokens whose first has position `start`; the column of the first."""
        column = self.length
        self.length += len(tokens)
        self.ids.append(tokens)
        self.positions.append(start + torch.arange(len(tokens)))
        self.units.append(torch.full((len(tokens),), unit))
        self.branches.append(torch.full((len(tokens),), branch))
        return column


@dataclass(frozen=True)
class _Unit:
    """What is laid out together: a prompt and some of its responses, with the numbers of their sequences."""

    group: Group
    members: tuple[int, ...]
    first_sequence: int

    @property
    def length(self) -> int:
        return len(self.group.prompt) + sum(len(self.group.responses[member]) for member in self.members)


def padded(groups: Sequence[Group], *, pad_id: int = 0) -> Layout:
    """One row per sequence, filled up on the right to the longest."""
    units = _split(groups)
    return _lay("padded", groups, [[unit] for unit in units], pad_id)


def packed(groups: Sequence[Group], *, pad_id: int = 0, row_length: int | None = None) -> Layout:
    """Sequences one after another in rows of at most `row_length` places (None = the longest sequence)."""
    return _lay("packed", groups, _fill(_split(groups), row_length), pad_id)


def shared(groups: Sequence[Group], *, pad_id: int = 0, row_length: int | None = None) -> Layout:
    """Each prompt once, its responses as branches; several groups in a row of at most `row_length` places.

    None = the longest group: short groups then fill the gaps that long ones would leave.
    """
    units = [_Unit(group, tuple(range(len(group.responses))), first) for group, first in _numbered(groups)]
    return _lay("shared", groups, _fill(units, row_length), pad_id)


LAYOUTS = {"padded": padded, "packed": packed, "shared": shared}
"""Every layout by its name: `(groups, *, pad_id) -> Layout`."""


def _numbered(groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """Groups with the number of their first sequence; refuses what cannot be laid out."""
    numbered, first = [], 0
    for number, group in enumerate(groups):
        if not group.responses:
            raise ValueError(f"group {number} has no response. A prompt alone is nothing to score: drop it.")
        if any(len(response) == 0 for response in group.responses):
            raise ValueError(f"group {number} has an empty response. Drop the group: nothing of it can be scored.")
        if group.scored is not None and [len(s) for s in group.scored] != [len(r) for r in group.responses]:
            raise ValueError(f"group {number}: `scored` must have one entry for each token of each response.")
        numbered.append((group, first))
        first += len(group.responses)
    if not numbered:
        raise ValueError("expected at least one group, found none.")
    return numbered


def _split(groups: Sequence[Group]) -> list[_Unit]:
    return [_Unit(group, (m,), first) for group, first in _numbered(groups) for m in range(len(group.responses))]


def _fill(units: list[_Unit], row_length: int | None) -> list[list[_Unit]]:
    """Units in rows: the longest first, each into the fullest row that has room. Rows keep their units in order."""
    longest = max(unit.length for unit in units)
    room = longest if row_length is None else row_length
    if room < longest:
        raise ValueError(f"`row_length` is {room}, but one unit has {longest} tokens. Raise it, or shorten the texts.")
    rows: list[list[_Unit]] = []
    free: list[int] = []
    for unit in sorted(units, key=lambda unit: -unit.length):
        fitting = [number for number, space in enumerate(free) if space >= unit.length]
        if fitting:
            number = min(fitting, key=lambda number: free[number])
        else:
            number = len(rows)
            rows.append([])
            free.append(room)
        rows[number].append(unit)
        free[number] -= unit.length
    return [sorted(row, key=lambda unit: (unit.first_sequence, unit.members)) for row in rows]


@dataclass
class _Scored:
    """Scored tokens of one sequence."""

    row: int
    columns: Tensor
    labels: Tensor
    token_ids: Tensor


def _lay(kind: str, groups: Sequence[Group], plan: list[list[_Unit]], pad_id: int) -> Layout:
    rows = [_Row() for _ in plan]
    scored: dict[int, _Scored] = {}
    for number, (row, units) in enumerate(zip(rows, plan)):
        for unit_number, unit in enumerate(units):
            scored.update(_place(row, number, unit, unit_number))
    width = max(row.length for row in rows)
    order = [scored[sequence] for sequence in sorted(scored)]
    predictors = torch.cat([part.row * width + part.columns for part in order])
    counts = torch.tensor([len(part.labels) for part in order])
    return Layout(
        kind=kind,
        input_ids=_stack([row.ids for row in rows], width, pad_id),
        position_ids=_stack([row.positions for row in rows], width, 0),
        units=_stack([row.units for row in rows], width, NOTHING),
        branches=_stack([row.branches for row in rows], width, PROMPT),
        predictors=predictors,
        read=predictors.unique(),
        labels=torch.cat([part.labels for part in order]),
        sequence_ids=torch.arange(len(order)).repeat_interleave(counts),
        token_ids=torch.cat([part.token_ids for part in order]),
        sequences=len(order),
        lengths=counts,
    )


def _place(row: _Row, number: int, unit: _Unit, unit_number: int) -> dict[int, _Scored]:
    """Appends a unit to a row; where its scored tokens are."""
    prompt = unit.group.prompt
    start = row.add(prompt, 0, unit_number, PROMPT)
    found = {}
    for branch, member in enumerate(unit.members):
        response = unit.group.responses[member]
        column = row.add(response, len(prompt), unit_number, branch)
        # The first token is predicted by the prompt's end, which need not be the place before it.
        places = torch.arange(column - 1, column - 1 + len(response))
        places[0] = start + len(prompt) - 1
        keep = torch.ones(len(response), dtype=torch.bool)
        if unit.group.scored is not None:
            keep &= unit.group.scored[member] != 0
        if len(prompt) == 0:
            keep[0] = False
        if not keep.any():
            raise ValueError(
                f"sequence {unit.first_sequence + member} has no token that can be scored. Without a prompt the first "
                "token has no predictor: put the beginning-of-sequence token in front, or drop the pair."
            )
        index = keep.nonzero().flatten()
        found[unit.first_sequence + member] = _Scored(number, places[keep], response[keep], index)
    return found


def _stack(rows: list[list[Tensor]], width: int, fill: int) -> Int[Tensor, "b t"]:
    table = torch.full((len(rows), width), fill)
    for number, parts in enumerate(rows):
        values = torch.cat(parts)
        table[number, : len(values)] = values
    return table
