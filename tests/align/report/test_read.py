"""Run folder -> objects: complete, cut off, empty."""

import json
import math

import pytest

from align.report.read import read_run


def test_a_complete_run_is_read(make_run):
    run = read_run(make_run(steps=12))
    assert [int(row["step"]) for row in run.metrics] == list(range(13))
    assert [one.step for one in run.evaluations] == [0, 2, 4, 6, 8, 10, 12]
    assert run.evaluations[0].weights == "raw"
    assert run.evaluations[-1].classes["two"]["shapes_strict"].n == 16
    assert len(run.evaluations[0].pictures) == 8
    assert len(run.strip) == 7 * 4
    assert len(run.samples) == 16  # of 24 samples, these have pictures
    assert run.samples_step == 12
    assert run.plan.differences[-1] == ("training.ema", "0.99", "null")
    assert run.plan.sections[0].rows[-1] == ("updates", "1", "")
    assert run.notes == ()


def test_a_line_cut_off_by_a_kill_is_left_out_and_noted(make_run):
    folder = make_run(steps=3)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    run = read_run(folder)
    assert [int(row["step"]) for row in run.metrics] == [0, 1, 2]
    assert run.notes == ("metrics.jsonl, line 4 is damaged (cut off while it was written?) and was left out.",)


def test_a_damaged_evaluation_is_left_out_and_noted(make_run):
    folder = make_run(steps=3)
    (folder / "evaluations" / "step_000003.json").write_text('{"step": 3, "rew')
    run = read_run(folder)
    assert [one.step for one in run.evaluations] == [0, 1, 2]
    assert "step_000003.json" in run.notes[0]


def test_numbers_that_are_not_finite_leave_the_curves_and_are_counted(tmp_path):
    lines = [
        '{"step": 1, "kl": null, "loss": 1.0}',
        '{"step": 2, "kl": NaN, "loss": Infinity}',
        '{"step": 3, "kl": 0.5}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    run = read_run(tmp_path)
    assert run.series("kl") == ([3], [0.5])
    assert run.series("loss") == ([1], [1.0])
    assert run.not_finite == {"kl": 2, "loss": 1}
    assert run.names() == ("loss", "kl")


def test_of_a_step_written_twice_the_later_line_holds(tmp_path):
    rows = [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}, {"step": 2, "reward": 0.9}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert read_run(tmp_path).series("reward") == ([1, 2], [0.1, 0.9])


def test_missing_scores_are_nan_and_missing_pictures_are_left_out(make_run):
    folder = make_run(steps=3)
    path = folder / "samples" / "step_000003.jsonl"
    first, second, *_ = (json.loads(line) for line in path.read_text().splitlines())
    first |= {"score": None, "advantage": 0.0}
    second |= {"image": "images/step_000003/nothing_here.png"}
    path.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    (sample,) = read_run(folder).samples
    assert math.isnan(sample.score)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_an_error_that_says_what_to_do(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="Give the folder that `align train` printed"):
        read_run(tmp_path / folder)


def test_only_a_config_is_a_run_that_has_not_begun(tmp_path):
    (tmp_path / "config.yaml").write_text("branch: diffusion\n")
    run = read_run(tmp_path)
    assert run.metrics == ()
    assert run.plan is None
    assert run.config == {"branch": "diffusion"}
