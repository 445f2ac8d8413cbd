"""`align audit` and `align replay`: what is read, where pages go, who is asked to draw."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from align.cli import audits
from align.cli.app import app
from align.errors import AlignError

CONFIG = """\
branch: diffusion
prompts: {train: train.txt, heldout: null}
rollout: {prompts_per_step: 2, group_size: 4}
rewards: [{function: brightness}, {function: contrast, weight: 0.5}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a config, a scored file, and a run folder with an evaluation."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"p{i // 4}", "class": "all", "seed": i % 4, "rewards": {"brightness": i % 4, "contrast": -(i % 3)}}
        for i in range(16)
    ]
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "scores.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "old" / "evaluations").mkdir(parents=True)
    (tmp_path / "old" / "config.yaml").write_text(CONFIG)
    (tmp_path / "old" / "evaluations" / "step_000000.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_scored_file_needs_no_config(folder):
    output = invoke("audit", "scores.jsonl", "--again", "scores.jsonl", "-w", "contrast=0.25")
    assert "Noise floor" in output
    record = json.loads((folder / "audit" / "audit.json").read_text())
    assert [one["weight"] for one in record["rewards"]] == [1.0, 0.25]
    assert record["rewards"][0]["noise"]["sd"] == 0
    assert (folder / "audit" / "audit.html").is_file()


def test_a_run_folder_has_weights_of_its_own(folder):
    invoke("audit", "old")
    record = json.loads((folder / "old" / "audit" / "audit.json").read_text())
    assert [one["weight"] for one in record["rewards"]] == [1.0, 0.5]
    assert "the evaluation before training" in record["source"]


def test_a_config_is_drawn(folder, monkeypatch):
    asked = []

    def draw_scored(config, **options):
        asked.append((len(config.rewards), options))
        return folder / "scores.jsonl"

    monkeypatch.setattr(audits, "commands_of", lambda config: SimpleNamespace(draw_scored=draw_scored))
    invoke("audit", "run.yaml", "seed=3", "--samples", "4", "--prompts", "2", "-o", "out")
    invoke("audit", "old", "--samples", "2")
    assert [options["samples"] for _, options in asked] == [4, 2]
    assert asked[0][0] == 2
    assert asked[0][1]["prompts"] == 2
    assert (folder / "out" / "audit.html").is_file()


def test_a_branch_that_cannot_draw_says_what_to_give(folder, monkeypatch):
    monkeypatch.setattr(audits, "commands_of", lambda config: SimpleNamespace())
    with pytest.raises(AlignError, match="cannot be drawn for an audit"):
        CliRunner().invoke(app, ["audit", "run.yaml"], catch_exceptions=False)


def test_replay_of_evaluations_and_files(folder):
    output = invoke("replay", "old", "--evaluations", "--combine", "soft_min", "pipeline.clip=null")
    assert "combined by soft_min, pipeline.clip=null" in output
    assert (folder / "old" / "replay" / "replay.json").is_file()
    assert "contrast weighs 9" in invoke("replay", "scores.jsonl", "-w", "contrast=9", "-o", "out")
    assert (folder / "out" / "replay.html").is_file()


def test_replay_of_something_else(folder):
    with pytest.raises(AlignError, match=r"expected a run folder or a scored file .*found `run.yaml`"):
        CliRunner().invoke(app, ["replay", "run.yaml", "-w", "contrast=9"], catch_exceptions=False)
