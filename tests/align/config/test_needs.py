"""What estimators need is known without torch, and what nobody brings is a problem among the others."""

import subprocess
import sys

import pytest

from align.config import shaping as s
from align.config.check_pipeline import check_pipeline
from align.config.credit import ReferenceGain
from align.config.estimators import Canon, DdpoTracked, Opo, Remax
from align.config.needs import Need, check_needs, needs_of, unmet
from align.config.pipeline import PipelineConfig
from align.config.shapers import Ucas
from align.config.shared import RewardConfig
from align.config.trees import Salt

BRINGS = ("prompt_ids", "step", "lengths", "greedy_rewards", "reference_rewards")


def problems(provided=BRINGS, **pipeline):
    return list(check_needs(PipelineConfig(**pipeline), provided))


def test_declarations_are_read_without_torch():
    code = (
        "import sys; from align.config.pipeline import PipelineConfig; from align.config.needs import needs_of; "
        "from align.config.declarations import declaration_of; from align.config.trees import Tempo; "
        "print(needs_of(PipelineConfig(base=Tempo())), declaration_of(Tempo).scope, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "fields=('token_ids', 'step_key')" in out
    assert out.split()[-2:] == ["group", "False"]


def test_needs_by_hand():
    found = needs_of(PipelineConfig(base=Salt(), shapers=(Ucas(),)))
    assert [(need.key, need.kind, need.fields) for need in found] == [
        ("pipeline.base", "salt", ("mask",)),
        ("pipeline.base", "salt", ("state_key", "token_ids", "step_key")),
        ("pipeline.shapers.0", "ucas", ("mask",)),
        ("pipeline.shapers.0", "ucas", ("self_certainty",)),
        ("pipeline.shapers.0", "ucas", ("token_logits",)),
    ]
    assert str(found[1]) == "`state_key` or `token_ids` or `step_key`"


def test_options_decide_and_rewards_fill():
    assert needs_of(PipelineConfig(base=Canon(split="random"))) == ()
    assert [need.fields for need in needs_of(PipelineConfig(base=Canon(schedule="cosine")))] == [("metric",), ("step",)]
    assert needs_of(PipelineConfig(base=Canon(), inputs={"metric": "sharpness"})) == ()


def test_prompts_that_come_back_are_asked_for():
    """Groups would do, but a number that is the same in every step is better."""
    reference = s.Lsc(reference=s.ReferencePrompt())
    needs = needs_of(PipelineConfig(transforms=(reference,), base=DdpoTracked()))
    assert [(need.key, need.fields) for need in needs] == [
        ("pipeline.transforms.0.reference", ("prompt_ids",)),
        ("pipeline.base", ("prompt_ids",)),
    ]
    assert unmet(needs, ()) == []


def test_a_mask_has_lengths():
    needs = needs_of(PipelineConfig(base=Opo()))
    assert unmet(needs, ("mask",)) == []
    assert unmet(needs, ()) == [Need(key="pipeline.base", kind="opo", fields=("lengths",))]


def test_what_is_missing_is_a_problem_with_its_place():
    (problem,) = problems(base=Canon(), shapers=(Ucas(),))
    assert problem.keys == ("pipeline.base", "pipeline.shapers.0")
    assert "canon needs `metric`; ucas needs `mask`, `self_certainty`, `token_logits`" in problem.message
    assert "brings: rewards, group_ids, prompt_ids, step, lengths" in problem.message
    assert "pipeline.inputs" in problem.way_out
    assert problems(base=Remax()) == []


def test_together_with_the_others():
    found = list(check_pipeline([RewardConfig(function="brightness", weight=-1.0)], PipelineConfig(base=Canon()), ()))
    assert ["negative" in found[0].message, "canon needs `metric`" in found[1].message] == [True, True]


def test_an_input_that_no_reward_can_be():
    (problem,) = problems(inputs={"metrik": "sharpness"})
    assert problem.keys == ("pipeline.inputs.metrik",)
    assert "Did you mean `metric`" in problem.message


RELATIVE = [
    s.ZScore(),
    s.ZScore(scope="batch"),
    s.RobustZScore(),
    s.MinMax(low=0.0),
    s.Rank(),
    s.Clip(stds=2.0),
    s.Lsc(reference=s.ReferenceGroup()),
    s.Impute(),
    s.Gate(rewards=("a",), on="b", at_least=0.5),
]
BY_ITSELF = [
    s.Affine(),
    s.ZScore(scope="running"),
    s.MinMax(low=0.0, high=1.0),
    s.Clip(high=1.0),
    s.Lsc(),
    s.Lsc(reference=s.ReferencePrompt()),
    s.Gate(rewards=("a",), on="b", at_least=0.5, floor=0.0),
]


@pytest.mark.parametrize("transform", RELATIVE, ids=str)
@pytest.mark.parametrize("base", [Remax(), ReferenceGain()], ids=lambda base: base.kind)
def test_a_baseline_has_no_unit_where_samples_are_compared(transform, base):
    (problem,) = problems(transforms=(transform,), base=base)
    assert problem.keys == ("pipeline.base", "pipeline.transforms.0")
    assert f"`{transform.kind}` makes scores by comparing" in problem.message


@pytest.mark.parametrize("transform", BY_ITSELF, ids=str)
def test_a_baseline_beside_rewards_that_are_shaped_by_themselves(transform):
    assert problems(transforms=(transform,), base=Remax()) == []


def test_a_baseline_that_is_a_reward_is_the_users_own():
    assert problems(transforms=(s.Rank(),), base=Remax(), inputs={"greedy_rewards": "greedy"}) == []


def test_a_combination_can_compare_too():
    (problem,) = problems(combine=s.Chebyshev(), base=Remax())
    assert problem.keys == ("pipeline.base", "pipeline.combine")
