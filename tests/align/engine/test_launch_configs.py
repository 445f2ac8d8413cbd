"""The launch configurations that come with the suite, read by Accelerate's own loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

import align

FOLDER = Path(align.__file__).parents[1] / "configs" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))
RESHARD = {"fsdp2": True, "fsdp2_shard_grad_op": False, "fsdp2_two_cpu_processes": True}


def test_they_are_there():
    assert [file.stem for file in FILES] == [
        "ddp", "fsdp2", "fsdp2_shard_grad_op", "fsdp2_two_cpu_processes", "two_cpu_processes"
    ]  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_it_and_it_says_how_to_use_it(file: Path):
    config = load_config_from_file(str(file))
    assert config.distributed_type == ("FSDP" if file.stem in RESHARD else "MULTI_GPU")
    assert config.use_cpu == ("cpu" in file.stem)
    assert config.mixed_precision == "no"
    assert config.num_processes == (2 if "cpu" in file.stem else 8)
    if file.stem in RESHARD:
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_reshard_after_forward"] is RESHARD[file.stem]
    text = file.read_text()
    assert f"accelerate launch --config_file configs/accelerate/{file.name}" in text
    assert text.startswith("#")


@pytest.mark.parametrize("stem", RESHARD)
def test_the_launcher_hands_on_what_the_engine_reads(stem: str, monkeypatch: pytest.MonkeyPatch):
    """Each FSDP key is one that Accelerate's launcher turns into a variable of its plugin; others it would drop."""
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions}
    assert set(yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())["fsdp_config"]) <= known
