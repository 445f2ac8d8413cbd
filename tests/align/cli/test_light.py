"""Help, configs, schema and plan are quick and never import torch; measured in processes of their own."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "numpy", "diffusers", "transformers", "accelerate", "peft", "matplotlib", "scipy")
PROBE = """
import sys
from align.cli import main
sys.argv = ["align", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    code = stop.code
print("\\nLOADED", code or 0, *[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


def run_python(*arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def config(tmp_path):
    (tmp_path / "train.txt").write_text("a\nb\n")
    text = "branch: diffusion\nrollout: {prompts_per_step: 2}\nrewards: [{function: brightness}]\n"
    (tmp_path / "run.yaml").write_text(text + "prompts: {train: train.txt, heldout: null}\n")
    return str(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["configs", "ls"],
        ["configs", "show", "demo/awm_tiny"],
        ["schema"],
        ["schema", "--markdown"],
        ["plan", "CONFIG"],
        ["plan", "CONFIG", "--json"],
        ["plan", "CONFIG", "recipe=diffusion/awm_sd35m"],
    ],
    ids=" ".join,
)
def test_no_heavy_import(arguments, config):
    arguments = [config if argument == "CONFIG" else argument for argument in arguments]
    done = run_python("-c", PROBE.format(arguments=arguments, heavy=HEAVY))
    assert done.stderr.splitlines()[-1] == "LOADED 0", done.stderr
    assert len(done.stdout) > 10


def test_a_mistake_is_reported_before_anything_heavy(config):
    done = run_python("-c", PROBE.format(arguments=["train", config, "rollout.grup_size=4"], heavy=HEAVY))
    assert done.stderr.splitlines()[-1] == "LOADED 2"
    assert "Traceback" not in done.stderr
    assert "override `rollout.grup_size=4`: `rollout.grup_size` is unknown." in done.stderr
    assert "Did you mean `group_size`?" in done.stderr


def test_help_takes_less_than_the_promised_cpu_time(tmp_path):
    """0.7 s of CPU time; the best of three, because other processes share the caches."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run_python("-m", "align", "--help", cwd=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.7
