"""Frozen modules that are on the accelerator only while they work.

At home they lie in the computer's memory. For work their weights are copied to the device; afterwards the copies are
dropped and the originals stand in their place again. The weights are frozen, so nothing has to be carried back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn


@dataclass
class _Guest:
    """A module on the device: how often it is borrowed, and where each of its tensors has its home."""

    visits: int = 0
    homes: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Parking:
    """Brings frozen modules to the device and home again.

    Args:
        modules: the modules; they are at home now and stay there while they are not borrowed.
        fetch: copies a tensor to the device.
    """

    def __init__(self, modules: Iterable[nn.Module], fetch: Callable[[Tensor], Tensor]) -> None:
        self._guests = {module: _Guest() for module in modules}
        self._fetch = fetch

    @classmethod
    def at(cls, device: torch.device, modules: Iterable[nn.Module]) -> Self:
        """Parking in the computer's memory, with the work on `device`."""
        return cls(modules, lambda tensor: tensor.to(device, non_blocking=True))

    @contextmanager
    def borrowed(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Inside, these modules are on the device. Modules that are not parked here are left alone.

        A module that is borrowed twice at once is fetched once, and goes home when both are done.
        """
        with ExitStack() as stack:
            for module in modules:
                if module in self._guests:
                    stack.enter_context(self._at_work(module))
            yield

    @contextmanager
    def _at_work(self, module: nn.Module) -> Iterator[None]:
        guest = self._guests[module]
        guest.visits += 1
        try:
            if guest.visits == 1:
                for tensor in (*module.parameters(), *module.buffers()):
                    guest.homes.append((tensor, tensor.data))
                    tensor.data = self._fetch(tensor.data)
            yield
        finally:
            guest.visits -= 1
            if not guest.visits:
                for tensor, home in guest.homes:
                    tensor.data = home
                guest.homes.clear()
