"""`align report RUN`."""

import io

import pytest
from rich.console import Console

from align.report.terminal import print_report


def printed(folder, width=100):
    console = Console(file=io.StringIO(), width=width)
    summary = print_report(folder, console)
    return summary, console.file.getvalue()


def test_it_prints_reward_gains_times_and_the_overhead_share(make_run):
    summary, text = printed(make_run(steps=6))
    assert "Held-out shapes_strict, before and after" in text
    assert "relation" in text
    assert "Training reward:" in text
    assert "rollout" in text
    share = f"{100 * summary.overhead:.1f} %"
    assert f"Share of a step outside model forward, backward, decode and reward: {share}" in text


def test_a_run_without_evaluation_prints_what_there_is(make_run):
    _, text = printed(make_run(steps=1, evaluations=False, pictures=False))
    assert "no held-out comparison yet" in text


def test_square_brackets_are_not_markup(make_run):
    folder = make_run(steps=1)
    (folder / "config.yaml").write_text("algorithm: {kind: awm}\nmodel: {path: 'models/[red]tiny[/red]'}\n")
    assert "[red]tiny[/red]" in printed(folder, width=400)[1]


def test_no_run_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        printed(tmp_path)
