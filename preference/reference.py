"""What the model said before training: log-probabilities of the stored answers, computed once and kept.

Where they come from, in this order:

    stored     computed before the first step by the pass that also trains, kept in a file that is named by everything
               they depend on, and used again by every run of the same data and model
    adapters   at loss time, with the low-rank adapters switched off
    copy       at loss time, with a second copy of the weights that was asked for

Nothing here draws random numbers: a stored reference changes no shuffle and no dropout.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from align.engine.batching import even_cuts, micro_cuts
from preference.batches import PairBatch
from preference.layout import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from align.engine.distributed import Processes
    from preference.forward import SequenceScorer

log = logging.getLogger(__name__)

FORMAT = "1"
"""Of the files. Another number is another file."""


@dataclass(frozen=True, kw_only=True)
class ReferenceTable:
    """Log-probabilities of some pairs of a data set.

    Attributes:
        rows: places in the data, ascending.
        counts: tokens of each pair, of both answers together.
        log_probs: of the chosen tokens, then of the rejected ones, pair after pair; nats.
    """

    rows: Int[Tensor, "k"]
    counts: Int[Tensor, "k"]
    log_probs: Float[Tensor, "m"]

    @classmethod
    def empty(cls) -> ReferenceTable:
        """Of no pair."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(rows=none, counts=none, log_probs=torch.zeros(0))

    def missing(self, rows: Int[Tensor, "r"]) -> Int[Tensor, "s"]:
        """Which of these places are not in the table."""
        return rows[~torch.isin(rows, self.rows)]

    def of(self, rows: Int[Tensor, "r"]) -> list[Float[Tensor, "_"]]:
        """The log-probabilities of each of these pairs."""
        places = torch.searchsorted(self.rows, rows)
        ends = self.counts.cumsum(0)
        starts, ends = (ends - self.counts)[places].tolist(), ends[places].tolist()
        return [self.log_probs[start:end] for start, end in zip(starts, ends, strict=True)]

    def joined(self, other: ReferenceTable) -> ReferenceTable:
        """Both tables in one; they have no pair in common."""
        rows, order = torch.cat([self.rows, other.rows]).sort()
        parts = [*self.log_probs.split(self.counts.tolist()), *other.log_probs.split(other.counts.tolist())]
        log_probs = torch.cat([parts[place] for place in order.tolist()]) if parts else self.log_probs
        return ReferenceTable(rows=rows, counts=torch.cat([self.counts, other.counts])[order], log_probs=log_probs)


class ReferenceCache:
    """A file for each data set and model.

    Args:
        folder: where the files lie; None = nothing is kept.
        key: everything that the numbers depend on, as texts.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, str]) -> None:
        self._key = {"format": FORMAT, **key}
        text = json.dumps(self._key, sort_keys=True)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self.path = None if folder is None else folder / f"{name}.safetensors"

    def load(self) -> ReferenceTable:
        """What is there already; an empty table if there is nothing, or nothing that can be read."""
        if self.path is None or not self.path.is_file():
            return ReferenceTable.empty()
        try:
            with safe_open(self.path, framework="pt") as file:
                parts = {name: file.get_tensor(name) for name in ("rows", "counts", "log_probs")}
        except (SafetensorError, OSError) as error:
            log.warning("%s cannot be read (%s); the reference is computed again", self.path, error)
            return ReferenceTable.empty()
        return ReferenceTable(**parts)

    def save(self, table: ReferenceTable) -> None:
        """Write the file, in one go: a run killed here leaves the old one, and two runs do not mix."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        tensors = {"rows": table.rows, "counts": table.counts, "log_probs": table.log_probs.contiguous()}
        draft.write_bytes(save(tensors, metadata=self._key))
        os.replace(draft, self.path)


def complete(
    table: ReferenceTable,
    groups: Callable[[Int[Tensor, "r"]], Sequence[Group]],
    rows: Int[Tensor, "r"],
    *,
    scorer: SequenceScorer,
    processes: Processes,
    batch_size: int,
) -> ReferenceTable:
    """The table with these pairs in it, too. A collective; the network is the reference at this moment.

    Args:
        table: what is known, the same on all processes.
        groups: places in the data -> their pairs, laid out as the batches of the training are.
        rows: places in the data.
        scorer: the pass.
        processes: share the work.
        batch_size: pairs of a pass.
    """
    missing = table.missing(rows)
    if len(missing) == 0:
        return table
    lengths = torch.tensor([_tokens(group) for group in groups(missing)])
    order = missing[lengths.argsort(stable=True)]  # answers of one length side by side: less padding
    cut = even_cuts(len(order), processes.world)[processes.rank]
    found = _compute(groups, order[cut.start : cut.stop], scorer, batch_size)
    gathered = ReferenceTable(
        rows=processes.gather_rows(found.rows),
        counts=processes.gather_rows(found.counts),
        log_probs=processes.gather_rows(found.log_probs),
    )
    return table.joined(gathered)


def _compute(
    groups: Callable[[Int[Tensor, "r"]], Sequence[Group]],
    rows: Int[Tensor, "r"],
    scorer: SequenceScorer,
    batch_size: int,
) -> ReferenceTable:
    """Of this process's part of the pairs, which may be none."""
    counts, values = [], [torch.zeros(0)]
    for cut in micro_cuts(len(rows), batch_size):
        found = groups(rows[cut.start : cut.stop])
        scores = scorer.without_gradient(found)
        counts += [int(part.sum()) for part in scores.lengths.split([len(group.responses) for group in found])]
        values.append(scores.log_probs.float().cpu())
    return ReferenceTable(rows=rows, counts=torch.tensor(counts, dtype=torch.int64), log_probs=torch.cat(values))


def stored_log_probs(batch: PairBatch) -> Float[Tensor, "m"]:
    """The reference's log-probabilities of a batch in one line, as `SequenceScores` has those of the policy."""
    assert batch.reference is not None  # for the type checker
    return torch.cat(list(batch.reference))


def _tokens(group: Group) -> int:
    return len(group.prompt) + sum(len(response) for response in group.responses)
