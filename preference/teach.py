"""`align teach`: the teachers read the pairs once, trained on and held out, and what they say of every token is kept.

    accelerate launch --num_processes 8 -m align teach CONFIG        processes share the pairs

A file is written whenever enough has been computed, whole or not at all. What is there already is not computed again,
so a run that was killed goes on, with any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.engine.batching import even_cuts, micro_cuts
from align.engine.command import processes_of
from align.engine.distributed import Processes
from align.errors import AlignError
from preference.config import PreferenceRun
from preference.config.teacher import AdpaConfig, DckdConfig, TeacherConfig
from preference.forward import LayoutPlan
from preference.layout import Group
from preference.models.load import load_tokenizer
from preference.records import Part, TeacherRecords
from preference.records_header import (
    HELDOUT,
    SMALL,
    RecordsHeader,
    check_header,
    read_header,
    wanted_header,
    write_header,
)
from preference.records_summary import summary
from preference.sources import heldout_texts, training_texts
from preference.student_answers import as_states
from preference.teachers import Teachers, check_tokenizers, load_teachers
from preference.tokenise import tokenise_pairs
from preference.tokens import TokenPairs

SAMPLED_BATCHES = 4
"""Batches whose layouts are compared."""

Say = Callable[[str], None]
"""Prints a line, on the main process."""


def teach(config: PreferenceRun, say: Say) -> Path:
    """Compute the records that are not there yet, of the training pairs and of those held out.

    Args:
        config: the run that will learn from them.
        say: where lines for a person go.

    Returns:
        Their folder.

    Raises:
        AlignError: a method without teachers, a teacher with another vocabulary, records of something else.
    """
    algorithm = config.algorithm
    if not isinstance(algorithm, DckdConfig | AdpaConfig):
        raise AlignError(
            f"`algorithm.kind: {algorithm.kind}` has no teacher, so there is nothing to compute.",
            "Teacher records are for `dckd` and `adpa`.",
        )
    folder = Path(algorithm.teacher.records)
    with processes_of(config.training) as (accelerator, processes):
        tokenizer = load_tokenizer(config.model)
        wanted = _pairs_of(config, folder, tokenizer)
        for pairs in wanted.values():
            say(f"{pairs.report.source}: {pairs.report.summary()}")
        for note in check_tokenizers(algorithm.teacher, tokenizer):
            say(note)
        teachers = load_teachers(algorithm.teacher, tokenizer, accelerator.device)
        for place, pairs in wanted.items():
            header = replace(
                wanted_header(algorithm, data=pairs.fingerprint(), tokenizer=pairs.tokenizer, pairs=len(pairs)),
                vocabulary=teachers.vocabulary,
                weights=teachers.weights,
                reference_weights=teachers.reference_weights,
            )
            _announce(place, header, processes)
            RecordWriter(place, header, algorithm.teacher, teachers, pairs).run(processes, say)
            processes.barrier()
            if processes.is_main:
                for line in summary(TeacherRecords.open(place, header)):
                    say(line)
            processes.barrier()
    return folder


def _pairs_of(config: PreferenceRun, folder: Path, tokenizer: Any) -> dict[Path, TokenPairs]:
    """Folder of records -> its pairs: those of the training and, if they are wanted, those held out.

    Held-out pairs keep their rejected answers where the student's stand in training.
    """
    train = as_states(tokenise_pairs(training_texts(config), tokenizer, config.data), config, tokenizer)
    algorithm: Any = config.algorithm  # Any: one that has teachers
    heldout = heldout_texts(config) if algorithm.teacher.heldout else None
    if heldout is None:
        return {folder: train}
    return {folder: train, folder / HELDOUT: tokenise_pairs(heldout, tokenizer, config.data)}


def _announce(folder: Path, header: RecordsHeader, processes: Processes) -> None:
    """Write the header, or find that the folder belongs to something else; every process finds the same."""
    if processes.is_main and read_header(folder) is None:
        write_header(folder, header)
    processes.barrier()
    found = read_header(folder)
    assert found is not None  # it has just been written
    check_header(folder, found, header)


@dataclass(kw_only=True)
class _Progress:
    """Lines for a person."""

    total: int
    say: Say
    done: int = 0

    def add(self, pairs: int) -> None:
        self.done += pairs
        self.say(f"{self.done:,} of {self.total:,} pairs of this process")


class RecordWriter:
    """Computes and writes what is missing.

    Args:
        folder: of the records.
        header: of the records.
        config: the teachers' settings.
        teachers: the models.
        pairs: what they read.
    """

    def __init__(
        self, folder: Path, header: RecordsHeader, config: TeacherConfig, teachers: Teachers, pairs: TokenPairs
    ) -> None:
        self._folder, self._header, self._config = folder, header, config
        self._teachers, self._pairs = teachers, pairs
        ids = torch.uint16 if teachers.vocabulary <= SMALL else torch.int32
        number = getattr(torch, config.precision)
        self._dtypes = {"ids": ids, "log_probs": number, "ratios": number, "log_rest": torch.float32}

    def run(self, processes: Processes, say: Say) -> None:
        """Each process takes a contiguous share of the missing pairs; no collective but the first."""
        known = TeacherRecords(self._folder, self._header).missing() if processes.is_main else None
        missing = processes.from_main(known)
        assert missing is not None  # the main process has sent it
        if len(missing) == 0:
            say("all records are there already")
            return
        plan = self._plan(missing)
        cut = even_cuts(len(missing), processes.world)[processes.rank]
        own = missing[cut.start : cut.stop].tolist()
        say(f"layout: {plan.reason}")
        say(f"{len(missing):,} of {len(self._pairs):,} pairs to read, on {processes.world} processes")
        part, limit = Part(), self._config.shard_megabytes * 2**20
        progress = _Progress(total=len(own), say=say)
        for micro in micro_cuts(len(own), self._config.batch_size):
            self._add(part, own[micro.start : micro.stop], plan)
            if part.size >= limit:
                part.write(self._folder)
                progress.add(len(part.rows))
                part = Part()
        if part.rows:
            part.write(self._folder)
            progress.add(len(part.rows))

    def _plan(self, missing: Tensor) -> LayoutPlan:
        cuts = micro_cuts(len(missing), self._config.batch_size)[:SAMPLED_BATCHES]
        batches = [self._groups(missing[cut.start : cut.stop].tolist()) for cut in cuts]
        return self._teachers.plan(batches, self._pairs.longest())

    def _add(self, part: Part, rows: Sequence[int], plan: LayoutPlan) -> None:
        groups = self._groups(rows)
        read = self._teachers.read(groups, self._config, plan)
        tensors = {name: value.to("cpu", self._dtypes[name]) for name, value in read.tensors.items()}
        for name, value in tensors.items():
            if value.is_floating_point() and bool(value.isnan().any()):
                raise AlignError(
                    f"the teachers' {name} are not numbers for the pairs {rows[:3]} ...",
                    "Use `teacher.dtype: float32` or `bfloat16`; float16 overflows in some models.",
                )
        labels = torch.cat([response for group in groups for response in group.responses])
        counts = [[len(response) for response in group.responses] for group in groups]
        part.add(rows, counts, {"labels": labels.int(), **tensors}, read.sums)

    def _groups(self, rows: Sequence[int]) -> list[Group]:
        """Prompts with the answers that have records, in the order in which these are stored."""
        answers: dict[str, Any] = {"chosen": self._pairs.chosen_ids, "rejected": self._pairs.rejected_ids}
        return [
            Group(
                prompt=self._pairs.prompt_ids[row], responses=tuple(answers[side][row] for side in self._header.sides)
            )
            for row in rows
        ]
