"""From files and run folders to an audit: what is read, what is said, what the page and the record hold."""

import json
import math

import pytest
import torch
from PIL import Image

from align.config.pipeline import PipelineConfig
from align.config.shaping import Directional, SoftMin, WeightedSum, ZScore
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.inspect.audit.command import audit_rows
from align.inspect.audit.page import audit_page
from align.inspect.audit.rows import made_rows, read_rows, second_scoring
from align.report.tables import render, write_page

PROMPTS, EACH = 10, 6


def scored(**columns):
    """Rows of ten prompts with six samples each; every keyword is a function of (prompt, sample, noise)."""
    noise = torch.randn(PROMPTS, EACH, generator=torch.Generator().manual_seed(0))
    return [
        {
            "prompt": f"p{p}",
            "rewards": {name: value(p, s, float(noise[p, s])) for name, value in columns.items()},
        }
        for p in range(PROMPTS)
        for s in range(EACH)
    ]


def other(p, s, _):
    """Has nothing to do with the noise of the others."""
    return math.sin(12.9898 * p + 78.233 * s)


def findings(rows, weights=None, config=None, **changes):
    from dataclasses import replace

    return audit_rows(replace(made_rows(rows, "here"), **changes), weights, config).findings


def said(found, *parts):
    """The one finding that has all these parts."""
    (sentence,) = [one for one in found if all(part in one for part in parts)]
    return sentence


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


class Config:
    """Stands for a root dataclass: an audit reads its rewards and its pipeline."""

    def __init__(self, pipeline, **weights):
        self.pipeline = pipeline
        self.rewards = tuple(RewardConfig(function=name, weight=weight) for name, weight in weights.items())


def test_rows_of_a_file(tmp_path):
    """Gaps are NaN, a reward that some rows lack is a column, prompts are numbered in order of appearance."""
    rows = [
        {"prompt": "b", "rewards": {"x": 1.0, "y": None}, "completion": "four"},
        {"prompt": "a", "rewards": {"x": 2}, "completion": ""},
        {"prompt": "b", "rewards": {"x": 3.5, "y": 0.5}},
    ]
    found = read_rows(write(tmp_path / "scores.jsonl", rows))
    assert found.names == ("x", "y")
    assert found.values[:, 0].tolist() == [1.0, 2.0, 3.5]
    assert found.values[:, 1].isnan().tolist() == [True, True, False]
    assert found.group_ids.tolist() == [0, 1, 0]
    assert found.features["length"][:2].tolist() == [4, 0]
    assert found.features["length"][2].isnan()
    assert found.again is None


def test_pictures_beside_the_file_are_looked_at(tmp_path):
    """A white and a black picture; the third is missing."""
    for name, grey in (("a.png", 255), ("b.png", 0)):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(tmp_path / name)
    rows = [{"prompt": "p", "rewards": {"x": 0.0}, "image": name} for name in ("a.png", "b.png", "c.png")]
    found = read_rows(write(tmp_path / "scores.jsonl", rows)).features
    assert found["brightness"][:2].tolist() == [1.0, 0.0]
    assert found["brightness"][2].isnan()
    assert (found["jpeg_size"][:2] > 0).all()


def test_answers_of_a_prompt_on_one_line(tmp_path):
    """As `align score` writes texts: weights come along and count, unless somebody asks for others."""
    chat = [{"role": "user", "content": "hi"}]
    rows = [
        {
            "prompt": "a",
            "candidates": ["x", "yy"],
            "rewards": {"r": [1.0, None], "s": [0, 1]},
            "weights": {"r": 2.0, "s": 0.0},
        },
        {"prompt": chat, "candidates": ["zzz"], "rewards": {"r": [3.0], "s": [1]}, "weights": {"r": 2.0, "s": 0.0}},
    ]
    found = read_rows(write(tmp_path / "texts.scored.jsonl", rows))
    assert found.values[[0, 2], 0].tolist() == [1.0, 3.0]
    assert found.values[1].isnan().tolist() == [True, False]
    assert found.group_ids.tolist() == [0, 0, 1]
    assert found.features["length"].tolist() == [1, 2, 3]
    assert [one.weight for one in audit_rows(found).rewards] == [2.0, 0.0]
    assert [one.weight for one in audit_rows(found, {"s": 1.0}).rewards] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 0 has no rows"),
        ('{"prompt": "a", "scores": {}}', "row 1 has prompt, scores"),
        ('{"rewards": {"x": "high"}}', 'row 1, `x`: expected a number or null, found "high"'),
        ('{"rewards": {"x": 1}}\n{"rewards"', "scores.jsonl:2 is no JSON"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    (tmp_path / "scores.jsonl").write_text(text)
    with pytest.raises(AlignError, match=message):
        read_rows(tmp_path / "scores.jsonl")


def test_nothing_there(tmp_path):
    with pytest.raises(AlignError, match="found nothing"):
        read_rows(tmp_path / "scores.jsonl")
    with pytest.raises(AlignError, match="neither an evaluation before training nor a reward table"):
        read_rows(tmp_path)


def test_a_second_scoring_must_be_of_the_same_samples(tmp_path):
    first = made_rows(scored(x=other), "first")
    same = write(tmp_path / "same.jsonl", scored(y=other, x=lambda p, s, z: other(p, s, z) + 1))
    again = second_scoring(first, same)
    assert torch.allclose(again, first.values + 1)
    with pytest.raises(AlignError, match="holds other samples"):
        second_scoring(first, write(tmp_path / "other.jsonl", scored(x=other)[1:]))
    with pytest.raises(AlignError, match="has none of the rewards x; it has y"):
        second_scoring(first, write(tmp_path / "names.jsonl", scored(y=other)))


def test_nothing_stands_out_of_two_good_rewards():
    assert findings(scored(x=lambda p, s, z: z, y=other)) == ()


def test_a_constant_reward():
    """Constant on eight of ten prompts."""
    found = findings(scored(x=lambda p, s, z: z, ocr=lambda p, s, z: float(p > 7 and s == 0)))
    assert "80 % of the prompts, which teach nothing" in said(found, "`ocr` is constant")


def test_ends_and_gaps():
    """Half of the samples of every prompt are right; one in six has no score."""
    half = findings(scored(x=lambda p, s, z: float(s < 3)))
    assert "is at its largest value on 50 %" in said(half, "little left to gain")
    gaps = findings(scored(x=lambda p, s, z: None if s == 0 else z))
    assert "has no score for 17 %" in said(gaps, "`x`")
    assert "has scored nothing" in said(findings(scored(x=lambda p, s, z: z, y=lambda p, s, z: None)), "`y`")


def test_noise():
    """The second scoring is another draw of the same size: the variance of one is all there is."""
    rows = scored(x=lambda p, s, z: z)
    again = torch.tensor([[other(p, s, 0)] for p in range(PROMPTS) for s in range(EACH)])
    assert "average several scorings" in said(findings(rows, again=again), "`x` within a prompt is chance")
    assert findings(rows, again=made_rows(rows, "here").values) == ()


def test_units_decide_who_counts_until_they_are_scored():
    """x has a hundred times the unit; as z-scores both count alike."""
    rows = scored(x=lambda p, s, z: 100 * z, y=other)
    assert "others hardly count" in said(findings(rows), "`x` has 1")
    alike = Config(PipelineConfig(transforms=(ZScore(),)), x=1.0, y=1.0)
    assert findings(rows, config=alike) == ()
    assert "the others hardly count" in said(findings(rows, {"y": 0.01}), "`x`")
    assert findings(rows, config=Config(PipelineConfig(combine=SoftMin()), x=1.0, y=1.0)) == ()


def test_metrics_have_no_weight_and_no_say():
    """Of weight 0: neither counted twice nor in conflict."""
    rows = scored(x=lambda p, s, z: z, y=other, copy=lambda p, s, z: -z)
    assert findings(rows, {"copy": 0.0}) == ()
    assert "disagree on 100 %" in said(findings(rows, {"y": 0.0}), "`x` and `copy`")


def test_double_counting():
    """b is a with a little of something else."""
    rows = scored(a=lambda p, s, z: z, b=lambda p, s, z: z + 0.2 * other(p, s, z), c=lambda p, s, z: other(s, p, z))
    found = findings(rows)
    assert "most of all in `b`" in said(found, "`a` counts twice")
    assert "most of all in `a`" in said(found, "`b` counts twice")


def test_bias():
    rows = scored(x=lambda p, s, z: z, y=other)
    of_x, of_y = (torch.tensor([row["rewards"][name] for row in rows]) for name in "xy")
    biased = findings(rows, features={"length": 100 + 10 * of_x + 3 * of_y})
    assert "the policy may earn it that way alone" in said(biased, "`x` rises with length")
    assert findings(rows, {"x": 0.0}, features={"length": 100 + 10 * of_x + 3 * of_y}) == ()
    assert findings(rows, features={"length": 3 * of_x + 1}) == ()  # x is the length, on purpose


def test_too_little_to_say_anything():
    single = [{"prompt": f"p{i}", "rewards": {"x": float(i)}} for i in range(5)]
    assert "Every prompt has one sample" in findings(single)[0]
    few = [{"prompt": "p", "rewards": {"x": float(i), "y": -float(i)}} for i in range(5)]
    assert len([one for one in findings(few) if "disagree" in one]) == 0
    assert "only 4 samples beyond the first" in findings(few)[0]


def test_a_weight_of_a_reward_that_is_not_there():
    with pytest.raises(AlignError, match=r"`aestetic`, which here has no scores of. Did you mean `aesthetic`"):
        audit_rows(made_rows(scored(aesthetic=other), "here"), {"aestetic": 1.0})
    with pytest.raises(AlignError, match="every weight is 0"):
        audit_rows(made_rows(scored(aesthetic=other), "here"), {"aesthetic": 0.0})


def test_a_cost_as_it_is():
    """Refused by a sum that does not say that it takes one; a direction may have it."""
    rows = made_rows(scored(x=lambda p, s, z: z, size=other), "here")
    with pytest.raises(AlignError, match=r"the weight of `size` is negative \(-1\), but `combine: weighted_sum`"):
        audit_rows(rows, {"size": -1.0})
    for combine in (WeightedSum(allow_negative=True), Directional()):
        found = audit_rows(rows, {"size": -1.0}, Config(PipelineConfig(combine=combine), x=1.0))
        assert sum(one.share for one in found.rewards) == pytest.approx(1.0)


def test_page_and_record(tmp_path):
    """Infinite and missing numbers are null in the record; names of rewards are escaped on the page."""
    rows = scored(**{"<x>": lambda p, s, z: z, "double": lambda p, s, z: 2 * z, "none": lambda p, s, z: 1.0})
    page = audit_page(audit_rows(made_rows(rows, "here"), {"none": 0.0}))
    written = write_page(page, tmp_path / "audit", "audit")
    record = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert (record["samples"], record["prompts"], record["compared"]) == (60, 10, 50)
    assert record["rewards"][0]["inflation"] is None
    assert record["rewards"][2]["saturation"]["constant_groups"] == 1.0
    assert record["pairs"][0]["conflict"]["rate"] == 0.0
    text = written.read_text()
    assert text == render(page)
    assert "&lt;x&gt;" in text
    assert "<x>" not in text
    assert "counts twice: all of its variance" in text
