"""Stored rewards: the tables of a run's steps, its evaluations, or any scored file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from align.engine.folder import step_name, step_number
from align.engine.reward_tables import StepTable, read_table, table_files
from align.errors import AlignError
from align.inspect.audit.rows import ScoredRows, read_rows
from align.types import RewardTable


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Tables in the order of their steps, and where their samples can be looked at.

    Attributes:
        source: what a person calls them.
        tables: one a step.
        compared: whether `advantages` of the tables are those that the run has used.
        pictures: folder that holds `step_XXXXXX/NNN.png`, NNN being the row; None where there is none.
        texts: step -> row -> what the model answered.
    """

    source: str
    tables: Sequence[StepTable]
    compared: bool
    pictures: Path | None = None
    texts: Mapping[int, Mapping[int, str]]

    @property
    def names(self) -> tuple[str, ...]:
        """The rewards."""
        return self.tables[0].table.names

    def picture(self, step: int, row: int) -> Path | None:
        """The picture of a row, if it was kept."""
        path = None if self.pictures is None else self.pictures / step_name(step) / f"{row:03d}.png"
        return path if path is not None and path.is_file() else None


def stored_steps(folder: Path) -> Stored:
    """The reward tables of a run's training steps.

    Raises:
        AlignError: there is none.
    """
    files = table_files(folder)
    if not files:
        raise AlignError(
            f"{folder} holds no reward table of a training step.",
            "Runs keep them where `output.reward_tables_mb` is above 0 and samples are drawn; `--evaluations` replays "
            "the held-out rewards instead.",
        )
    tables = [read_table(path) for path in files]
    return Stored(
        source=f"{len(tables)} training steps of {folder}",
        tables=tables,
        compared=True,
        pictures=folder / "images",
        texts={table.step: _completions(folder / "samples" / f"{step_name(table.step)}.jsonl") for table in tables},
    )


def stored_evaluations(folder: Path) -> Stored:
    """The held-out rewards of a run, each evaluation as one step; the run has made no advantages of them.

    Raises:
        AlignError: there is none.
    """
    files = sorted((folder / "evaluations").glob("step_*.json"))
    if not files:
        raise AlignError(f"{folder} holds no evaluation.", "Set `prompts.heldout`, or replay a scored file.")
    tables, texts = [], {}
    for path in files:
        step = step_number(path.name) or 0
        tables.append(_as_table(step, read_rows(path)))
        texts[step] = {
            number: str(row["completion"])
            for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))["rows"])
            if row.get("completion") is not None
        }
    return Stored(
        source=f"{len(tables)} evaluations of {folder}",
        tables=tables,
        compared=False,
        pictures=folder / "evaluations" / "pictures",
        texts=texts,
    )


def stored_file(path: Path) -> Stored:
    """A scored file as one step."""
    rows = read_rows(path)
    return Stored(source=rows.source, tables=[_as_table(0, rows)], compared=False, texts={})


def _as_table(step: int, rows: ScoredRows) -> StepTable:
    """Without scores and advantages: zeros, which the replay of the run's own settings replaces."""
    zeros = torch.zeros(len(rows))
    return StepTable(
        step=step,
        table=RewardTable(names=rows.names, values=rows.values.float(), weights=torch.ones(len(rows.names))),
        group_ids=rows.group_ids,
        prompts=rows.prompts,
        classes=(),
        scores=zeros,
        advantages=zeros,
    )


def _completions(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {int(row["index"]): str(row["completion"]) for row in rows if row.get("completion") is not None}
