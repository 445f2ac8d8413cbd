"""Teacher records as files: written part by part, read row by row through a memory map.

A part holds some pairs; of each pair its answers in the order of the header's `sides`, of each answer its tokens:

    rows      [r]       places of the pairs in the data
    counts    [r, s]    tokens of each answer
    labels    [m]       the tokens themselves, to be compared with those of the training
    ids       [m, k]    entries of the vocabulary
    log_probs [m, k]    log pi_dpo at these ids        kind `log_probs`
    log_rest  [m]       log of the mass of all others
    ratios    [m, k]    log pi_dpo - log pi_ref        kind `ratios`

Ratios are stored as such: in float16 a log-probability of -8 is known to 0.004, as much as a teacher may have moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from align.errors import AlignError
from preference.records_header import RecordsHeader, check_header, read_header

KINDS: Mapping[str, tuple[str, ...]] = {"log_probs": ("ids", "log_probs", "log_rest"), "ratios": ("ids", "ratios")}
"""Tensors of a token, by kind of record."""


@dataclass(kw_only=True)
class Part:
    """Records of some pairs, before they are written.

    Attributes:
        rows: places in the data.
        counts: tokens of each answer.
        tensors: `labels` and those of `KINDS`, batch by batch.
        sums: numbers for the summary, summed over tokens.
    """

    rows: list[int] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)
    tensors: dict[str, list[Tensor]] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def add(
        self, rows: Sequence[int], counts: list[list[int]], tensors: Mapping[str, Tensor], sums: Mapping[str, float]
    ) -> None:
        """Take in a batch."""
        self.rows += rows
        self.counts += counts
        for name, value in tensors.items():
            self.tensors.setdefault(name, []).append(value)
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(value.nbytes for values in self.tensors.values() for value in values)

    def write(self, folder: Path) -> Path:
        """Write it, in one go: a kill leaves a whole file or none."""
        path = folder / f"part_{min(self.rows):09d}.safetensors"
        tensors = {name: torch.cat(values).contiguous() for name, values in self.tensors.items()}
        tensors |= {"rows": torch.tensor(self.rows), "counts": torch.tensor(self.counts, dtype=torch.int32)}
        draft = folder / f".{path.name}.{os.getpid()}.tmp"
        draft.write_bytes(save(tensors, metadata={"sums": json.dumps(self.sums)}))
        os.replace(draft, path)
        return path


class TeacherRecords:
    """The records of a folder.

    Args:
        folder: with a header and its parts.
        header: of `read_header`.
    """

    def __init__(self, folder: Path, header: RecordsHeader) -> None:
        self.folder, self.header = folder, header
        self._files: list[Any] = []  # Any: safetensors names no type for what safe_open returns
        self._file = torch.full((header.pairs,), -1)
        self._start, self._length = torch.zeros_like(self._file), torch.zeros_like(self._file)
        self.sums: dict[str, float] = {}
        self.bytes = 0
        for path in sorted(folder.glob("part_*.safetensors")):
            self._index(path)

    @classmethod
    def open(cls, folder: Path, wanted: RecordsHeader) -> TeacherRecords:
        """The records of a folder, which must be those of this run, and whole.

        Raises:
            AlignError: there are none, they belong to something else, or some pairs have none yet.
        """
        header = read_header(folder)
        if header is None:
            raise AlignError(
                f"there are no teacher records in {folder}.", "Compute them first: `align teach` with this config."
            )
        check_header(folder, header, wanted)
        records = cls(folder, header)
        missing = len(records.missing())
        if missing:
            raise AlignError(
                f"the teacher records in {folder} are not complete: {missing} of {header.pairs} pairs have none.",
                "Run `align teach` with this config again: it computes what is missing.",
            )
        return records

    def missing(self) -> Int[Tensor, "r"]:
        """Places in the data that have no records."""
        return (self._file < 0).nonzero().flatten()

    def read(self, rows: Int[Tensor, "n"], labels: Int[Tensor, "m"]) -> dict[str, Tensor]:
        """Tensors of the tokens of these pairs, pair after pair; `ids` as int64, numbers as float32.

        Args:
            rows: places in the data.
            labels: the tokens as the training has them.

        Raises:
            AlignError: the labels are not those that the teacher has read.
        """
        names, places = ("labels", *KINDS[self.header.kind]), rows.tolist()
        tensors = {name: torch.cat([self._tokens(row, name) for row in places]) for name in names}
        if not torch.equal(tensors.pop("labels").long(), labels.cpu()):
            raise AlignError(
                f"labels: the teacher records in {self.folder} are of other tokens than those of this run's pairs.",
                "Run `align teach` with this config and another `algorithm.teacher.records`.",
            )
        return {name: value.long() if name == "ids" else value.float() for name, value in tensors.items()}

    def _tokens(self, row: int, name: str) -> Tensor:
        """What a tensor has of a pair."""
        start = int(self._start[row])
        return self._files[int(self._file[row])].get_slice(name)[start : start + int(self._length[row])]

    def _index(self, path: Path) -> None:
        try:
            file: Any = safe_open(path, framework="pt")  # a memory map, as long as this object lives
            rows, counts = file.get_tensor("rows"), file.get_tensor("counts").long().sum(dim=1)
            sums = json.loads(file.metadata()["sums"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise AlignError(
                f"{path} cannot be read: {error}.", "Delete this file; `align teach` computes its pairs again."
            ) from error
        if len(rows) and int(rows.max()) >= self.header.pairs:
            raise AlignError(f"{path} has records of pairs that the data does not have.", "Delete this file.")
        self._file[rows] = len(self._files)
        self._start[rows], self._length[rows] = counts.cumsum(0) - counts, counts
        self._files.append(file)
        self.bytes += path.stat().st_size
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
