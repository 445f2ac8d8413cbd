"""Held-out evaluation: the same rows whatever the run, summaries by hand, records."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from align.config.shared import RewardConfig
from align.engine.distributed import Processes
from align.rewards.scorer import Scorer
from diffusion.config import EvaluationConfig, RolloutConfig
from diffusion.evaluate import (
    EvaluatedRow,
    Evaluation,
    Evaluator,
    classes_of,
    evaluation_sampler,
    gain,
    spread_over_classes,
)
from diffusion.prompts import PromptSet
from diffusion.records import read_evaluation, write_evaluation, write_strip

from .models.miniature import PROMPTS, miniature

HELDOUT = PromptSet(prompts=PROMPTS, columns={"class": ("one", "one", "placed", "size")})
CONFIG = EvaluationConfig(seeds=2, num_inference_steps=3, strip_prompts=3)


class OneOf(Processes):
    """Process `rank` of `world`; gathering gives back its own part only."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__()
        self.rank, self.world = rank, world

    def gather_objects(self, value):
        return [value]


def evaluator(
    config=CONFIG, processes=None, batch_size=8, rewards=("brightness", "contrast")
) -> tuple[Evaluator, torch.nn.Module]:
    model = miniature()
    found = Evaluator(
        config,
        model=model,
        prompts=HELDOUT,
        scorer=Scorer([RewardConfig(function=name) for name in rewards]),
        processes=processes or Processes(),
        timer=lambda stage: nullcontext(),
        settings=evaluation_sampler(config, RolloutConfig(batch_size=batch_size)),
    )
    return found, model.network


def row(number, prompt, group, score) -> EvaluatedRow:
    return EvaluatedRow(number=number, prompt=prompt, group=group, seed=0, rewards={"r": score})


def by_hand(scores, step=0) -> Evaluation:
    rows = [row(i, f"p{i}", "even" if i % 2 == 0 else "odd", score) for i, score in enumerate(scores)]
    return Evaluation(step=step, weights="raw", rows=rows)


def test_first_rows_show_every_class():
    assert classes_of(HELDOUT) == ["one", "one", "placed", "size"]
    assert spread_over_classes(HELDOUT) == [0, 2, 3, 1]
    assert classes_of(PromptSet(prompts=("a", "b"))) == ["all", "all"]
    assert spread_over_classes(PromptSet(prompts=("a", "b"))) == [0, 1]


def test_rows_and_pictures():
    found = evaluator()[0].evaluate(7, evaluator()[1], "ema", pictures=5)
    assert [(r.prompt, r.seed) for r in found.rows] == [(PROMPTS[i], seed) for seed in (0, 1) for i in (0, 2, 3, 1)]
    assert (found.step, found.weights, found.names) == (7, "ema", ("brightness", "contrast"))
    assert len(found.images) == 5
    assert found.classes == ("one", "placed", "size")


def test_pictures_do_not_depend_on_seeds_batches_or_other_prompts():
    """More seeds keep the earlier rows; batches of 3 change nothing beyond rounding; the run is not in the noise."""
    few, network = evaluator(replace(CONFIG, seeds=1))
    many, _ = evaluator(replace(CONFIG, seeds=3), batch_size=3)
    first, second = few.evaluate(0, network, "raw"), many.evaluate(9, network, "raw")
    for left, right in zip(first.rows, second.rows[:4], strict=True):
        assert (left.prompt, left.seed) == (right.prompt, right.seed)
        for name, value in left.rewards.items():
            assert right.rewards[name] == pytest.approx(value, abs=2e-3)  # one grey level of a few pixels
    assert second.rows[0].rewards != second.rows[4].rewards


def test_processes_share_the_rows():
    """Process 1 of 3 draws rows 1, 4, 7 of the eight, as a single process does."""
    alone, network = evaluator()
    everything = alone.evaluate(0, network, "raw").rows
    part = evaluator(processes=OneOf(1, 3))[0].evaluate(0, network, "raw").rows
    assert [r.number for r in part] == [1, 4, 7]
    for found in part:
        expected = everything[found.number]
        assert (found.prompt, found.seed) == (expected.prompt, expected.seed)
        assert found.rewards["brightness"] == pytest.approx(expected.rewards["brightness"], abs=2e-3)


def test_a_process_without_rows_waits():
    config = replace(CONFIG, seeds=1)
    assert evaluator(config, OneOf(5, 6))[0].evaluate(0, evaluator()[1], "raw").rows == []


def test_strip_is_the_evaluations_first_seed():
    subject, network = evaluator()
    strip, whole = subject.strip(2, network, "raw"), subject.evaluate(2, network, "raw")
    assert [(r.prompt, r.seed) for r in strip.rows] == [(PROMPTS[i], 0) for i in (0, 2, 3)]
    assert len(strip.images) == 3
    assert strip.rows[1].rewards["brightness"] == pytest.approx(whole.rows[1].rewards["brightness"], abs=2e-3)


def test_rows_know_whom_they_stand_for():
    """The column of the prompts that the settings name, here their classes."""
    found, network = evaluator(replace(CONFIG, group_column="class"), rewards=("brightness",))
    rows = found.evaluate(0, network, "raw").rows
    assert [row.user_group for row in rows] == [row.group for row in rows]


def test_summaries_by_hand():
    """Scores 1, 0, 1, none: mean 2/3; even rows (0, 2) mean 1, odd rows (1, 3) mean 0 over the one that was scored."""
    found = by_hand([1.0, 0.0, 1.0, None])
    assert found.metrics() == pytest.approx({"eval/r/mean": 2 / 3, "eval/r/even": 1.0, "eval/r/odd": 0.0})
    assert found.mean("r").n == 3
    assert found.mean("r", "odd").n == 1
    assert by_hand([None, None]).mean("r") is None
    assert by_hand([None, None]).metrics() == {}


def test_gain_by_hand():
    """Gains 1, 0, (unscored), 1 -> mean 2/3 of three pairs."""
    before, after = by_hand([0.0, 0.0, None, 0.0]), by_hand([1.0, 0.0, 1.0, 1.0])
    found = gain(before, after, "r")
    assert (found.mean, found.n) == (pytest.approx(2 / 3), 3)
    assert found.low <= found.mean <= found.high
    assert gain(before, after, "r", "odd").mean == 0.5
    assert gain(by_hand([None]), by_hand([1.0]), "r") is None
    with pytest.raises(ValueError, match="same prompts and seeds"):
        gain(before, by_hand([1.0]), "r")


def test_records(tmp_path):
    subject, network = evaluator()
    found = subject.evaluate(3, network, "ema", pictures=2)
    path = write_evaluation(tmp_path, found)
    assert path == tmp_path / "evaluations" / "step_000003.json"
    record = json.loads(path.read_text())
    assert set(record) == {"step", "weights", "rewards", "classes", "diversity", "rows"}
    assert record["rewards"]["brightness"]["n"] == 8
    assert record["classes"]["placed"]["brightness"]["n"] == 2
    assert record["rows"][0].keys() == {"prompt", "class", "seed", "rewards"}
    pictures = tmp_path / "evaluations" / "pictures" / "step_000003"
    assert sorted(p.name for p in pictures.iterdir()) == ["000.png", "001.png"]
    again = read_evaluation(path)
    assert again.rows == found.rows
    write_evaluation(tmp_path, replace(found, images=found.images[:1]))
    assert [p.name for p in pictures.iterdir()] == ["000.png"]

    for step in (0, 3):
        write_strip(tmp_path, replace(subject.strip(step, network, "raw"), step=step))
    lines = [json.loads(line) for line in (tmp_path / "strip" / "strip.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 0, 0, 3, 3, 3]
    assert all((tmp_path / "strip" / line["image"]).is_file() for line in lines)


def test_report_reads_the_records(tmp_path):
    from align.report.read import read_run

    subject, network = evaluator()
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    write_evaluation(tmp_path, subject.evaluate(0, network, "raw", pictures=2))
    write_strip(tmp_path, subject.strip(0, network, "raw"))
    run = read_run(tmp_path)
    assert len(run.evaluations) == 1
    assert len(run.evaluations[0].pictures) == 2
    assert len(run.strip) == 3
