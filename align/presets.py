"""Pipelines of the literature, by name, each with where its numbers are from.

They differ in few numbers, and silently: which standard deviation, of whom, which eps. A preset fixes them all. Print
one as YAML, to be pasted under `pipeline:`, with

    python -m align.presets gdpo

No torch is imported here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from align.config.estimators import DdpoTracked
from align.config.group_relative import DrGrpo, FlowGrpo, Grpo, Rloo
from align.config.pipeline import PipelineConfig
from align.config.shaping import Lsc, WeightedSum, ZScore
from align.errors import AlignError, did_you_mean

GROUP_ZSCORE = ZScore(scope="group", unbiased=True, eps=1e-4)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published way from rewards to advantages.

    Attributes:
        name: how it is asked for.
        source: paper and code that its numbers were checked against.
        pipeline: the settings.
        note: what else belongs to it.
    """

    name: str
    source: str
    pipeline: PipelineConfig
    note: str = ""


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="grpo",
        source="Shao et al., arXiv:2402.03300, section 4.1.2; numbers of TRL: n - 1, + 1e-4",
        pipeline=PipelineConfig(base=Grpo(scale="group", unbiased=True, eps=1e-4), clip=None),
    ),
    Preset(
        name="dr_grpo",
        source="Liu et al., arXiv:2503.20783, section 3",
        pipeline=PipelineConfig(base=DrGrpo(), clip=None),
        note="Its other half is the aggregation `seq_mean_token_sum_norm` of the loss; pictures have no such thing.",
    ),
    Preset(
        name="rloo",
        source="Ahmadian et al., arXiv:2402.14740; the same baseline as LOOP",
        pipeline=PipelineConfig(base=Rloo(), clip=None),
    ),
    Preset(
        name="gdpo",
        source="Liu et al., arXiv:2601.05242; numbers of TRL's `normalize_then_sum`: n - 1 and + 1e-4 both times",
        pipeline=PipelineConfig(
            transforms=(GROUP_ZSCORE,),
            combine=WeightedSum(missing="skip"),
            base=Grpo(scale="batch", unbiased=True, eps=1e-4),
            clip=None,
        ),
        note="The sums have mean 0 in every group, so that the group's mean and the batch's are the same.",
    ),
    Preset(
        name="flow_grpo",
        source="Flow-GRPO's released configurations (`global_std=True`): population form, + 1e-4; clip 5",
        pipeline=PipelineConfig(base=FlowGrpo(global_std=True, unbiased=False, eps=1e-4), clip=5.0),
    ),
    Preset(
        name="awm",
        source="AWM's released configurations, the same as Flow-GRPO's",
        pipeline=PipelineConfig(base=FlowGrpo(global_std=True, unbiased=False, eps=1e-4), clip=5.0),
    ),
    Preset(
        name="flow_grpo_group_std",
        source="Liu et al., arXiv:2505.05470, the paper's formula (`global_std=False` in its code)",
        pipeline=PipelineConfig(base=FlowGrpo(global_std=False, unbiased=False, eps=1e-4), clip=5.0),
    ),
    Preset(
        name="flow_factory",
        source="Flow-Factory's code: group z-score, population form, floor 1e-6",
        pipeline=PipelineConfig(base=Grpo(unbiased=False, eps=1e-6, eps_mode="floor"), clip=None),
    ),
    Preset(
        name="verl_omni",
        source="verl-omni's code: group z-score, n - 1, + 1e-4",
        pipeline=PipelineConfig(base=Grpo(unbiased=True, eps=1e-4), clip=None),
    ),
    Preset(
        name="ddpo",
        source="Black et al., arXiv:2305.13301, per-prompt statistics of the released code: population form, + 1e-6",
        pipeline=PipelineConfig(base=DdpoTracked(), clip=None),
    ),
    Preset(
        name="lsc_and",
        source="Wang et al., arXiv:2402.00742: log-sigmoid-centred rewards, their sum as a logical AND",
        pipeline=PipelineConfig(
            transforms=(Lsc(),),
            combine=WeightedSum(missing="renormalise"),
            base=Grpo(scale="batch"),
            clip=None,
        ),
        note="Dividing by each group's standard deviation would undo what it does between prompts.",
    ),
)


def names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(preset.name for preset in PRESETS)


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        AlignError: there is none.
    """
    for candidate in PRESETS:
        if candidate.name == name:
            return candidate
    raise AlignError(f"there is no preset `{name}`.{did_you_mean(name, names())}", f"There are: {', '.join(names())}.")


def to_yaml(chosen: Preset) -> str:
    """The preset as lines for a configuration file, with its source."""
    import yaml

    from align.config.load import to_plain

    body = yaml.safe_dump({"pipeline": to_plain(chosen.pipeline)}, sort_keys=False, width=120)
    lines = [f"# {chosen.name}: {chosen.source}"]
    return "\n".join([*lines, *([f"# {chosen.note}"] if chosen.note else []), body])


if __name__ == "__main__":
    try:
        chosen_names = sys.argv[1:] or names()
        print("\n".join(to_yaml(preset(name)) for name in chosen_names), end="")
    except AlignError as error:
        sys.exit(str(error))
