"""What a user can get wrong with ratings and settings: refused before a model is loaded, with what to do."""

import json

import pytest

from align.config.errors import ConfigError
from align.config.load import load_config
from align.errors import AlignError
from align.rewards.scales import LabelScale
from preference.reward_models.config import RatingsConfig
from preference.reward_models.data import as_texts, heldout_ratings, training_ratings

ROWS = [
    {"prompt": "a", "response": "x", "clear": 0, "kind": 2},
    {"prompt": "a", "response": "y", "clear": 4, "kind": None},
    {"prompt": "b", "response": "z", "clear": None, "kind": 2},
    {"prompt": "b", "response": "w", "clear": None, "kind": None},
]
SCALE = {"lowest": 0.0, "highest": 4.0, "levels": 5}


def settings(path, rows=ROWS, **attributes):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scales = {name: LabelScale(**scale) for name, scale in attributes.items()}
    return RatingsConfig(train=str(path), heldout=None, attributes=scales)


def test_answers_without_any_label_are_left_out_and_numbers_point_back(tmp_path):
    rated = training_ratings(settings(tmp_path / "a.jsonl", clear=SCALE))
    texts = as_texts(rated, as_turns=False)
    assert texts.numbers == (0, 1)
    assert [row.responses[0] for row in texts.rows] == ["x", "y"]


@pytest.mark.parametrize(
    ("attributes", "message", "way_out"),
    [
        ({"clarity": SCALE}, "has no ratings of `clarity`", "It rates"),
        ({"kind": SCALE}, "nothing to learn of `kind`: all its labels are 2", "Remove it from `data.attributes`"),
        (
            {"clear": {"lowest": 1.0, "highest": 5.0, "levels": 5}},
            r"answer 0 \(prompt 'a'\) has clear 0, but its scale goes from 1 to 5",
            "Correct the rating, or `data.attributes.clear`",
        ),
    ],
)
def test_ratings_that_cannot_be_used(tmp_path, attributes, message, way_out):
    with pytest.raises(AlignError, match=message) as caught:
        training_ratings(settings(tmp_path / "a.jsonl", **attributes))
    assert way_out in caught.value.way_out


def test_a_scale_is_checked_on_held_out_ratings_too_but_a_constant_is_fine_there(tmp_path):
    config = settings(tmp_path / "a.jsonl", kind=SCALE)
    held = RatingsConfig(train=config.train, heldout=config.train, attributes=config.attributes)
    assert heldout_ratings(held) is not None
    held = RatingsConfig(train=config.train, heldout=config.train, attributes={"clear": LabelScale(highest=3.0)})
    with pytest.raises(AlignError, match="has clear 4, but its scale goes from 0 to 3"):
        heldout_ratings(held)


RATINGS = "data: {kind: ratings, train: rated.jsonl, heldout: null, answers_per_step: 2, attributes: {clear: %s}}"
GOOD = RATINGS % "{lowest: 0, highest: 4, levels: 5}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}\nalgorithm: {{kind: reward_bt}}", "`reward_bt` learns from pairs, but `data.kind` is ratings"),
        ("algorithm: {kind: reward_regression}", "`reward_regression` learns from ratings"),
        (GOOD.replace("{clear: {lowest: 0, highest: 4, levels: 5}}", "{}"), "there is no attribute to learn"),
        (RATINGS % "{lowest: 4, highest: 0, levels: 5}", "`lowest` must be below `highest`, found 4 and 0"),
        (RATINGS % "{lowest: 0, highest: 4, levels: 1}", "needs at least 2 levels"),
        (RATINGS % "{lowest: 0, highest: 2, levels: 3}", "has clear 4, but its scale goes from 0 to 2"),
        (GOOD.replace("answers_per_step: 2", "answers_per_step: 9"), "a step takes 9 different rows"),
        (f"{GOOD}\ntraining: {{steps: 7}}\nalgorithm: {{kind: reward_ridge}}", "takes no steps, but `training.steps`"),
        (
            f"{GOOD}\nalgorithm: {{kind: reward_ridge, gate: {{penalised: verbosity}}}}",
            "names no attribute of `data.attributes`: verbosity",
        ),
        (f"{GOOD}\nalgorithm: {{kind: reward_regression, beta: 1}}", "beta"),
        (f"{GOOD}\nevaluation: {{every: 5}}", "nothing is held out"),
        (GOOD.replace("heldout: null", "heldout: rated.jsonl"), "training and held-out rows are the same"),
        (f"{GOOD}\nmodel: {{path: model, quantization: 4bit}}", "which quantised weights cannot take up"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model = "" if "model:" in text else "model: {path: model}\n"
    method = "" if "algorithm:" in text else "algorithm: {kind: reward_regression}\n"
    (tmp_path / "run.yaml").write_text(f"branch: reward_model\n{model}{method}{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_config("run.yaml")
