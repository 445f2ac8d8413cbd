"""Finding estimators and their options, and what a wrong name or value says."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from align.advantages import AdvantageInputs, available, estimate, estimate_with, registry
from align.config.declarations import declare
from align.config.group_relative import FlowGrpo, Grpo
from align.config.pipeline import PipelineConfig

INPUTS = AdvantageInputs(rewards=torch.tensor([0.0, 1.0]), group_ids=torch.tensor([0, 0]))


def test_every_built_estimator_is_found():
    assert {"grpo", "dr_grpo", "rloo", "flow_grpo"} <= set(available())
    assert list(available()) == sorted(available())


@pytest.mark.parametrize("kind", available())
def test_options_are_those_of_the_settings_and_so_are_the_defaults(kind):
    """One source: the settings class of the config file with that kind."""
    entry = registry.find(kind)
    assert entry.options_type.__module__.startswith("align.config.")
    assert registry.make_options(entry, {}) == entry.options_type()


def test_settings_choose_the_estimator():
    by_settings = estimate_with(FlowGrpo(eps=0.5), INPUTS).advantages
    assert torch.equal(by_settings, estimate("flow_grpo", INPUTS, eps=0.5).advantages)


def test_scope_follows_the_options():
    assert registry.find("grpo").scope_of(Grpo()) == "group"
    assert registry.find("grpo").scope_of(Grpo(scale="batch")) == "batch"
    assert registry.find("rloo").scope_of(None) == "group"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("grop", {}, "no advantage estimator 'grop'. Did you mean `grpo`.*Available: .*rloo"),
        ("grpo", {"epz": 1.0}, "`epz` is not an option of grpo. Did you mean `eps`.*Options: scale, unbiased"),
        ("rloo", {"eps": 1.0}, "`eps` is not an option of rloo"),
        ("grpo", {"scale": "goup"}, "options of grpo: `scale`: .*found 'goup'"),
        ("grpo", {"eps": "much"}, "options of grpo: `eps`: .*found 'much'"),
        ("flow_grpo", {"eps": -1.0}, "eps"),
    ],
)
def test_wrong_names_and_values(kind, options, message):
    with pytest.raises(ValueError, match=message):
        estimate(kind, INPUTS, **options)


@declare(requires=("moonlight",))
@dataclass(frozen=True, kw_only=True)
class Mistaken:
    kind: Literal["mistaken"] = "mistaken"


def test_an_estimator_cannot_require_what_nobody_can_give():
    with pytest.raises(TypeError, match="mistaken requires \\['moonlight'\\]"):
        registry.estimator(Mistaken)(lambda inputs, options: inputs.rewards)


def test_settings_without_a_declaration_are_a_mistake():
    @dataclass(frozen=True, kw_only=True)
    class Silent:
        kind: Literal["silent"] = "silent"

    with pytest.raises(TypeError, match="Silent declares nothing"):
        registry.estimator(Silent)(lambda inputs, options: inputs.rewards)


def test_a_kind_belongs_to_one_file():
    with pytest.raises(TypeError, match="two estimators are called 'grpo'"):
        registry.estimator(Grpo)(lambda inputs, options: inputs.rewards)


def test_the_example_in_the_package_docstring():
    rewards, ids = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([7, 7, 7])
    assert estimate("rloo", AdvantageInputs(rewards=rewards, group_ids=ids)).advantages.tolist() == [-3.0, -1.5, 4.5]


@pytest.mark.parametrize("kind", available())
def test_base_stages_and_shapers_can_be_written_in_a_config(kind):
    """The union of the config is the list of what a pipeline accepts; loss and rollout stages have no place in it."""
    entry = registry.find(kind)
    settings = {"kind": kind}
    written = {"base": settings} if entry.stage == "base" else {"shapers": [settings]}
    if entry.stage in ("base", "shaper"):
        config = TypeAdapter(PipelineConfig).validate_python(written)
        assert entry.options_type() in (config.base, *config.shapers)
    else:
        with pytest.raises(ValidationError):
            TypeAdapter(PipelineConfig).validate_python({"base": settings})
