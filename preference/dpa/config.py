"""Settings of Directional Preference Alignment: objectives, directions, rounds. Torch-free.

The method is `preference/dpa`; its mathematics is `align/shaping/directions.py` and `align/pairs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field, with_config

from align.config.checks import reward_name
from align.config.directions import Arc as Arc  # these two also under their old place
from align.config.directions import Cap, Components, Directions, middle_of
from align.config.directions import Listed as Listed
from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from align.config.pipeline import Base, PipelineConfig
from align.config.shaping import Directional, ZScore
from align.config.shared import STRICT, OutputConfig, RewardConfig
from preference.config.data import DataPath, TokensConfig
from preference.config.models import CausalLm, Model
from preference.config.running import GenerationConfig, TextCheckpointConfig, TextOptimizerConfig, TextTrainingConfig


@dataclass(frozen=True, kw_only=True)
class PromptsConfig(TokensConfig):
    """Prompts to answer."""

    train: DataPath = "builtin:tiny/train"
    """Prompts of the rounds: a file (also .txt, one prompt a line), a folder, or a hub id; pairs will do."""
    heldout: DataPath | None = "builtin:tiny/heldout"
    """Prompts that are only evaluated; `null` goes without."""
    train_split: str = "train"
    """Split of `train`, where the source has several."""
    heldout_split: str = "test"
    """Split of `heldout`, where the source has several."""
    prompt: str = "prompt"
    """Column of the prompt."""
    answers_per_step: PositiveInt = 32
    """Kept answers (or pairs) of a step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Supervised fine-tuning on the best of rated answers under drawn directions, before anything is sampled."""

    data: DataPath
    """Rated answers: `prompt`, `response` and a column for each reward (HelpSteer), or UltraFeedback's nested lists."""
    split: str = "train"
    """Split of `data`, where the source has several."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Reward -> its rating in the file, where that has another name."""
    steps: PositiveInt
    """Steps on them; they are part of `training.steps`."""


@dataclass(frozen=True, kw_only=True)
class DpaConfig:
    """DPA: one policy that reads in its prompt how to weigh the objectives. arXiv:2402.18571.

    Each round samples answers for drawn directions, keeps the best by direction . rewards, and fine-tunes on them.
    """

    objectives: Mapping[str, Mapping[str, float]] | None = None
    """Objective -> its mix of rewards, such as `{helpfulness: {correct: 1.0}}`; `null`: each reward is an objective."""
    scale: Literal["start", "none"] = "start"
    """Bring rewards to mean 0 and deviation 1 of the base model's answers, fixed from then on, or leave them raw."""
    directions: Directions = field(default_factory=Cap)
    """Which directions are drawn in training."""
    template: str | None = None
    """Control text with a slot for each objective, such as `Aim for {helpfulness} x helpfulness.`; `null`: ours."""
    placement: Literal["system", "prefix", "none"] = "system"
    """Where the control text stands: system turn, before the prompt, or nowhere (a policy for one direction)."""
    warm_start: WarmStart | None = None
    """Rated answers that are trained on before the first round; `null`: none."""
    rounds: PositiveInt = 4
    """Rounds of sampling and fine-tuning; they share equally what the warm start leaves of `training.steps`."""
    prompts_per_round: PositiveInt | None = None
    """Prompts of a round, none twice before all were used; `null` takes all prompts in each round."""
    directions_per_prompt: PositiveInt = 1
    """Directions drawn for each prompt in a round."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Answers sampled for each prompt and direction."""
    max_new_tokens: PositiveInt = 128
    """Longest sampled answer."""
    temperature: PositiveFloat = 1.0
    """Temperature of the sampled answers."""
    top_p: PositiveFloat = 1.0
    """Sample from the smallest set of tokens with this much probability; 1 = from all."""
    batch_size: PositiveInt = 32
    """Answers sampled at once; changes speed and memory only."""
    min_margin: NonNegativeFloat = 0.0
    """Best and worst answer must differ by this much, or the prompt is left out of the round."""
    replay: Share | None = None
    """Share of the round before that is trained on again (`null`: 0.1, and 0 with `loss: grpo`)."""
    loss: Literal["sft", "dpo", "rwr", "grpo"] = "sft"
    """Imitate the best answer, as published; or (ours) prefer it to the worst, imitate all by the softmax of their
    scores, or train on the advantages of all within their prompt and direction."""
    beta: PositiveFloat | None = None
    """Of `loss: dpo` (`null`: 0.1); its reference is the policy at the round's start."""
    tau: PositiveFloat | None = None
    """Of `loss: rwr` (`null`: 1): temperature of the softmax, in the unit of the scores; small = the best alone."""
    estimator: Base | None = None
    """Of `loss: grpo` (`null`: `{kind: grpo}`): how a score is compared with its group."""
    clip_range: PositiveFloat | None = None
    """Of `loss: grpo` (`null`: 0.2): how far the ratio to the policy at the round's start counts beyond 1."""

    def kept_of_group(self) -> int:
        """Most answers of a prompt and direction that a round trains on."""
        return self.samples if self.loss in ("rwr", "grpo") else 1

    def replayed(self) -> float:
        """Share of the round before; answers of an older policy are not those that grpo's ratio is about."""
        return (0.0 if self.loss == "grpo" else 0.1) if self.replay is None else self.replay


@dataclass(frozen=True, kw_only=True)
class SteeringConfig:
    """Held-out evaluation: the same prompts under several directions, and whether the policy follows."""

    every: Count = 0
    """Evaluate after every so many steps (and before the first and after the last); 0 = only before and after."""
    directions: tuple[Components, ...] = ()
    """Directions that are asked for; empty: `count` of those that training draws from."""
    count: PositiveInt = 7
    """How many."""
    generate: GenerationConfig = field(default_factory=GenerationConfig)
    """How the answers are made."""
    reference: float = -2.0
    """Of the hypervolume, in every objective, in deviations of the base model's answers from their mean."""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class DpaRun:
    """A run of Directional Preference Alignment on a language model."""

    branch: Literal["dpa"] = "dpa"
    """Directional Preference Alignment."""
    recipe: str | None = None
    """Name of the shipped config that this one is a variant of; `align plan` lists where they differ."""
    seed: Count = 0
    """All randomness of the run follows from it."""
    model: Model = field(default_factory=CausalLm)
    """The model that is trained."""
    data: PromptsConfig = field(default_factory=PromptsConfig)
    """The prompts."""
    rewards: tuple[RewardConfig, ...] = ()
    """What scores an answer; their `weight` is not used, directions take its place."""
    algorithm: DpaConfig = field(default_factory=DpaConfig)
    """Objectives, directions, rounds."""
    optimizer: TextOptimizerConfig = field(default_factory=TextOptimizerConfig)
    """Optimiser and learning rate."""
    training: TextTrainingConfig = field(default_factory=TextTrainingConfig)
    """How long, how large, how precise."""
    evaluation: SteeringConfig = field(default_factory=SteeringConfig)
    """Held-out evaluation."""
    checkpoint: TextCheckpointConfig = field(default_factory=TextCheckpointConfig)
    """Checkpoints."""
    output: OutputConfig = field(default_factory=OutputConfig)
    """Run folder and trackers."""

    def names(self) -> tuple[str, ...]:
        """The objectives, in the order of a direction's components."""
        return tuple(self.algorithm.objectives or self.reward_names())

    def reward_names(self) -> tuple[str, ...]:
        """The rewards, as metrics and tables call them."""
        return tuple(reward_name(reward) for reward in self.rewards)

    def shown(self) -> tuple[Components, ...]:
        """Directions of the held-out evaluation."""
        return self.evaluation.directions or self.algorithm.directions.shown(self.names(), self.evaluation.count)

    def scoring(self) -> tuple[tuple[RewardConfig, ...], PipelineConfig]:
        """What `align audit` takes for the score: rewards on the common scale, along the middle of the shown
        directions."""
        middle = middle_of(self.shown(), self.names())
        mixes = self.algorithm.objectives or {name: {name: 1.0} for name in self.names()}
        weights = {
            name: sum(middle[objective] * mix.get(name, 0.0) for objective, mix in mixes.items())
            for name in self.reward_names()
        }
        size = math.hypot(*weights.values()) or 1.0
        rewards = tuple(replace(reward, weight=weights[reward_name(reward)] / size) for reward in self.rewards)
        transforms = (ZScore(scope="batch"),) if self.algorithm.scale == "start" else ()
        return rewards, PipelineConfig(transforms=transforms, combine=Directional())

    def steps_per_round(self) -> int:
        """Steps of a round; the checks see to it that rounds are equal."""
        return max(1, (self.training.steps - self.warm_steps()) // self.algorithm.rounds)

    def warm_steps(self) -> int:
        """Steps before the first round."""
        return 0 if self.algorithm.warm_start is None else self.algorithm.warm_start.steps
