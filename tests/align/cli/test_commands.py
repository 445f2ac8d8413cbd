"""The commands parse, load and call: what reaches the branch, what is printed, how errors end."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from align.cli import main, runs
from align.cli.app import app, command_line
from align.errors import AlignError

TEXT = """\
branch: diffusion
prompts: {train: train.txt, heldout: null}
rollout: {prompts_per_step: 2, group_size: 4}
rewards: [{function: brightness}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a config, its prompts, and a run folder with a checkpoint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "run.yaml").write_text(TEXT)
    (tmp_path / "runs" / "old" / "checkpoints" / "step_000002").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "config.yaml").write_text(TEXT.replace("train.txt", str(tmp_path / "train.txt")))
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """A branch that notes what it is asked to do."""
    noted = []

    def note(name, result):
        def function(*args, **options):
            noted.append((name, args, options))
            return result

        return function

    branch = SimpleNamespace(
        train=note("train", Path("runs/new")),
        evaluate=note("evaluate", Path("evaluation")),
        generate=note("generate", [Path("a.png")]),
        score=note("score", None),
        pairs=note("pairs", None),
        OUTPUT=Path("usual"),
    )
    monkeypatch.setattr(runs, "commands_of", lambda config: branch)
    monkeypatch.setattr(
        "align.config.branches.branch_module", lambda root, name: branch if name == "commands" else real(root, name)
    )
    monkeypatch.setattr("align.report.terminal.print_report", note("print_report", None))
    return noted


def real(root, name):
    import importlib

    return importlib.import_module(f"{root.__module__.rpartition('.')[0]}.{name}")


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refuse(*arguments):
    """The error that the command line would print."""
    with pytest.raises(AlignError) as caught:
        CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return str(caught.value)


def test_train_a_config(folder, calls, monkeypatch):
    monkeypatch.setattr("sys.argv", ["align", "train", "run.yaml", "seed=5"])
    output = invoke("train", "run.yaml", "training.steps=3", "seed=5")
    (name, (config,), options), (printed, (run, _), _) = calls
    assert (name, printed, run) == ("train", "print_report", Path("runs/new"))
    assert (config.training.steps, config.seed) == (3, 5)
    assert options["name"] == "run"
    assert options["resume"] is None
    assert options["command"] == "align train run.yaml seed=5"
    assert "runs/new/report.html" in output


def test_train_a_run_folder_resumes_it(folder, calls):
    invoke("train", "runs/old", "training.steps=7")
    ((_, (config,), options), _) = calls
    assert options["resume"] == Path("runs/old")
    assert config.training.steps == 7


def test_resume_by_name(folder, calls):
    invoke("train", "run.yaml", "output.name=old", "--resume")
    invoke("train", "run.yaml", "output.name=other", "--resume")
    assert [options["resume"] for name, _, options in calls if name == "train"] == [Path("runs/old"), None]
    assert "`output.name` is not set" in refuse("train", "run.yaml", "--resume")


def test_other_processes_of_a_launch_are_silent(folder, calls, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert invoke("train", "run.yaml") == ""
    assert [name for name, _, _ in calls] == ["train"]


def test_evaluate_takes_checkpoints_runs_and_configs(folder, calls):
    invoke("evaluate", "runs/old/checkpoints/step_000002", "-o", "out")
    invoke("evaluate", "runs/old")
    invoke("evaluate", "run.yaml", "rollout.group_size=2")
    assert [options for _, _, options in calls] == [
        {"checkpoint": Path("runs/old/checkpoints/step_000002"), "output": Path("out")},
        {"checkpoint": Path("runs/old"), "output": None},
        {"checkpoint": None, "output": None},
    ]


def test_generate(folder, calls):
    output = invoke("generate", "runs/old", "-p", "a red circle", "-p", "two dogs", "--seeds", "2", "-o", "out")
    ((_, _, options),) = calls
    assert options["prompts"] == ("a red circle", "two dogs")
    assert options["seeds"] == (0, 1)
    assert options["checkpoint"] == Path("runs/old")
    assert options["output"] == Path("out")
    assert "Written: out" in output
    assert "Written: usual" in invoke("generate", "run.yaml")
    assert calls[1][2]["seeds"] is None


def test_score(folder, calls):
    invoke("score", ".", "-r", "brightness", "-r", "mine.py:f", "--prompts", "train.txt")
    ((_, (images,), options),) = calls
    assert images == Path()
    assert options == {"rewards": ("brightness", "mine.py:f"), "prompts": Path("train.txt"), "output": None}


def test_pairs_and_scores_of_texts_take_a_config(folder, calls):
    (folder / "scored.jsonl").write_text("")
    invoke("score", "scored.jsonl", "rollout.group_size=2", "-c", "run.yaml")
    invoke("pairs", "scored.jsonl", "-c", "run.yaml", "-o", "out.jsonl")
    (_, _, scored), (_, (samples,), paired) = calls
    assert scored["config"].rollout.group_size == 2
    assert scored["rewards"] == ()
    assert samples == Path("scored.jsonl")
    assert paired["config"].rollout.group_size == 4
    assert paired["output"] == Path("out.jsonl")


def test_demo_is_the_shipped_configs(folder, calls, monkeypatch):
    from align.config import load

    loaded = []
    monkeypatch.setattr(load, "load_config", lambda *args: loaded.append(args))
    invoke("demo", "--seed", "3", "training.steps=2")
    settings = ["seed=3", "training.steps=2"]
    assert loaded == [("demo/awm_tiny", settings), ("demo/dpo_tiny", settings)]
    assert [options["name"] for command, _, options in calls if command == "train"] == ["demo", "demo_texts"]


def test_demo_of_one_branch(folder, calls, monkeypatch):
    from align.config import load

    loaded = []
    monkeypatch.setattr(load, "load_config", lambda *args: loaded.append(args))
    invoke("demo", "--branch", "preference")
    assert loaded == [("demo/dpo_tiny", [])]
    assert "expected a branch among diffusion, preference, or all; found 'music'" in refuse("demo", "--branch", "music")


def test_plan(folder):
    text = invoke("plan", "run.yaml", "--processes", "2", "recipe=diffusion/awm_sd35m")
    assert "2 prompts x 4" in text
    assert "differences from the recipe diffusion/awm_sd35m" in text
    data = json.loads(invoke("plan", "run.yaml", "--json"))
    assert data["sections"][1]["title"] == "Each step"


def test_impossible_arithmetic_is_explained(folder):
    message = refuse("plan", "run.yaml", "--processes", "9")
    assert "9 processes share the 8 samples" in message
    assert "at most 8 processes, or at least 9 samples a step" in message
    message = refuse("plan", "run.yaml", "training.updates_per_rollout=3")
    assert "8 samples a step cannot be cut into 3 equal optimiser updates" in message
    assert "2" in message
    assert "4" in message


def test_configs(folder):
    assert "demo/awm_tiny" in invoke("configs", "ls")
    assert invoke("configs", "show", "demo/awm_tiny").startswith("# AWM on the embedded")
    assert "wrote awm_tiny.yaml" in invoke("configs", "copy", "demo/awm_tiny", "awm_tiny.yaml")
    assert "--force" in refuse("configs", "copy", "demo/awm_tiny", "awm_tiny.yaml")
    invoke("configs", "copy", "demo/awm_tiny", "awm_tiny.yaml", "--force")


def test_schema():
    assert json.loads(invoke("schema", "diffusion"))["title"] == "DiffusionRun"
    assert json.loads(invoke("schema", "preference"))["title"] == "PreferenceRun"
    assert invoke("schema", "--markdown").startswith("# Settings of `branch: diffusion`")
    assert "expected one of the branches adapter, diffusion, dpa, preference, reward_model, found music" in refuse(
        "schema", "music"
    )


def test_report_of_something_else(folder):
    assert "is not a run folder" in refuse("report", "nothing")


def test_report(folder, monkeypatch):
    monkeypatch.setattr("align.report.build.write_report", lambda run: run / "report.html")
    monkeypatch.setattr("align.report.terminal.print_report", lambda run, console: None)
    assert "runs/old/report.html" in invoke("report", "runs/old")


def test_errors_end_with_their_message_and_code_2(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["align", "train", "nowhere.yaml"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: 1 problem")
    assert "Traceback" not in printed


def test_a_mistake_in_the_config_is_told_once_in_a_launch(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["align", "train", "nowhere.yaml"])
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == ""


def test_unexpected_errors_keep_their_traceback(folder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["align", "configs", "ls"])
    monkeypatch.setattr("align.config.shipped.names", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()


def test_square_brackets_in_messages_are_no_markup(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["align", "train", "run.yaml", "output.trackers=[bold]"])
    with pytest.raises(SystemExit):
        main()
    assert "output.trackers=[bold]" in capsys.readouterr().err


def test_the_command_is_quoted_as_a_shell_needs_it(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/align", "train", "x.yaml", "rewards=[{function: f}]"])
    assert command_line() == "align train x.yaml 'rewards=[{function: f}]'"
