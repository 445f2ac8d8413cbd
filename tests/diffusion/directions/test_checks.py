"""Contradictions of directions, and what the plan tells of them."""

import pytest

from align.config.errors import ConfigError
from align.config.load import load_config
from diffusion.plan import plan

TEXT = """\
branch: diffusion
prompts: {train: train.txt, heldout: heldout.txt}
rollout: {prompts_per_step: 4, group_size: 4}
rewards: [{function: brightness}, {function: contrast}, {function: sharpness, weight: 0.0}]
pipeline: {weights: {kind: drawn_direction}, combine: {kind: directional}}
directions: {sample: {kind: arc}, shown: {count: 3, prompts: 1}}
"""


@pytest.fixture
def problems(tmp_path):
    """Function of overrides -> the problems that are found, as texts."""
    (tmp_path / "train.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    (tmp_path / "heldout.txt").write_text("another prompt\nand another\n")
    (tmp_path / "run.yaml").write_text(TEXT)

    def find(*overrides):
        try:
            find.config = load_config(tmp_path / "run.yaml", overrides)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return find


def test_a_sound_config_and_its_plan(problems):
    assert problems() == []
    rows = [row for section in plan(problems.config).sections for row in section.rows]
    found = {row.label: (row.value, row.note) for row in rows if row.label}
    assert found["reward contrast"][0] == "objective"
    assert found["reward sharpness"][0] == "metric only"
    assert found["directions"] == ("arc", "0 to 90 degrees from brightness; one for each of the 4 prompts of a step")
    assert found["told through"][0] == "embedding"
    assert "10% of the groups without" in found["told through"][1]
    assert found["evaluations"][1].startswith("of 12 pictures: 3 directions x 1 prompts x 4 seeds")
    assert [row.note for row in rows if row.value == "direction"][1] == "brightness 0.71, contrast 0.71"


def test_an_audit_scores_along_the_middle_of_the_shown_directions(problems):
    """(1, 0), (0.71, 0.71) and (0, 1) together: both objectives alike, the metric not at all."""
    assert problems() == []
    rewards, pipeline = problems.config.scoring()
    weights = [reward.weight for reward in rewards]
    assert weights == pytest.approx([1 + 0.5**0.5, 1 + 0.5**0.5, 0.0])
    assert pipeline.weights.kind == "fixed"
    problems("directions=null", "pipeline={}")
    assert problems.config.scoring() == (problems.config.rewards, problems.config.pipeline)


@pytest.mark.parametrize(
    "overrides",
    [
        ("directions.condition={kind: prompt}",),
        ("directions.sample={kind: cap, main: {contrast: 1.0}, degrees: 20, non_negative: false}",),
        ("directions.shown.guidance=2",),
        ("pipeline.combine={kind: soft_min}",),
        ("algorithm={kind: sft_best}",),
        ("algorithm={kind: flow_grpo}", "rollout.sampler={kind: flow_sde}"),
    ],
)
def test_sound_variants(problems, overrides):
    assert problems(*overrides) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("pipeline.weights={kind: fixed}",), "it could not learn to follow"),
        (("directions=null",), "along directions that nobody draws"),
        (("rewards=[{function: brightness}, {function: contrast, weight: 0.0}]",), "at least two objectives, found 1"),
        (("pipeline.combine={kind: lexicographic, order: [contrast]}",), "no direction could change a score"),
        (("pipeline.combine={kind: soft_min}", "directions.sample.low=-10"), "drawn components may be negative"),
        (("pipeline.transforms=[{kind: affine, scale: -1}]",), "an objective is turned round"),
        (("pipeline.base={kind: reinforce_pp}",), "groups that ask for different directions"),
        (("directions.sample.low=91",), "the arc goes from 91 to 90"),
        (("directions.shown.directions=[{sharpness: 1.0}]",), "names `sharpness`, which is no objective"),
        (("directions.condition={kind: prompt, template: '{brightness}'}",), "no slot for the objective `contrast`"),
        (("directions.condition.dropout=1",), "every group is drawn without a direction"),
        (("directions.condition.dropout=0", "directions.shown.guidance=2"), "not trained without one"),
        (("directions.condition={kind: prompt}", "directions.shown.guidance=2"), "not trained without one"),
    ],
)
def test_contradictions(problems, overrides, message):
    assert any(message in problem for problem in problems(*overrides)), problems(*overrides)


def test_stored_pictures_have_no_direction(problems, tmp_path):
    found = problems("algorithm={kind: sft, data: {path: pictures.jsonl}}", "rewards=[]", "pipeline={}")
    assert any("were drawn for no direction" in problem for problem in found)
