"""`torch.compile` of each repeated block: one code for all blocks of a kind, and one code for all kinds of passes.

Compiled code for passes without gradient may round otherwise than that for passes with one: other kernels are fused,
and in half precision a fused kernel keeps more digits than a stored intermediate. A policy ratio then leaves 1 before
the first update. So a compiled block runs the code of a pass with gradient always. What it recorded is dropped when the
caller wants no gradient: the activations of one block are held at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from align.engine.blocks import COMPILED_BY, find_blocks
from align.errors import AlignError

_VARIANTS = 64


def compile_blocks(module: nn.Module, *, backend: str = "inductor") -> int:
    """Compile the forward pass of each repeated block in place; names of weights stay. Returns how many there are.

    Args:
        module: the network, with its adapters.
        backend: of `torch.compile`.

    Raises:
        AlignError: the network has no repeated blocks, or the compiler does not work on this machine.
    """
    blocks = find_blocks(module, COMPILED_BY)
    if not blocks:
        raise AlignError(
            f"training.compile is on, but {type(module).__name__} has no repeated blocks that could be compiled.",
            "Set training.compile=false.",
        )
    _check_compiler(next(module.parameters()).device, backend)
    _configure()
    for block in blocks:
        # Not `block.compile()`: that would compile the hooks of FSDP2, which gather the block's weights, with it.
        block.forward = _one_code(block.forward, torch.compile(block.forward, backend=backend))
    return len(blocks)


def _one_code(plain: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[..., Any]:  # Any: their signatures
    """Call compiled code so that it never sees whether gradients are wanted."""

    @functools.wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.is_grad_enabled()
        if not wanted and any(hasattr(value, "get_seq_length") for value in (*args, *kwargs.values())):
            return plain(*args, **kwargs)  # generation: a cache of keys and values, which must not record anything
        with torch.enable_grad():
            args, kwargs = tree_map_only(Tensor, _with_gradient, (args, kwargs))
            out = compiled(*args, **kwargs)
        return out if wanted else tree_map_only(Tensor, Tensor.detach, out)

    return forward


def _with_gradient(value: Tensor) -> Tensor:
    """An input that a gradient flows to; whether one is used then is no difference to the compiler."""
    if value.requires_grad or not value.is_floating_point():
        return value
    return value.detach().requires_grad_()


def _configure() -> None:
    """Room for the variants that a run has, and no splitting under DDP.

    All blocks of a class share one budget of compiled variants; beyond it torch goes on uncompiled with a warning.
    Kinds of blocks (first, last, with more attention) times adapters on and off times fixed and varying shapes are more
    than the usual 8. Code compiled inside a DDP pass would be split to overlap with traffic and no longer be the
    rollout's; blocks are small enough to overlap as they are.
    """
    torch._dynamo.config.optimize_ddp = False
    config = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # the older name
    setattr(config, name, max(getattr(config, name), _VARIANTS))


def _check_compiler(device: torch.device, backend: str) -> None:
    """Compile a line of code: a missing compiler is found before a model has been rolled out.

    Raises:
        AlignError: it could not be compiled.
    """

    def line(x: Tensor) -> Tensor:
        return x * 2 + 1

    try:
        torch.compile(line, backend=backend)(torch.zeros(3, device=device))
    except Exception as error:  # whatever the compiler's tool chain raises
        raise AlignError(
            f"training.compile is on, but torch.compile does not work on this machine ({device.type}): "
            f"{_reason(error)}",
            "Set training.compile=false, or install what it needs: a C++ compiler (g++) for the processor, "
            "Triton and a C compiler for a GPU.",
        ) from error


def _reason(error: Exception) -> str:
    """The tool chain's own error, out of the one that the compiler puts around it, in one line."""
    inner = getattr(error, "inner_exception", None) or error
    line = next((line.strip() for line in str(inner).splitlines() if line.strip()), "no message")
    return f"{type(inner).__name__}: {line}"
