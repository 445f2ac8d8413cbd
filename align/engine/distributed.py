"""Processes: who we are, and the few collective operations the suite needs. One process needs no process group.

Rows and objects come back rank-major, the same on every process. Integers stay integers, and processes may have
different numbers of rows.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from align.engine import fsdp
from align.engine.allocator import keep_freed_memory
from align.errors import AlignError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

_LAST_TENSORS = 0.3
"""Seconds that the threads of the process group have at the end to free what they hold."""


def start_accelerator(mixed_precision: str = "no", *, find_unused_parameters: bool = False) -> Accelerator:
    """The Accelerator of a run: autocast, device and process group, from the environment that the launcher set.

    Buffers are not broadcast in each forward pass: that would be a collective in every pass, and processes may run
    different numbers of passes.

    Args:
        mixed_precision: "no", "bf16" or "fp16".
        find_unused_parameters: for a network of which some trained weights get no gradient in some passes.

    Raises:
        AlignError: the launch configuration asks for what this engine does not do.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    _check_launch()
    _warn_if_alone()
    # Without the flag, Accelerate takes launched processes on a machine without accelerator for so many single ones.
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    cpu = asked or not torch.accelerator.is_available()
    if cpu:
        keep_freed_memory()

    data_parallel = DistributedDataParallelKwargs(
        broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=find_unused_parameters
    )
    accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision, kwargs_handlers=[data_parallel])
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise AlignError(
            f"{launched} processes were launched, but they found {accelerator.num_processes} in their group.",
            "Launch with `accelerate launch --multi_gpu --num_processes N -m align train ...`, also without a GPU.",
        )
    if accelerator.num_processes > 1:
        atexit.register(_leave_group)
    return accelerator


def _check_launch() -> None:
    """Refuse launch settings under which Accelerate would take over what this engine does itself.

    DeepSpeed's engine owns the optimiser, the clipping and the accumulation, and its partitioned gradients and weights
    cannot be exchanged or averaged from outside; FSDP2 without resharding after the forward pass splits the same things
    (moments and gradients) over the processes. Accelerate's own compilation covers passes with gradient only, so that
    rollout and update would run different code.
    """
    fsdp.asked_for()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true", "yes"):
        raise AlignError(
            "the launch configuration asks for DeepSpeed, which this engine does not train with.",
            "ZeRO-2's equivalent is FSDP2 with `fsdp_reshard_after_forward: false` "
            "(configs/accelerate/fsdp2_shard_grad_op.yaml), ZeRO-3's is configs/accelerate/fsdp2.yaml.",
        )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise AlignError(
            "the launch configuration sets a dynamo backend, which would compile the update but not the rollout.",
            "Remove `dynamo_config` from it and set training.compile=true.",
        )


def _warn_if_alone() -> None:
    """`accelerate launch --num_processes 2` starts a single process where it finds no GPU; the person thinks of two.

    A launcher for several processes sets WORLD_SIZE; Accelerate's launcher for one process leaves it out, yet sets an
    address for the group when more than one process was asked for.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION") is not None
    if launched and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        logging.getLogger(__name__).warning(
            "several processes were asked for, but the launcher has started this one only. The numbers will be the "
            "same, the time will not. Without GPUs add --multi_gpu, or give the launcher "
            "--config_file configs/accelerate/two_cpu_processes.yaml."
        )


def _leave_group() -> None:
    """Take the process group down before the interpreter goes: its threads may abort a process that forgets it.

    A thread of gloo frees a collective's tensors a moment after everybody has the result, and takes the interpreter's
    lock for that. In an interpreter that is going down already, this ends the process with SIGABRT.
    """
    gc.collect()  # wrapped networks refer to themselves, and to the group: without them its threads are joined
    if dist.is_initialized():
        dist.destroy_process_group()
    time.sleep(_LAST_TENSORS)


class Processes:
    """The processes of a run, as one of them sees the others.

    Attributes:
        rank: number of this process, 0 .. world - 1.
        world: number of processes.
        device: where this process computes.

    Args:
        accelerator: its process group; None means a single process on the CPU.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.rank = accelerator.process_index if accelerator else 0
        self.world = accelerator.num_processes if accelerator else 1
        self.device = accelerator.device if accelerator else torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, which writes and prints."""
        return self.rank == 0

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Rows of all processes, rank-major; dtype and device as given.

        Args:
            rows: [n, ...]; n may differ between processes, the other axes and the dtype may not.
        """
        if self.world == 1:
            return rows
        # Gloo and NCCL do not both carry bool; bytes arrive everywhere.
        sent = rows.to(self.device, torch.uint8 if rows.dtype == torch.bool else rows.dtype)
        counts = [int(count) for count in self.gather_objects(len(sent))]
        padded = sent.new_zeros(max(counts), *sent.shape[1:])
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        parts = [part[:count] for part, count in zip(received, counts, strict=True)]
        return torch.cat(parts).to(rows.device, rows.dtype)

    def gather_objects(self, value: T) -> list[T]:
        """One value per process, in order of rank. For small Python objects."""
        if self.world == 1:
            return [value]
        received: list[T | None] = [None] * self.world
        dist.all_gather_object(received, value)
        return received  # type: ignore[return-value]  # every entry has been filled

    def from_main(self, value: T) -> T:
        """The value that the main process has; what the others pass is ignored."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mean_of(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Means over all processes from each one's (sum, count); a name may be absent on some. Count 0 gives NaN."""
        return merge_means(self.gather_objects(dict(sums)))

    def all_true(self, flag: bool) -> bool:
        """Whether the flag is set on every process."""
        return all(self.gather_objects(bool(flag)))

    def any_true(self, flag: bool) -> bool:
        """Whether the flag is set on at least one process."""
        return any(self.gather_objects(bool(flag)))

    def barrier(self) -> None:
        """Wait for every process."""
        if self.world > 1:
            dist.barrier()


def merge_means(parts: list[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """Mean of each name over parts of (sum, count): sum of the sums / sum of the counts."""
    totals: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (value, count) in part.items():
            total, number = totals.get(name, (0.0, 0.0))
            totals[name] = (total + value, number + count)
    return {name: total / count if count else float("nan") for name, (total, count) in totals.items()}
