"""Answers of language models on the page, and the warning that both sides of the pairs have become less likely."""

import json
from pathlib import Path

import pytest

from align.report.page import render
from align.report.read import read_run
from align.report.summary import summarise
from align.report.texts import falling, text_pairs

BEFORE = [("why?", 0, "because <b>"), ("why not?", 0, "")]
AFTER = [("why?", 0, "because it is so"), ("why not?", 0, "")]


def evaluation(step, answers):
    """Two pairs without a text, then the answers."""
    rows = [{"prompt": "pair", "class": None, "seed": 0, "rewards": {"ranking_accuracy": float(step > 0)}}] * 2
    rows = rows + [
        {"prompt": prompt, "class": None, "seed": seed, "rewards": {"length": float(len(text))}, "completion": text}
        for prompt, seed, text in answers
    ]
    means = {"ranking_accuracy": float(step > 0), "length": sum(len(text) for *_, text in answers) / 2}
    intervals = {name: {"mean": mean, "low": mean, "high": mean, "n": 2} for name, mean in means.items()}
    return {"step": step, "weights": "raw", "rewards": intervals, "classes": {}, "rows": rows}


def run_folder(folder: Path, metrics=()) -> Path:
    (folder / "evaluations").mkdir()
    (folder / "config.yaml").write_text("branch: preference\nalgorithm: {kind: dpo}\nmodel: {path: builtin:tiny}\n")
    for step, answers in ((0, BEFORE), (4, AFTER)):
        (folder / "evaluations" / f"step_{step:06d}.json").write_text(json.dumps(evaluation(step, answers)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return folder


def test_answers_are_paired_and_pairs_are_left_out(tmp_path):
    pairs = text_pairs(read_run(run_folder(tmp_path)))
    assert [(pair.prompt, pair.before.text, pair.after.text, pair.same) for pair in pairs] == [
        ("why?", "because <b>", "because it is so", False),
        ("why not?", "", "", True),
    ]
    assert pairs[0].after.scores == (("length", "16.00"),)


def test_the_page_shows_texts_as_texts(tmp_path):
    """A text is shown letter by letter, whatever it is made of; rows are not called pictures."""
    page = render(read_run(run_folder(tmp_path)))
    assert "Answers before and after, side by side" in page
    assert "because &lt;b&gt;" in page
    assert "an empty answer" in page
    assert "unchanged" in page
    assert ">rows</th>" in page
    assert ">pictures</th>" not in page
    assert "The same pairs and prompts before the first" in page


@pytest.mark.parametrize(
    ("chosen", "rejected", "warned"),
    [(-2.0, -9.0, True), (0.5, -9.0, False), (-2.0, 0.1, False), (-0.08, -9.0, False), (-2.0, -0.1, True)],
)
def test_both_sides_fall(tmp_path, chosen, rejected, warned):
    lines = [
        {"step": step, "eval/logps/chosen_change": chosen * step / 4, "eval/logps/rejected_change": rejected * step / 4}
        for step in (0, 4)
    ]
    run = read_run(run_folder(tmp_path, lines))
    found = falling(run)
    assert bool(found) is warned
    assert bool([text for text in summarise(run).problems if "both become less likely" in text]) is warned
    if warned and rejected == -9.0:
        assert "-2.00 and -9.00 nats" in found[0]


def test_training_pairs_say_it_where_none_are_held_out(tmp_path):
    lines = [{"step": 4, "logps/chosen_change": -1.0, "logps/rejected_change": -1.0}]
    assert "on training pairs" in falling(read_run(run_folder(tmp_path, lines)))[0]
