"""Freed memory stays with the process where nobody has chosen otherwise."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, resource
from align.engine.allocator import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
import torch
def faults(tensors):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(30)
print(faults(5))
"""


def faults(keep, **environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(keep=keep)], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_pages_are_not_asked_for_again():
    """5 tensors of 64 MiB are 81,920 pages: all faulted in anew without the setting, less than half with it.

    The heap takes the remainders of aligned blocks apart for a while: the first six or seven, sometimes more, are
    faulted in with the setting, too. Thirty go before.
    """
    assert faults(False) > 80_000
    assert faults(True) < 41_000


def test_the_environment_decides(monkeypatch):
    from align.engine.allocator import keep_freed_memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
