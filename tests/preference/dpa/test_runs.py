"""Whole runs of DPA on a miniature: rounds, control text beside the weights, a run that goes on, two losses."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from align.config.load import load_config
from align.engine.soup import make_soup
from align.errors import AlignError
from preference.dpa import commands
from preference.dpa.checks import contradictions
from preference.dpa.config import Arc, Listed
from preference.dpa.deploy import outside, parse_direction, read_control
from preference.dpa.kept import read_rows
from preference.dpa.method import Dpa
from preference.dpa.plan import plan
from preference.dpa.rounds import RoundMaker

from .runs import config_of


@pytest.fixture(scope="module")
def finished(folder):
    assert not list(contradictions(config_of(folder)))
    return commands.train(config_of(folder), name="sft")


def test_rounds_are_files_in_trls_format(finished):
    first, second = (read_rows(finished / "rounds" / f"round_0{number}.jsonl") for number in (1, 2))
    assert 4 <= len(first) <= 8
    assert {turn["role"] for turn in first[0]["prompt"]} == {"system", "user"}
    assert set(first[0]["direction"]) == {"vowels", "length"}
    replay = [row for row in second if row in first]
    assert len(replay) == round(0.1 * len(first))
    assert set(json.loads((finished / "rounds/scale.json").read_text())) == {"names", "mean", "deviation"}


def test_the_log_says_what_a_round_kept_and_whether_the_policy_follows(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    merged = {key: value for line in lines for key, value in line.items()}
    assert {
        "dpa/kept",
        "dpa/margin",
        "dpa/round",
        "nll_loss",
        "eval/control/vowels",
        "eval/control/hypervolume",
    } <= set(merged)
    record = json.loads((finished / "evaluations/step_000004.json").read_text())
    assert list(record["classes"]) == ["vowels 100", "vowels 71, length 71", "length 100"]
    assert len(record["rows"]) == 6
    assert (finished / "report.html").is_file()


def test_weights_carry_their_control_text(finished, folder):
    control, directions = read_control(finished / "weights")
    assert control.names == ("vowels", "length")
    vector = control.vector(parse_direction("vowels=1,length=-1"))
    assert outside(control, directions, vector) == pytest.approx(45.0, abs=0.5)
    assert outside(control, directions, control.vector({"vowels": 1.0})) == 0.0
    with pytest.raises(AlignError, match="not trained to follow"):
        read_control(folder / "model")
    with pytest.raises(AlignError, match="is written"):
        parse_direction("vowels:1")


def test_a_run_that_goes_on_within_a_round_ends_alike(finished, folder, monkeypatch):
    """Stopped in the second round's second step: the round is read from its file, not sampled again."""
    whole = Dpa.loss

    def stopped(self, micro):
        if self._round == 2 and self.inner._step == 2:
            raise KeyboardInterrupt
        return whole(self, micro)

    with monkeypatch.context() as patch:
        patch.setattr(Dpa, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            commands.train(replace(config_of(folder), output=replace(config_of(folder).output, name="again")))
    run = folder / "runs" / "again"
    monkeypatch.setattr(RoundMaker, "sample", None)
    commands.train(replace(config_of(folder), output=replace(config_of(folder).output, name="again")), resume=run)
    path = "checkpoints/step_000004/weights.safetensors"
    first, second = load_file(finished / path), load_file(run / path)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pairs_of_best_and_worst(folder):
    run = commands.train(config_of(folder, loss="dpo", rounds=1, scale="none"), name="dpo")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "rewards/margins" in line)
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first["reference_deviation"] < 1e-4


def test_evaluation_of_a_run_pairs_it_with_its_base(finished, folder):
    found = commands.evaluate(config_of(folder), checkpoint=finished)
    records = [json.loads(path.read_text()) for path in sorted((found / "evaluations").glob("*.json"))]
    assert [record["step"] for record in records] == [0, 4]
    assert records[1]["figures"] == pytest.approx(
        json.loads((finished / "evaluations/step_000004.json").read_text())["figures"]
    )


def test_a_soup_of_a_run_with_itself_is_the_run(finished, folder, tmp_path):
    """Its adapter has twice the rank and the same product, so held-out answers are the same."""
    soup = make_soup([finished, finished], [0.25, 0.75], tmp_path / "soup")
    config = load_config(soup)
    assert config.model.lora.rank == 4
    found = commands.evaluate(config, checkpoint=soup, output=tmp_path / "evaluation")
    rows = [json.loads((path / "evaluations/step_000004.json").read_text())["rows"] for path in (found, finished)]
    assert rows[0] == rows[1]
    with pytest.raises(AlignError, match="already and not empty"):
        make_soup([finished], [1.0], soup)


def test_answers_along_a_direction(finished, folder, tmp_path, caplog):
    """The prompt asks for what was asked for, as a turn, like those of the training; beyond the trained arc there is a
    warning."""
    config, ask = config_of(folder), {"prompts": ("hello",), "seeds": (0, 1)}
    found = commands.generate(
        config, checkpoint=finished, output=tmp_path / "a.jsonl", direction="vowels=4,length=3", **ask
    )
    (row,) = map(json.loads, found.read_text().splitlines())
    assert row["direction"] == "vowels 80, length 60"
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert "80 x vowels + 60 x length" in row["prompt"][0]["content"]
    assert len(row["candidates"]) == 2
    assert not caplog.records
    commands.generate(config, checkpoint=finished, output=tmp_path / "b.jsonl", direction="vowels=1,length=-1", **ask)
    assert "45 degrees beyond" in caplog.text
    with pytest.raises(AlignError, match="none is given"):
        commands.generate(config, checkpoint=finished, output=tmp_path / "c.jsonl", **ask)
    with pytest.raises(AlignError, match="Did you mean"):
        commands.generate(config, checkpoint=finished, output=tmp_path / "c.jsonl", direction="vowles=1", **ask)


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"objectives": {"x": {"vowles": 1.0}, "y": {"length": 1.0}}}, "algorithm.objectives.x", "vowles"),
        ({"directions": Listed(directions=({"speed": 1.0},))}, "algorithm.directions.directions", "speed"),
        ({"directions": Listed(directions=({"vowels": 0.0},))}, "algorithm.directions.directions", "other than 0"),
        ({"template": "only {vowels}"}, "algorithm.template", "slot"),
        ({"placement": "none"}, "algorithm.placement", "cannot know its direction"),
        ({"rounds": 3}, "training.steps", "do not divide"),
        ({"prompts_per_round": 2}, "data.answers_per_step", "at most 2"),
        ({"beta": 0.1}, "algorithm.beta", "belongs to"),
        ({"directions": Arc(low=10.0, high=0.0)}, "algorithm.directions.low", "10 to 0"),
    ],
)
def test_contradictions(folder, change, key, message):
    found = [problem for problem in contradictions(config_of(folder, **change)) if key in problem.keys]
    assert found, key
    assert message in found[0].message


def test_the_plan_counts_answers(folder):
    rows = {row.label: row.value for section in plan(config_of(folder)).sections for row in section.rows}
    assert rows["answers"] in ("24", "4")
    assert rows["steps"] == "2"
