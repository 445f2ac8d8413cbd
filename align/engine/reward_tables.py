"""The reward table of every step on disk: raw rewards, scores, advantages. What `align replay` and `align audit` read.

One safetensors file per step, `rewards/step_000010.safetensors`, about 30 bytes a sample and the texts of the step's
prompts once. Together they stay below a bound that is known before the first step.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.engine.distributed import Processes
from align.engine.folder import RunFolder, step_number
from align.errors import AlignError
from align.types import Batch, RewardTable

KIND = "rewards"
"""Folder of the tables in a run folder."""
ENDING = ".safetensors"
TEXTS = "texts"
"""Entry of the file's metadata that holds names, prompts and classes, as JSON."""
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class StepTable:
    """Everything that a step's signal was made of, rows of all processes in global order.

    Attributes:
        step: number of the step, from 1.
        table: raw rewards, NaN where unscored, and the weights of the settings.
        group_ids: equal ids answer the same prompt.
        prompts: one text a row.
        classes: of the prompts, one a row; empty where they have none.
        scores: one combined score a row, NaN where unscored.
        advantages: one a row, the mean over its positions where a method has several; 0 where unscored.
    """

    step: int
    table: RewardTable
    group_ids: Int[Tensor, "n"]
    prompts: Sequence[str]
    classes: Sequence[str]
    scores: Float[Tensor, "n"]
    advantages: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Int[Tensor, "m"]) -> StepTable:
        """The rows at these positions, in that order."""
        return replace(
            self,
            table=replace(self.table, values=self.table.values[rows]),
            group_ids=self.group_ids[rows],
            prompts=[self.prompts[row] for row in rows.tolist()],
            classes=[self.classes[row] for row in rows.tolist()] if self.classes else (),
            scores=self.scores[rows],
            advantages=self.advantages[rows],
        )


def keeps_step(step: int, size: int, *, steps: int, megabytes: float) -> bool:
    """Whether the table of this step is kept: every step, or every 2nd, 4th, 8th, ... so that all fit in the bound.

    A function of the step alone, so that a resumed run keeps what an uninterrupted one keeps; step 1 is always kept.

    Args:
        step: from 1.
        size: bytes of this step's table.
        steps: of the run.
        megabytes: bound of all tables together, in 10^6 bytes; 0 keeps none.
    """
    if megabytes <= 0:
        return False
    stride = 1
    while size * math.ceil(steps / stride) > megabytes * MEGABYTE and stride < steps:
        stride *= 2
    return (step - 1) % stride == 0


def write_table(
    folder: RunFolder, step: int, batch: Batch, *, steps: int, megabytes: float, processes: Processes
) -> Path | None:
    """Write the table of a step; a collective.

    Args:
        folder: of the run.
        step: its number.
        batch: this process's rows; without samples, rewards or signal there is nothing to write.
        steps: of the run.
        megabytes: see `keeps_step`.
        processes: whose rows are gathered; the main process writes.

    Returns:
        The file; None where nothing was written.
    """
    own = _own_rows(step, batch) if megabytes > 0 else None
    if own is None:
        return None
    everywhere = processes.gather_objects(own)
    if not processes.is_main:
        return None
    table = _joined(everywhere)
    tensors, texts = _as_file(table)
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    size += sum(len(text.encode()) for text in texts.values())
    if not keeps_step(step, size, steps=steps, megabytes=megabytes):
        return None
    from safetensors.torch import save

    path = folder.of_step(KIND, step, ENDING)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(save(tensors, metadata=texts))
    os.replace(draft, path)
    return path


def read_table(path: Path) -> StepTable:
    """Inverse of `write_table`.

    Raises:
        AlignError: the file is none of ours, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            texts = json.loads((file.metadata() or {})[TEXTS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        prompts, classes = texts["prompts"], texts["classes"]
        rows = tensors["prompt_rows"].tolist()
        return StepTable(
            step=int(texts["step"]),
            table=RewardTable(names=tuple(texts["names"]), values=tensors["values"], weights=tensors["weights"]),
            group_ids=tensors["group_ids"],
            prompts=[prompts[row] for row in rows],
            classes=[classes[row] for row in rows] if classes else (),
            scores=tensors["scores"],
            advantages=tensors["advantages"],
        )
    except (SafetensorError, KeyError, ValueError, OSError, IndexError, TypeError) as error:
        raise AlignError(
            f"{path} is no table of rewards that can be read ({error}).",
            "Remove it; the tables of the other steps do not need it.",
        ) from error


def table_files(run_folder: Path) -> list[Path]:
    """The stored tables of a run, in the order of the steps."""
    found = (run_folder / KIND).glob(f"step_*{ENDING}")
    return sorted((path for path in found if step_number(path.name) is not None), key=lambda path: path.name)


class _Part(NamedTuple):
    """Rows of one process, and their global numbers."""

    rows: Tensor
    table: StepTable


def _own_rows(step: int, batch: Batch) -> _Part | None:
    samples, rewards, signal = batch.samples, batch.rewards, batch.signal
    if samples is None or rewards is None or signal is None:
        return None
    advantages = signal.advantages.detach().float().cpu()
    values = rewards.values.detach().float().cpu()
    named: Sequence[Any] | None = samples.columns.get("class")  # Any: the user's own data
    table = StepTable(
        step=step,
        table=replace(rewards, values=values, weights=rewards.weights.cpu(), problems={}),
        group_ids=samples.group_ids.cpu(),
        prompts=list(samples.prompts),
        classes=() if named is None else ["" if name is None else str(name) for name in named],
        scores=signal.scores.detach().float().cpu(),
        advantages=advantages.flatten(1).mean(dim=1) if advantages.ndim > 1 else advantages,
    )
    return _Part(rows=samples.index.cpu(), table=table)


def _joined(parts: Sequence[_Part]) -> StepTable:
    """Rows of all processes in global order."""
    tables = [part.table for part in parts]
    whole = StepTable(
        step=tables[0].step,
        table=replace(tables[0].table, values=torch.cat([one.table.values for one in tables])),
        group_ids=torch.cat([one.group_ids for one in tables]),
        prompts=[prompt for one in tables for prompt in one.prompts],
        classes=[name for one in tables for name in one.classes],
        scores=torch.cat([one.scores for one in tables]),
        advantages=torch.cat([one.advantages for one in tables]),
    )
    return whole.select(torch.cat([part.rows for part in parts]).argsort())


def _as_file(table: StepTable) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts; a prompt (with its class) is written once and rows hold its number."""
    keys = list(zip(table.prompts, table.classes or [""] * len(table), strict=True))
    place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    tensors = {
        "values": table.table.values.contiguous(),
        "weights": table.table.weights.float().contiguous(),
        "group_ids": table.group_ids.long().contiguous(),
        "prompt_rows": torch.tensor([place[key] for key in keys], dtype=torch.int32),
        "scores": table.scores.contiguous(),
        "advantages": table.advantages.contiguous(),
    }
    texts = {
        "step": table.step,
        "names": list(table.table.names),
        "prompts": [prompt for prompt, _ in place],
        "classes": [name for _, name in place] if table.classes else [],
    }
    # One entry: safetensors writes several in any order, and equal steps must give equal files.
    return tensors, {TEXTS: json.dumps(texts, ensure_ascii=False)}
