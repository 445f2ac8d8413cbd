from __future__ import annotations

import logging
import math
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from align.config.shared import CheckpointConfig
from align.engine import checkpoint as files
from align.engine.adapters import Policy
from align.engine.checkpoint import Checkpoint, DamagedCheckpointError
from align.engine.distributed import Processes
from align.engine.saving import CheckpointFailedError, OtherModelError, Saver, find_checkpoint, load_weights
from align.errors import AlignError

STATE = {
    "float32": torch.tensor([[1.0, math.nan], [-0.0, math.inf]]),
    "float64": torch.tensor(1 / 3, dtype=torch.float64),
    "int64": torch.tensor([2**53 + 1]),
    "bool": torch.tensor([True, False]),
    "strided": torch.arange(6.0).reshape(2, 3).T,
    "number": 0.1,
    "count": 2**60 + 1,
    "text": "snow ❄",
    "infinite": math.inf,
}


def make(step: int, **metrics: float) -> Checkpoint:
    parts = {"weights": {"w": torch.full((3,), float(step))}, "algorithm": STATE}
    return Checkpoint(step=step, parts=parts, identity={"class": "Net"}, metrics=metrics)


def test_shared_memory_is_written_twice_and_nothing_else_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A moment stands where it stood while it is written; a second name of it and a piece of another are copies."""
    import safetensors.torch

    whole, buffer = torch.arange(4.0), torch.arange(8.0)
    state = {"whole": whole, "again": whole, "piece": buffer[2:5], "empty": torch.empty(0), "nothing": torch.empty(0)}
    places, save = {}, safetensors.torch.save_file

    def watched(tensors, path):
        places.update({name: tensor.data_ptr() for name, tensor in tensors.items()})
        save(tensors, path)

    monkeypatch.setattr(safetensors.torch, "save_file", watched)
    path = files.write(tmp_path, Checkpoint(step=1, parts={"algorithm": state}, identity={}, metrics={}))
    assert places["whole"] == whole.data_ptr() != places["again"]
    back = files.read(path).parts["algorithm"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_everything_comes_back_bit_for_bit(tmp_path: Path):
    path = files.write(tmp_path, make(5, reward=0.25, broken=math.nan))
    assert path == tmp_path / "step_000005"
    back = files.read(path)
    assert (back.step, back.identity, back.metrics["reward"]) == (5, {"class": "Net"}, 0.25)
    assert math.isnan(back.metrics["broken"])
    assert back.parts["algorithm"].keys() == STATE.keys()
    for name, value in STATE.items():
        found = back.parts["algorithm"][name]
        if isinstance(value, torch.Tensor):
            assert found.dtype == value.dtype
            assert found.shape == value.shape
            assert found.contiguous().numpy().tobytes() == value.contiguous().numpy().tobytes()
        else:
            assert found == value
            assert type(found) is type(value)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("file", ["weights.safetensors", "numbers.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "gone", "changed"])
def test_damage_is_named_with_the_checkpoint_to_use_instead(tmp_path: Path, file: str, harm: str):
    files.write(tmp_path, make(5))
    path = files.write(tmp_path, make(10))
    content = bytearray((path / file).read_bytes())
    content[-1] ^= 1
    harms = {
        "cut": lambda: os.truncate(path / file, len(content) // 2),
        "gone": (path / file).unlink,
        "changed": lambda: (path / file).write_bytes(content),
    }
    harms[harm]()
    with pytest.raises(DamagedCheckpointError, match=f"{file}[\\s\\S]*step_000005 is whole"):
        files.read(path)
    assert files.latest(tmp_path) == tmp_path / "step_000005"


def test_no_checkpoint_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = files.write(tmp_path, make(5))
    (path / "weights.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        assert files.latest(tmp_path) is None
    assert "weights.safetensors is missing" in caplog.text
    with pytest.raises(DamagedCheckpointError, match="No older checkpoint is whole"):
        files.read(path)
    assert files.latest(tmp_path / "nothing here") is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path):
    """A real failure of the operating system: files may not grow beyond 4 kB, the weights need 40 kB."""
    files.write(tmp_path, make(5))
    big = Checkpoint(step=10, parts={"weights": {"w": torch.zeros(10_000)}}, identity={}, metrics={})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError):
            files.write(tmp_path, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step_000005"]
    assert files.damage(tmp_path / "step_000005") == []


def test_the_same_step_again_replaces(tmp_path: Path):
    files.write(tmp_path, make(5, reward=1.0))
    files.write(tmp_path, make(5, reward=2.0))
    assert files.read(tmp_path / "step_000005").metrics["reward"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step_000005"]


def test_remains_of_a_killed_run_are_removed(tmp_path: Path):
    """A half-written folder goes; an old checkpoint whose replacement never came is put back."""
    files.write(tmp_path, make(5))
    (tmp_path / ".step_000010.tmp").mkdir()
    (tmp_path / ".step_000010.tmp" / "weights.safetensors").write_bytes(b"half")
    files.write(tmp_path, make(15)).rename(tmp_path / ".step_000015.old")
    files.write(tmp_path, make(20)).rename(tmp_path / ".step_000020.old")
    files.write(tmp_path, make(20))
    files.remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000005", "step_000015", "step_000020"]


def test_the_newest_and_the_best_stay(tmp_path: Path):
    """Rewards 3, 9, NaN, 9, 1, 2: best two are the 9s; newest two are the last two; a tie goes to the newer one."""
    for step, reward in enumerate([3.0, 9.0, math.nan, 9.0, 1.0, 2.0], start=1):
        files.write(tmp_path, make(step, reward=reward))
    files.prune(tmp_path, keep_last=2, keep_best=2, metric="reward")
    assert [path.name[-1] for path in files.listed(tmp_path)] == ["2", "4", "5", "6"]
    files.prune(tmp_path, keep_last=1, keep_best=1, metric="reward")
    assert [path.name[-1] for path in files.listed(tmp_path)] == ["4", "6"]
    files.prune(tmp_path, keep_last=0, keep_best=0, metric="reward")
    assert [path.name[-1] for path in files.listed(tmp_path)] == ["6"]
    files.prune(tmp_path, keep_last=1, keep_best=3, metric="unknown")
    assert [path.name[-1] for path in files.listed(tmp_path)] == ["6"]


def policy(width: int = 3, **identity: str) -> Policy:
    return Policy.full(nn.Sequential(nn.Linear(2, width)), identity=identity)


def saver(folder: Path, owner: Policy, **config: int) -> Saver:
    return Saver(folder, CheckpointConfig(**config), owner, Processes(), seed=0)


def test_a_checkpoint_of_another_model_lists_what_differs(tmp_path: Path):
    saver(tmp_path, policy(path="a")).save(1, {}, must=True)
    with pytest.raises(OtherModelError, match=r"path is 'a' in the checkpoint and 'b' here"):
        saver(tmp_path, policy(path="b")).restore()
    with pytest.raises(OtherModelError, match=r"2 weights differ in shape, such as 0\.bias: \[3\] there, \[4\] here"):
        saver(tmp_path, policy(4, path="a")).restore()
    other = Policy.full(nn.Sequential(nn.Identity(), nn.Linear(2, 3)), identity={"path": "a"})
    with pytest.raises(OtherModelError, match=r"lacks 2 weights, such as 1\.bias; .* has besides 2 weights"):
        saver(tmp_path, other).restore()
    assert saver(tmp_path, policy(path="a")).restore() == 1


def test_a_damaged_newer_checkpoint_is_set_aside(tmp_path: Path):
    """Otherwise the next pruning would keep it as the newest and remove the good ones."""
    owner = saver(tmp_path, policy(), keep_last=1, keep_best=0)
    owner.save(1, {}, must=True)
    shutil.copytree(tmp_path / "step_000001", tmp_path / "step_000002")
    (tmp_path / "step_000002" / "numbers.json").unlink()
    assert owner.restore() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged_step_000002", "step_000001"]


def test_a_failed_save_is_reported_and_the_last_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    owner = saver(tmp_path, policy())
    assert owner.save(1, {}, must=False) is None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_parts", full)
    assert "No space left" in str(owner.save(2, {}, must=False))
    assert "COULD NOT BE WRITTEN" in caplog.text
    with pytest.raises(CheckpointFailedError, match=r"step 2 could not be written[\s\S]*Free disk space"):
        owner.save(2, {}, must=True)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


def test_weights_are_found_by_run_folder_checkpoint_folder_or_checkpoint(tmp_path: Path):
    owner = policy()
    parts = saver(tmp_path / "checkpoints", owner)
    parts.save(3, {}, must=True)
    expected = {name: weight.clone() for name, weight in owner.state_dict().items()}
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "step_000003"):
        assert find_checkpoint(path).name == "step_000003"
        other = policy()
        assert load_weights(path, other) == "raw"
        assert all(torch.equal(weight, expected[name]) for name, weight in other.state_dict().items())
    with pytest.raises(AlignError, match="found none"):
        find_checkpoint(tmp_path / "elsewhere")


def test_averaged_weights_are_preferred(tmp_path: Path):
    class Average:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {name: torch.full_like(weight, 7.0) for name, weight in policy().state_dict().items()}

        def load_state_dict(self, state: object) -> None: ...

    owner = saver(tmp_path, policy())
    owner.parts["ema"] = Average()
    owner.save(1, {}, must=True)
    other = policy()
    assert load_weights(tmp_path / "step_000001", other, averaged=False) == "raw"
    assert other.state_dict()["0.bias"][0] != 7.0
    assert load_weights(tmp_path / "step_000001", other) == "ema"
    assert other.state_dict()["0.bias"].tolist() == [7.0] * 3


def test_weights_are_as_readable_as_any_new_file(tmp_path):
    """safetensors alone would leave 0600, which a colleague on the same machine cannot read."""
    plain, tensors = tmp_path / "config.yaml", tmp_path / "weights" / "model.safetensors"
    tensors.parent.mkdir()
    tensors.touch(mode=0o600)
    plain.touch()
    plain.chmod(0o640)
    files.make_readable(tmp_path / "weights", like=plain)
    assert tensors.stat().st_mode & 0o777 == 0o640
