"""What scorers with a network share: made once whichever thread asks, on the right device, from files of weights."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from align.errors import AlignError
from align.rewards.network import Lazy, batches, hub_file, pick_device, place_of, read_weights


def test_lazy_is_made_once_by_many_threads():
    made = []

    def make():
        time.sleep(0.02)
        made.append(threading.get_ident())
        return object()

    lazy = Lazy(make)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: lazy(), range(8)))
    assert len(made) == len(found) == 1


def test_lazy_tries_again_after_a_failure():
    answers = iter([OSError("busy"), "loaded"])

    def make():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    lazy = Lazy(make)
    with pytest.raises(OSError, match="busy"):
        lazy()
    assert lazy() == "loaded"


@pytest.mark.parametrize(("rank", "expected"), [(None, "cuda:0"), ("3", "cuda:3"), ("5", "cuda:1")])
def test_each_process_takes_its_own_accelerator(monkeypatch, rank, expected):
    """Four devices: local rank 5 shares the second one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert pick_device("auto") == torch.device(expected)


def test_named_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_text("")
    assert place_of("head", "weights.pth", (".pth",)) == str(tmp_path / "weights.pth")
    assert place_of("model", "openai/clip-vit-large-patch14") == "openai/clip-vit-large-patch14"
    for missing in ("./clip", "/no/where", "", "other.pth"):
        with pytest.raises(AlignError, match="option `model` expects a file or folder"):
            place_of("model", missing, (".pth",))


def test_files_of_a_place(tmp_path):
    (tmp_path / "a.pt").write_text("")
    assert hub_file(str(tmp_path), "a.pt") == hub_file(str(tmp_path / "a.pt"), "other") == tmp_path / "a.pt"
    with pytest.raises(AlignError, match=r"expected b.pt in .*found a.pt"):
        hub_file(str(tmp_path), "b.pt")


def test_weights_of_each_kind(tmp_path):
    weights = {"a": torch.ones(2), "b": torch.zeros(1)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "v.pt"
    )
    for name in ("w.safetensors", "w.pt", "v.pt"):
        found = read_weights(tmp_path / name)
        assert {key: value.tolist() for key, value in found.items()} == {"a": [1.0, 1.0], "b": [0.0]}


@pytest.mark.parametrize(
    ("content", "message"),
    [([torch.ones(1)], "holds a list, not named tensors"), ({"epoch": 1}, "holds no tensor")],
)
def test_files_that_hold_no_weights(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(AlignError, match=message):
        read_weights(tmp_path / "w.pt")


def test_a_page_instead_of_weights(tmp_path):
    """What one gets for a file of a hub that asks one to sign in."""
    (tmp_path / "w.safetensors").write_text("<html>Sign in")
    with pytest.raises(AlignError, match="cannot be read as weights"):
        read_weights(tmp_path / "w.safetensors")


def test_batches():
    assert list(batches(5, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(batches(0, 2)) == []
