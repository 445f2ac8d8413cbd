from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from align.config.shared import OutputConfig
from align.engine.distributed import Processes
from align.engine.folder import RunFolder, step_name, step_number
from align.errors import AlignError

HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, b"somebody")
print("held", flush=True)
sys.stdin.read()
"""


def create(directory: Path, name: str | None = None) -> RunFolder:
    return RunFolder.create(
        OutputConfig(directory=str(directory), name=name), default_name="demo", processes=Processes()
    )


def reopen(path: Path) -> RunFolder:
    return RunFolder.reopen(path, processes=Processes())


def test_runs_without_a_name_are_numbered(tmp_path: Path):
    names = []
    for _ in range(3):
        folder = create(tmp_path / "runs")
        names.append(folder.path.name)
        folder.close()
    assert names == ["demo-001", "demo-002", "demo-003"]
    (tmp_path / "runs" / "demo-002" / "run.lock").unlink()
    (tmp_path / "runs" / "demo-002").rmdir()
    assert create(tmp_path / "runs").path.name == "demo-002"


def test_a_folder_with_a_run_in_it_is_not_written_over(tmp_path: Path):
    folder = create(tmp_path, "mine")
    folder.close()
    with pytest.raises(AlignError, match=r"mine is there already[\s\S]*align train .*mine`[\s\S]*output\.name"):
        create(tmp_path, "mine")


def test_an_empty_folder_may_be_used(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    assert create(tmp_path, "mine").path == (tmp_path / "mine").resolve()


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path: Path):
    folder = create(tmp_path, "mine")
    (folder.path / "config.yaml").write_text("{}")
    with pytest.raises(AlignError, match=rf"already in use by .*{os.getpid()}"):
        reopen(folder.path)
    folder.close()
    folder.close()  # twice does no harm
    again = reopen(folder.path)
    assert again.resumed
    assert json.loads((again.path / "run.lock").read_text())["pid"] == os.getpid()


def test_a_dead_process_does_not_block(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("{}")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlignError, match="already in use by somebody"):
            reopen(tmp_path)
        holder.kill()
        holder.wait()
    reopen(tmp_path).close()


def test_resuming_needs_a_run(tmp_path: Path):
    with pytest.raises(AlignError, match="no such folder"):
        reopen(tmp_path / "nowhere")
    with pytest.raises(AlignError, match="a folder without one"):
        reopen(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AlignError, match="cannot be made"):
        create(tmp_path / "file", "mine")


def test_names_of_steps():
    assert step_name(50) == "step_000050"
    assert step_number("step_000050") == 50
    assert step_number("step_1234567.jsonl") == 1234567
    assert [step_number(name) for name in ("step_", "step_x", "other", "step_1x")] == [None] * 4


def fill(folder: RunFolder) -> None:
    lines = "".join(f'{{"step": {step}}}\n' for step in range(4))
    folder.metrics.write_text(lines + '{"step": 4, "los')
    strip = folder.path / "strip" / "strip.jsonl"
    strip.parent.mkdir()
    strip.write_text(lines)
    for step in range(4):
        folder.of_step("samples", step, ".jsonl").write_text("")
        folder.of_step("images", step).mkdir()
        folder.of_step("evaluations", step, ".json").write_text("")
        folder.of_step("evaluations/pictures", step).mkdir()
    (folder.path / "samples" / "notes.txt").write_text("mine")


@pytest.mark.parametrize(("step", "kept"), [(2, [0, 1, 2]), (None, [])])
def test_what_comes_after_the_checkpoint_is_cut_off(tmp_path: Path, step: int | None, kept: list[int]):
    folder = create(tmp_path, "mine")
    fill(folder)
    folder.cut_back(step)
    for file in (folder.metrics, folder.path / "strip" / "strip.jsonl"):
        assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == kept
    for kind in ("samples", "images", "evaluations", "evaluations/pictures"):
        assert sorted(step_number(path.name) for path in (folder.path / kind).glob("step_*")) == kept
    assert (folder.path / "samples" / "notes.txt").exists()
