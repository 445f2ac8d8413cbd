"""Contradictions between rewards and pipeline, and the settings of a pipeline through the loader."""

import pytest

from align.config.check_pipeline import check_pipeline
from align.config.errors import ConfigError
from align.config.load import load_config, save_config
from align.config.pipeline import PipelineConfig
from align.config.shaping import (
    Chebyshev,
    Clip,
    Component,
    Constraint,
    ConstraintWeights,
    Directional,
    DirectionWeights,
    Gate,
    Gated,
    Lexicographic,
    Lsc,
    Nash,
    PowerMean,
    Ramp,
    Rank,
    ReferenceColumn,
    ScheduledWeights,
    SoftMin,
    WeightedSum,
    ZScore,
)
from align.config.shared import RewardConfig

OCR, AESTHETIC = RewardConfig(function="m:ocr"), RewardConfig(function="m:score", name="aesthetic")


def texts(pipeline, *rewards):
    return [str(problem) for problem in check_pipeline(rewards or (OCR, AESTHETIC), pipeline)]


def test_nothing_to_say():
    pipeline = PipelineConfig(
        transforms=(ZScore(rewards=("ocr",)), Lsc(reference=ReferenceColumn(column="aesthetic"))),
        combine=Lexicographic(order=("ocr", "aesthetic")),
        required=("aesthetic",),
    )
    assert texts(pipeline) == []
    assert texts(PipelineConfig()) == []


@pytest.mark.parametrize(
    ("pipeline", "key"),
    [
        (PipelineConfig(transforms=(ZScore(), Rank(rewards=("ocr", "ocrr")))), "pipeline.transforms.1.rewards.1"),
        (
            PipelineConfig(transforms=(Lsc(reference=ReferenceColumn(column="ocrr")),)),
            "pipeline.transforms.0.reference.column",
        ),
        (PipelineConfig(required=("ocrr",)), "pipeline.required.0"),
        (PipelineConfig(inputs={"metric": "ocrr"}), "pipeline.inputs.metric"),
        (PipelineConfig(combine=Lexicographic(order=("ocrr",))), "pipeline.combine.order.0"),
        (
            PipelineConfig(weights=DirectionWeights(components=(Component(reward="ocrr", value=1.0),))),
            "pipeline.weights",
        ),
    ],
)
def test_a_reward_that_is_not_there(pipeline, key):
    (text,) = texts(pipeline)
    assert f"`{key}" in text
    assert "names a reward `ocrr`, which there is not. Did you mean `ocr`?" in text
    assert "The rewards are ocr, aesthetic" in text


def test_negative_weights():
    cost = RewardConfig(function="m:size", weight=-1.0)
    (text,) = texts(PipelineConfig(), OCR, cost)
    assert "`rewards.1.weight` is negative (-1), but `combine: weighted_sum` takes no such weight" in text
    assert "scale: -1" in text
    assert texts(PipelineConfig(combine=WeightedSum(allow_negative=True)), OCR, cost) == []
    assert texts(PipelineConfig(combine=Directional()), OCR, cost) == []
    down = DirectionWeights(components=(Component(reward="ocr", value=-0.6),))
    (text,) = texts(PipelineConfig(weights=down))
    assert "`pipeline.weights.components.0.value` is negative (-0.6)" in text
    assert texts(PipelineConfig(weights=down, combine=Directional())) == []


@pytest.mark.parametrize(
    ("values", "found"),
    [((), "none"), ((0.0, 0.0), "ocr 0, aesthetic 0"), ((1.0, float("inf")), "ocr 1, aesthetic inf")],
)
def test_a_direction_without_length(values, found):
    components = tuple(
        Component(reward=name, value=value) for name, value in zip(("ocr", "aesthetic"), values, strict=False)
    )
    (text,) = texts(PipelineConfig(weights=DirectionWeights(components=components), combine=Directional()))
    assert f"a direction needs a finite component other than 0, found {found}." in text


@pytest.mark.parametrize(
    "combine", [WeightedSum(), SoftMin(), Chebyshev(), Nash(), PowerMean(), Gated(gate="ocr", at_least=0.5)]
)
def test_no_combination_but_two_takes_a_cost_as_it_is(combine):
    """Only a sum can be told to; the others say what to do instead."""
    (text,) = texts(PipelineConfig(combine=combine), OCR, RewardConfig(function="m:size", weight=-1.0))
    assert f"`combine: {combine.kind}` takes no such weight" in text
    assert "scale: -1" in text
    assert ("allow_negative" in text) == isinstance(combine, WeightedSum)


def test_negative_weights_beside_a_schedule_or_a_constraint():
    """The weight that the ramp or the price replaces is not used, so its sign says nothing."""
    cost = RewardConfig(function="m:size", weight=-1.0)
    ramps = {
        name: ScheduledWeights(ramps=(Ramp(reward=name, start=0.0, end=1.0, steps=3),)) for name in ("ocr", "size")
    }
    prices = {name: ConstraintWeights(constraints=(Constraint(reward=name, at_least=0.5),)) for name in ("ocr", "size")}
    for source in (ramps, prices):
        (text,) = texts(PipelineConfig(weights=source["ocr"]), OCR, cost)
        assert "`rewards.1.weight` is negative (-1)" in text
        assert texts(PipelineConfig(weights=source["size"]), OCR, cost) == []


def test_incomplete_entries():
    pipeline = PipelineConfig(
        transforms=(Clip(), Gate(rewards=("ocr",), on="aesthetic")),
        combine=Lexicographic(order=("ocr", "aesthetic"), tolerances=(0.1,)),
    )
    found = texts(pipeline)
    assert "`clip` needs `low`, `high` or `stds`" in found[0]
    assert "`gate` needs `at_least` or `at_most`" in found[1]
    assert "there are 2 rewards in `order`" in found[2]


def test_through_the_loader_and_back(tmp_path):
    """A config of the diffusion branch with a pipeline by overrides; it saves, and loads to the same."""
    config = load_config(
        "demo/awm_tiny",
        [
            "pipeline.transforms=[{kind: zscore}, {kind: lsc, reference: {kind: constant, value: 1.5}}]",
            "pipeline.combine={missing: skip}",
            "pipeline.base={kind: grpo, scale: batch}",
            "pipeline.weights={kind: constraint, constraints: [{reward: shapes, at_least: 0.9}]}",
        ],
    )
    assert [transform.kind for transform in config.pipeline.transforms] == ["zscore", "lsc"]
    assert config.pipeline.transforms[1].reference.value == 1.5
    assert config.pipeline.combine == WeightedSum(missing="skip")
    assert load_config(save_config(config, tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pipeline.transforms=[{kind: zscor}]", "zscore"),
        ("pipeline.transforms=[{kind: zscore, scop: batch}]", "scope"),
        ("pipeline.combine={kind: soft_min, tau: -1}", "tau"),
        ("pipeline.required=[shape]", "Did you mean `shapes`"),
    ],
)
def test_mistakes_in_the_file(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("demo/awm_tiny", [override])
