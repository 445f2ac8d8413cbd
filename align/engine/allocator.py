"""On a CPU: freed blocks stay with the process, so that the next step does not ask the system for them again.

The C library gives blocks above 32 MiB back as soon as they are freed and gets them zeroed, page by page, when a tensor
of that size is made a moment later. A training step makes and frees the same sizes each time: that cost 5 to 8 % of a
step of a small language model. What is kept is at most what the step held at its peak, plus gaps; what loading and the
passes before the first step have left would be gaps only, and is given back once.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of <malloc.h>
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD", "GLIBC_TUNABLES")
"""Environment variables by which a person has chosen otherwise, or another allocator."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed. Nothing happens with another C library, or where the environment decides.

    Returns:
        Whether it was told.
    """
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def give_back_once() -> bool:
    """Give back what is free now: between loading and the first step, whose blocks have other sizes than those before.

    Returns:
        Whether there was any to give back.
    """
    malloc_trim = _function("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _function(name: str) -> Any:  # Any: a function of the C library
    """None with another C library, or where the environment decides."""
    if sys.platform != "linux" or any(chosen in os.environ for chosen in _CHOSEN):
        return None
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
