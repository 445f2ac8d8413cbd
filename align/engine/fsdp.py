"""FSDP2: one network spread over processes, block by block. Settings come from Accelerate's configuration.

torch's `fully_shard` is called here and not through `Accelerator.prepare`: that wants the optimiser, too, does not run
on the processor, and looks for blocks by one list of class names.

Every forward pass of a spread network is a collective, because blocks are gathered when their turn comes. Passes with
gradient come in equal numbers (`align.engine.accumulation`). Where processes may pass different numbers of batches
through the network (rollout, evaluation), it is gathered once and stays whole until `Sharded.reshard`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from align.engine.blocks import SHARDED_BY, find_blocks
from align.engine.sharding import whole
from align.errors import AlignError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed.fsdp import MixedPrecisionPolicy

_TRUE = ("1", "true", "yes")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def asked_for() -> bool:
    """Whether the launcher's configuration wants FSDP. On the processor Accelerate itself passes over it.

    Raises:
        AlignError: its first version is asked for.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() not in _TRUE:
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise AlignError(
            "the launch configuration asks for FSDP version 1, which hides the weights in flat vectors.",
            "Set `fsdp_version: 2` under `fsdp_config`, or use configs/accelerate/fsdp2.yaml.",
        )
    return True


def applies(accelerator: Accelerator) -> bool:
    """Whether networks are to be spread; a single process does without, unless Accelerate has set itself up for it."""
    return asked_for() and (accelerator.num_processes > 1 or bool(getattr(accelerator, "is_fsdp2", False)))


def is_spread(module: nn.Module) -> bool:
    """Whether a network's passes are collectives."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


class Sharded:
    """A network that `fully_shard` has spread in place; its names and its way of being called stay.

    Args:
        module: the network, with its adapters, in its final dtypes.
        accelerator: its process group, device, precision and FSDP plugin.
    """

    def __init__(self, module: nn.Module, accelerator: Accelerator) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        plugin = _plugin(accelerator)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        # Any: `fully_shard` has a keyword that older versions lack.
        options: dict[str, Any] = {
            "mesh": mesh,
            "mp_policy": mixed_precision(accelerator.mixed_precision, accelerator.device),
            "offload_policy": plugin.cpu_offload,
        }
        quantised = {weight for weight in module.parameters() if not weight.is_floating_point()}
        if quantised:
            options["ignored_params"] = quantised
        _agree(module, accelerator.device)
        self.module = module
        self._blocks: list[Any] = find_blocks(module, SHARDED_BY)  # Any: they get methods of FSDPModule at run time
        self._after_forward = bool(plugin.reshard_after_forward)
        self._whole = self._awaited = False
        for block in self._blocks:
            block.register_forward_hook(_own_memory)
            fully_shard(block, reshard_after_forward=self._after_forward, **options)
        module.register_forward_hook(_own_memory)
        fully_shard(module, **options)
        module.register_forward_pre_hook(self._gather_if_awaited)

    def reshard(self) -> None:
        """Back to one part per process: after this, passes see what has been written into the weights."""
        self._awaited = False
        for part in self._parts():
            part.reshard()
        if self._whole:
            self._whole = False
            for block in self._blocks:
                block.set_reshard_after_forward(self._after_forward, recurse=False)

    def gather(self) -> None:
        """Hold the whole network on each process until `reshard`, so that passes are no collectives. A collective."""
        self._awaited = False
        if self._whole:
            return
        self._whole = True
        for block in self._blocks:
            block.set_reshard_after_forward(False, recurse=False)
        for part in self._parts():
            part.unshard()

    def gather_at_next_pass(self) -> None:
        """`gather`, when the network is first called; every process has to call it then, or none."""
        self._awaited = not self._whole

    @contextmanager
    def rewritten(self) -> Iterator[None]:
        """For writing into the weights: inside, each process holds its part; afterwards the network is as it was."""
        was_whole, was_awaited = self._whole, self._awaited
        self.reshard()
        yield
        if was_whole:
            self.gather()
        self._awaited = was_awaited

    @contextmanager
    def assembled(self, *, keep: bool) -> Iterator[dict[int, nn.Parameter]]:
        """Inside, the module has its own class again and plain whole weights on the processor; for saving.

        A collective. Passes through the network are not possible inside.

        Args:
            keep: whether this process needs the weights; else only its part in the gathering is done.

        Yields:
            The plain weight of each spread one, by the `id` of the latter; empty without `keep`.
        """
        self.reshard()
        spread = places(self.module)
        plain: dict[int, nn.Parameter] = {}
        for weight in {id(weight): weight for _, _, weight in spread}.values():
            full = whole(weight)
            if keep:
                plain[id(weight)] = nn.Parameter(full, requires_grad=False)
        wrapped = type(self.module)
        try:
            if keep:
                self.module.__class__ = wrapped.__bases__[1]  # `fully_shard` makes class FSDPx(FSDPModule, x)
                for layer, name, weight in spread:
                    layer._parameters[name] = plain[id(weight)]
            yield plain
        finally:
            self.module.__class__ = wrapped
            for layer, name, weight in spread:
                layer._parameters[name] = weight

    def _parts(self) -> list[Any]:
        return [*self._blocks, self.module]

    def _gather_if_awaited(self, *_: object) -> None:
        if self._awaited and not torch.is_grad_enabled():
            self.gather()


def mixed_precision(precision: str, device: torch.device) -> MixedPrecisionPolicy:
    """What travels and is held while a block computes: half-precision copies of float32 weights under autocast.

    Gradients are summed in float32. Inputs are left to autocast: cast by FSDP they would lose times and positions
    (1000 t in bfloat16 is off by up to 2). On the processor the copies stay float32, since normalisation layers there
    refuse weights of another precision than their input.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    half = None if device.type == "cpu" else _HALF.get(precision)
    return MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)


def _own_memory(block: nn.Module, inputs: Any, output: Any) -> Any:  # Any: blocks return what they like
    """Copies where a network or a block returns views.

    FSDP2 hangs the gathering of the backward pass on what is returned, and loses it when a view is changed in place.
    """
    return tree_map_only(Tensor, lambda value: value.clone() if value._is_view() else value, output)


def _plugin(accelerator: Accelerator) -> Any:  # Any: Accelerate's dataclass, of which fields come and go
    from accelerate.utils import FullyShardedDataParallelPlugin

    found = getattr(accelerator.state, "fsdp_plugin", None)
    return FullyShardedDataParallelPlugin(fsdp_version=2) if found is None else found


def places(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Where weights stand: (layer, name in it, weight). A tied weight stands in several places."""
    return [
        (layer, name, weight)
        for layer in module.modules()
        for name, weight in layer._parameters.items()
        if weight is not None
    ]


@torch.no_grad()
def _agree(module: nn.Module, device: torch.device) -> None:
    """Trained weights of the main process for all, as data parallelism does it: a new head may be drawn at random."""
    for weight in module.parameters():
        if weight.requires_grad:
            sent: Tensor = weight.to(device)
            dist.broadcast(sent, src=0)
            weight.copy_(sent)
