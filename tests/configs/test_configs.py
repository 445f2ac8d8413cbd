"""Every shipped configuration is loaded with all checks and dry-run as far as its plan."""

import json

import pytest
import yaml

from align.config import shipped
from align.config.branches import branch_module
from align.config.document import Loader
from align.config.load import load_config, save_config

from ..preference.tokenizers import model_folder


def make_before(directory):
    """The working directory as the commands at the head of preference/smollm2/*.yaml leave it, with a miniature."""
    folder = directory / "smollm2"
    model_folder(folder / "model")
    (folder / "student").symlink_to(folder / "model")
    (folder / "teacher" / "weights").mkdir(parents=True)
    (folder / "teacher" / "weights" / "adapter_config.json").write_text("{}")
    pair = {"chosen": "a", "rejected": "b"}
    for name in ("pairs", "heldout_pairs"):
        rows = [{"prompt": f"{name} {number}", **pair} for number in range(8)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = {"prompt": "pairs 0", "completion": "c"}
    (folder / "student.jsonl").write_text(json.dumps(answer) + "\n")


@pytest.mark.parametrize("name", shipped.names())
def test_loads_plans_and_saves(name, tmp_path, monkeypatch):
    changes = []
    if name.startswith("preference/smollm2/"):
        make_before(tmp_path)
        monkeypatch.chdir(tmp_path)
        changes = ["model.path=./smollm2/model"]  # the package with the model's file is not installed everywhere
    config = load_config(name, changes)
    made = branch_module(type(config), "plan").plan(config, 1)
    assert len(made.sections) >= 4
    assert load_config(save_config(config, tmp_path / "config.yaml")) == config


def test_the_released_recipe():
    """Released numbers of AWM on SD3.5-M (GenEval): 72 x 24 = 1728 pictures, 14 + 18 + 6 + 6 = 44 evaluations each."""
    config = load_config("diffusion/awm_sd35m")
    made = branch_module(type(config), "plan").plan(config, 8)
    rows = {row.label: (row.value, row.note) for section in made.sections for row in section.rows}
    assert rows["pictures"] == ("1,728", "72 prompts x 24")
    assert rows["processes"] == ("8", "216 pictures each")
    assert rows["rollout batches"] == ("36", "of at most 6 pictures, on each process")
    assert rows["micro-batches"][0] == "72"
    assert rows["together"] == ("44", "76,032 a step")


def test_the_papers_switches_differ_where_they_should():
    made = branch_module(type(load_config("awm_sd35m_paper")), "plan").plan(load_config("awm_sd35m_paper"))
    assert {item.key for item in made.differences if item.key.startswith(("algorithm", "pipeline", "optimizer"))} == {
        "algorithm.weighting",
        "algorithm.times.draws",
        "algorithm.kl_beta",
        "algorithm.lagged",
    }


@pytest.mark.parametrize("name", shipped.names())
def test_reads_the_same_in_yaml_1_1(name):
    """Other tools read YAML 1.1; a shipped file must not mean something else there, but for numbers like 1e-4."""
    text = shipped.get(name).read_text(encoding="utf-8")
    ours, theirs = yaml.load(text, Loader=Loader), yaml.safe_load(text)

    def same(mine, other):
        if isinstance(mine, dict):
            return mine.keys() == other.keys() and all(same(mine[key], other[key]) for key in mine)
        if isinstance(mine, list):
            return len(mine) == len(other) and all(map(same, mine, other))
        return mine == other or (isinstance(mine, float) and float(other) == mine)

    assert same(ours, theirs)
