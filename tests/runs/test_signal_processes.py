"""Advantages of a step do not depend on how many processes share its rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import align
from align.advantages import available
from align.advantages.registry import find, make_options

SCRIPT = Path(__file__).with_name("signal_processes.py")
ROOT = Path(align.__file__).parents[1]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_two_processes_equal_one_for_every_estimator_of_batch_scope():
    """One start of two processes for all; each compares its own rows with those of a lonely process, bit for bit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *TWO, str(SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("equal bit for bit: ")]
    assert len(lines) == 2
    by_batch = {k for k in available() if find(k).scope_of(make_options(find(k), {})) == "batch"}
    assert all(by_batch <= set(line.split()) for line in lines)
