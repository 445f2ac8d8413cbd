"""On a CPU: freed blocks stay with the process, so that the next step does not ask the system for them again.

The C library gives blocks above 32 MiB back as soon as they are freed and gets them zeroed, page by page, when a tensor
of that size is made a moment later. A training step makes and frees the same sizes each time: that cost 5 to 8 % of a
step of a small language model. What is kept is at most what the step held at its peak, plus gaps.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of <malloc.h>
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD", "GLIBC_TUNABLES")
"""Environment variables by which a person has chosen otherwise, or another allocator."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed. Nothing happens with another C library, or where the environment decides.

    Returns:
        Whether it was told.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
