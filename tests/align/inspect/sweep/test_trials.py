"""Training sweeps without training: names, checks before the first run, what is trained, resumed, left alone."""

import shlex
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from align.cli.app import app
from align.config.errors import ConfigError
from align.config.load import save_config
from align.engine import checkpoint as files
from align.errors import AlignError
from align.inspect.sweep import trials
from align.inspect.sweep.trials import finished, folder_name, parse_seeds, planned, train_all

from .folders import constant, run_folder

CONFIG = """\
branch: diffusion
prompts: {train: train.txt, heldout: null}
rollout: {prompts_per_step: 2, group_size: 4}
training: {steps: 4}
rewards: [{function: brightness, name: a}, {function: contrast, name: b, weight: 0.5}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "run.yaml").write_text(CONFIG)
    return tmp_path


def leave(trial, steps=4, score=0.5):
    """What a run of so many steps leaves behind."""
    if not (trial.folder / "evaluations").exists():
        run_folder(trial.folder, {0: constant(0.25, 0.5)})
    save_config(trial.config, trial.folder / "config.yaml")
    if steps == trial.config.training.steps:
        rows = (
            run_folder(trial.folder.parent / f".{trial.folder.name}", {steps: constant(score, score)}) / "evaluations"
        )
        (rows / "step_000004.json").rename(trial.folder / "evaluations" / "step_000004.json")
    checkpoint = files.Checkpoint(step=steps, parts={}, identity={}, metrics={})
    files.write(trial.folder / "checkpoints", checkpoint)
    (trial.folder / "report.html").write_text("")


def test_each_setting_and_seed_is_a_run(folder):
    found = planned(
        "run.yaml",
        ["rewards.0.weight=1 rewards.1.weight=0", "soft: pipeline.combine.kind=soft_min", ""],
        (0, 3),
        folder / "out",
    )
    assert [(one.system, one.label, one.seed) for one in found[::2]] == [
        ("run", "rewards.0.weight=1 rewards.1.weight=0", 0),
        ("soft", "pipeline.combine.kind=soft_min", 0),
        ("run", "as configured", 0),
    ]
    assert [one.folder.name for one in found] == [
        "run-rewards.0.weight=1-rewards.1.weight=0-seed0",
        "run-rewards.0.weight=1-rewards.1.weight=0-seed3",
        "soft-pipeline.combine.kind=soft_min-seed0",
        "soft-pipeline.combine.kind=soft_min-seed3",
        "run-seed0",
        "run-seed3",
    ]
    first = found[1].config
    assert (first.seed, first.rewards[1].weight, first.output.name) == (3, 0.0, found[1].folder.name)
    assert found[0].folder.parent == folder / "out" / "runs"
    (named, bare) = planned("run.yaml", ["soft/equal: pipeline.combine.kind=soft_min", "sum:"], (), folder / "out")
    assert (named.system, named.label, named.folder.name) == ("soft", "equal", "soft-equal")
    assert (bare.system, bare.label, bare.folder.name) == ("sum", "as configured", "sum")
    (alone,) = planned("run.yaml", ["training.steps=6"], (), folder / "out", shared="training.steps=5 seed=9")
    assert (alone.label, alone.seed, alone.config.training.steps) == ("training.steps=6", 9, 6)
    (alone,) = planned("run.yaml", ["seed=5"], (), folder / "out")
    assert (alone.seed, alone.folder.name) == (5, "run-seed=5")


def test_names_that_file_systems_take():
    name = folder_name(["x", "pipeline.transforms=[{kind: zscore}, {kind: rank}]", "model.path=/a/b" * 20])
    assert len(name) == 109
    assert not set("/ :{}[],") & set(name)
    assert name != folder_name(["x", "pipeline.transforms=[{kind: zscore}, {kind: rank}]", "model.path=/a/b" * 21])


def test_all_mistakes_come_before_the_first_run(folder, monkeypatch):
    with pytest.raises(ConfigError, match="wieght"):
        planned("run.yaml", ["rewards.0.weight=1", "rewards.0.wieght=1"], (), folder)
    with pytest.raises(AlignError, match="given twice"):
        planned("run.yaml", ["seed=1", "seed=1"], (), folder)
    with pytest.raises(AlignError, match="cannot be read: No closing quotation"):
        planned("run.yaml", ['rewards.0.name="a'], (), folder)
    for text in ("0,0", "a", "", "0,", "-1"):
        with pytest.raises(AlignError, match="different seeds"):
            parse_seeds(text)
    for command, message in (
        ("sweep run.yaml -t seed=1 -O aa,b -o out", r"no reward of the config is called `aa`. Did you mean `a`"),
        ("sweep run.yaml -t seed=1 -O a,b -o out --high a=1", "--high has no number for `b`"),
        ("sweep run.yaml old=none -t seed=1 -O a,b -o out", "`none` is no run folder"),
    ):
        with pytest.raises(AlignError, match=message):
            CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert not (folder / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AlignError, match="trains in one process"):
        CliRunner().invoke(app, shlex.split("sweep run.yaml -t seed=1 -O a,b -o out"), catch_exceptions=False)


def test_a_folder_of_other_settings_is_not_mixed_in(folder):
    (trial,) = planned("run.yaml", ["seed=1"], (), folder / "out")
    leave(trial)
    assert planned("run.yaml", ["seed=1"], (), folder / "out") == [trial]
    changed = yaml.safe_load(CONFIG)
    changed["training"]["steps"] = 8
    (folder / "run.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(AlignError, match=r"other settings: `training.steps` is 4 there and 8 here\."):
        planned("run.yaml", ["seed=1"], (), folder / "out")


def test_what_is_finished_stays_what_is_not_goes_on(folder, monkeypatch):
    found = planned("run.yaml", ["rewards.0.weight=1", "rewards.0.weight=2", "rewards.0.weight=3"], (), folder / "out")
    leave(found[0])
    leave(found[1], steps=2)
    asked = []

    def train(config, *, name, resume, command):
        trial = next(one for one in found if one.folder.name == name)
        asked.append((name, resume, command))
        leave(trial, steps=4 if trial is found[1] else 3)

    monkeypatch.setattr(trials, "branch_module", lambda root, name: SimpleNamespace(train=train))
    with pytest.raises(AlignError, match="weight=3 was stopped before its last step"):
        train_all(found, "align sweep ...")
    assert asked == [
        (found[1].folder.name, found[1].folder, "align sweep ..."),
        (found[2].folder.name, None, "align sweep ..."),
    ]
    assert [finished(one) for one in found] == [True, True, False]


def test_the_command_trains_and_compares_with_what_is_there(folder, monkeypatch):
    sizes = {"weight=1": 0.5, "weight=2": 0.75}

    def train(config, *, name, **_):
        (trial,) = (one for one in planned("run.yaml", [name.partition("-")[2]], (), folder / "out"))
        leave(trial, score=next(size for key, size in sizes.items() if key in name))

    monkeypatch.setattr(trials, "branch_module", lambda root, name: SimpleNamespace(train=train))
    other = run_folder(folder / "other", {4: constant(1.0, 1.0)})
    command = (
        f"sweep run.yaml old={other} -t rewards.0.weight=1 -t rewards.0.weight=2 -O a,b -o out --resamples 100 "
        "--reference a=0,b=0 --high a=1,b=1"
    )
    done = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "rewards.0.weight=2" in done.output
    assert "`old` has the largest hypervolume: 1.000" in done.output
    assert "run - old" in done.output
    assert (folder / "out" / "sweep.html").is_file()
