"""The shipped configurations: found, listed, copied."""

import pytest

from align.config import shipped
from align.config.load import load_config
from align.errors import AlignError


def test_names_and_find():
    names = shipped.names()
    assert "demo/awm_tiny" in names
    assert names == sorted(names)
    path = shipped.get("demo/awm_tiny")
    assert (
        shipped.find("awm_tiny") == shipped.find("demo/awm_tiny.yaml") == shipped.find("configs/demo/awm_tiny") == path
    )
    assert shipped.find("nothing") is None
    with pytest.raises(AlignError, match="no shipped config `nothing`") as caught:
        shipped.get("nothing")
    assert "demo/awm_tiny" in caught.value.way_out


def test_copy_refuses_to_overwrite(tmp_path):
    target = shipped.copy("demo/awm_tiny", tmp_path)
    assert target == tmp_path / "awm_tiny.yaml"
    assert target.read_text() == shipped.get("demo/awm_tiny").read_text()
    target.write_text("mine")
    with pytest.raises(AlignError, match="already exists") as caught:
        shipped.copy("demo/awm_tiny", target)
    assert "--force" in caught.value.way_out
    assert target.read_text() == "mine"
    shipped.copy("demo/awm_tiny", target, force=True)
    assert target.read_text() != "mine"
    assert shipped.copy("demo/awm_tiny", tmp_path / "new" / "name.yaml").is_file()


def test_the_folder_of_an_installed_wheel_is_found(tmp_path, monkeypatch):
    """In a wheel the configs lie inside the package: align/configs."""
    package = tmp_path / "site" / "align"
    (package / "config").mkdir(parents=True)
    (package / "configs" / "demo").mkdir(parents=True)
    (package / "configs" / "demo" / "x.yaml").write_text("# A title\nbranch: diffusion\n")
    monkeypatch.setattr(shipped, "__file__", str(package / "config" / "shipped.py"))
    assert shipped.names() == ["demo/x"]
    assert shipped.summary(shipped.get("demo/x")) == "A title"
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "empty" / "align" / "config" / "shipped.py"))
    with pytest.raises(AlignError, match="missing from this installation"):
        shipped.names()


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_config_loads_and_says_how_to_run_it(name):
    config = load_config(name, check=False)
    text = shipped.get(name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    head = text.partition("branch:")[0]
    assert "align " in head
    assert config.recipe is None or config.recipe in shipped.names()
    assert len(shipped.summary(shipped.get(name))) > 20
