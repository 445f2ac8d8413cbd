"""Checks of `Processes` that need two processes; run under torchrun."""

from __future__ import annotations

import tempfile

import pytest
import torch

from align.config.shared import OutputConfig
from align.engine.accumulation import Accumulator
from align.engine.distributed import Processes, start_accelerator
from align.engine.folder import RunFolder
from align.errors import AlignError


def main() -> None:
    """Rank r has r + 1 rows."""
    accelerator = start_accelerator()
    processes = Processes(accelerator)
    rank = processes.rank
    assert processes.world == 2

    big = 2**53 + 1  # not a float64
    rows = torch.full((rank + 1, 2), big + rank, dtype=torch.int64)
    gathered = processes.gather_rows(rows)
    assert gathered.dtype == torch.int64
    assert gathered.tolist() == [[big, big], [big + 1, big + 1], [big + 1, big + 1]]
    assert processes.gather_rows(torch.tensor([rank == 1])).tolist() == [False, True]
    none = torch.empty(0, 3) if rank == 0 else torch.ones(1, 3)
    assert processes.gather_rows(none).tolist() == [[1.0, 1.0, 1.0]]
    half = processes.gather_rows(torch.tensor([0.5 + rank], dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.tolist() == [0.5, 1.5]

    assert processes.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert processes.from_main(f"from {rank}") == "from 0"
    # 1 unit of mean 10 here, 3 units of mean 2 there: (10 + 6) / 4, not (10 + 2) / 2
    means = processes.mean_of({"both": (10.0, 1.0)} if rank == 0 else {"both": (6.0, 3.0), "one": (5.0, 2.0)})
    assert means == {"both": 4.0, "one": 2.5}
    assert not processes.all_true(rank == 0)
    assert processes.any_true(rank == 0)

    check_refusals(processes, accelerator)
    print("all collectives agree", flush=True)


def check_refusals(processes: Processes, accelerator: object) -> None:
    """Both processes raise the same error, also when only one of them sees the reason."""
    directory = processes.from_main(tempfile.mkdtemp())
    output = OutputConfig(directory=directory, name="run")
    folder = RunFolder.create(output, default_name="run", processes=processes)
    if processes.is_main:
        (folder.path / "something").write_text("here")
    processes.barrier()
    with pytest.raises(AlignError, match="is there already"):
        RunFolder.create(output, default_name="run", processes=processes)

    class Rows(list):  # only len() is asked for
        pass

    accumulator = Accumulator(accelerator, torch.nn.Linear(1, 1), processes, micro_batch_size=2)
    with pytest.raises(AlignError, match=r"processes \[0\] have no samples"):
        accumulator.begin(Rows(range(processes.rank)))


if __name__ == "__main__":
    main()
