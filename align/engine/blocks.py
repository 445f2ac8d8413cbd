"""The repeated blocks of a network: what is compiled, gathered and freed one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

SHARDED_BY = ("_no_split_modules", "_repeated_blocks")
"""Where libraries name the blocks of a network, first the larger ones: a diffusers U-Net's residual blocks count."""

COMPILED_BY = ("_repeated_blocks", "_no_split_modules")
"""The same, first the ones that diffusers means for compilation: small, many, alike."""


def find_blocks(module: nn.Module, attributes: Sequence[str]) -> list[nn.Module]:
    """The repeated blocks of a network, outermost ones only, in the order of its modules.

    The first of `attributes` that names a class of which the network has modules decides. A network that names none is
    taken apart by its lists: every `nn.ModuleList` of two and more modules of one class holds blocks.

    Args:
        module: the network, adapters and all.
        attributes: `SHARDED_BY` or `COMPILED_BY`.
    """
    for attribute in attributes:
        names = set(_names(module, attribute))
        if found := _outermost(layer for layer in module.modules() if type(layer).__name__ in names):
            return found
    lists = [layer for layer in module.modules() if isinstance(layer, nn.ModuleList)]
    return _outermost(block for group in lists if _alike(group) for block in group)


def _names(module: nn.Module, attribute: str) -> Iterable[str]:
    """Class names that the network or a part of it (a language model inside another) gives; there may be none."""
    return [name for layer in module.modules() for name in getattr(layer, attribute, None) or ()]


def _alike(group: nn.ModuleList) -> bool:
    return len(group) > 1 and len({type(block) for block in group}) == 1


def _outermost(found: Iterable[nn.Module]) -> list[nn.Module]:
    inside: set[int] = set()
    kept = []
    for block in found:  # modules() yields a module before what is inside it
        if id(block) not in inside:
            inside.update(id(layer) for layer in block.modules())
            kept.append(block)
    return kept
