"""Relative paths become absolute when a config is read."""

from pathlib import Path

import pytest

from align.config.paths import find_file, find_folder_or_id, find_function


@pytest.fixture
def folders(tmp_path):
    for name in ("beside", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "beside" / "both.txt").touch()
    (tmp_path / "here" / "both.txt").touch()
    (tmp_path / "here" / "only_here.txt").touch()
    (tmp_path / "beside" / "model").mkdir()
    return [tmp_path / "beside", tmp_path / "here"]


def test_files(folders):
    assert find_file("both.txt", folders) == str(folders[0] / "both.txt")
    assert find_file("only_here.txt", folders) == str(folders[1] / "only_here.txt")
    assert find_file("nowhere.txt", folders) == str(folders[0] / "nowhere.txt")  # the reader says that it is missing
    assert find_file("/abs/x.txt", folders) == "/abs/x.txt"
    assert find_file("~/x.txt", folders) == str(Path.home() / "x.txt")
    assert find_file("builtin:tiny/train", folders) == "builtin:tiny/train"


def test_models(folders):
    assert find_folder_or_id("model", folders) == str(folders[0] / "model")
    assert find_folder_or_id("owner/name", folders) == "owner/name"
    assert find_folder_or_id("./missing", folders) == str(folders[0] / "missing")
    assert find_folder_or_id("builtin:tiny", folders) == "builtin:tiny"


def test_functions(folders):
    assert find_function("rewards.py:f", folders) == f"{folders[0] / 'rewards.py'}:f"
    assert find_function("package.module:f", folders) == "package.module:f"
    assert find_function("brightness", folders) == "brightness"


def test_every_marked_field_is_found(toy, folders):
    text = (
        "branch: toy\nfiles: {train: both.txt, heldout: only_here.txt, model: model}\nitems: [{function: 'r.py:f'}]\n"
    )
    run = toy.load(text, folders=folders)
    assert run.files.train == str(folders[0] / "both.txt")
    assert run.files.heldout == str(folders[1] / "only_here.txt")
    assert run.files.model == str(folders[0] / "model")
    assert run.items[0].function == f"{folders[0] / 'r.py'}:f"
    assert toy.load("branch: toy\n", folders=folders).files.heldout is None
