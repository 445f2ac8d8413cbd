"""Settings of Directional Preference Alignment: objectives, directions, rounds. Torch-free.

The method is `preference/dpa`; its mathematics is `align/shaping/directions.py` and `align/pairs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, with_config

from align.config.checks import reward_name
from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from align.config.shared import STRICT, OutputConfig, RewardConfig
from preference.config.data import DataPath, TokensConfig
from preference.config.models import CausalLm, Model
from preference.config.running import GenerationConfig, TextCheckpointConfig, TextOptimizerConfig, TextTrainingConfig

Components = Mapping[str, float]
"""Objective -> component of a direction, in any length; 0 where an objective is not named."""


@dataclass(frozen=True, kw_only=True)
class Arc:
    """Directions of two objectives, uniform in their angle: 0 degrees is the first objective alone, 90 the second."""

    kind: Literal["arc"] = "arc"
    """Selects this set of directions."""
    low: float = 0.0
    """Smallest angle in degrees; the published cone of helpfulness and verbosity is about -45 to 0."""
    high: float = 90.0
    """Largest angle in degrees."""

    def shown(self, names: tuple[str, ...], count: int) -> tuple[Components, ...]:
        """Angles at equal distances, both ends among them."""
        width = (self.high - self.low) / max(count - 1, 1)
        angles = [math.radians(self.low + place * width) for place in range(count)]
        return tuple({names[0]: round(math.cos(angle), 12), names[1]: round(math.sin(angle), 12)} for angle in angles)


@dataclass(frozen=True, kw_only=True)
class Cap:
    """Directions around a main one, uniform on the part of the sphere that is near enough."""

    kind: Literal["cap"] = "cap"
    """Selects this set of directions."""
    main: Components = field(default_factory=dict)
    """Middle of the cap; empty = all objectives alike."""
    degrees: PositiveFloat = 55.0
    """Largest angle to the middle. Of three objectives alike, each alone is 54.7 degrees away."""
    non_negative: bool = True
    """No component below 0: nobody asks for less of an objective."""

    def middle(self, names: tuple[str, ...]) -> Components:
        """The main direction."""
        return self.main or dict.fromkeys(names, 1.0)

    def shown(self, names: tuple[str, ...], count: int) -> tuple[Components, ...]:
        """The middle, each objective alone, and every two of them together, as far as asked for."""
        pairs = [{a: 1.0, b: 1.0} for i, a in enumerate(names) for b in names[i + 1 :]]
        alone: list[Components] = [{name: 1.0} for name in names]
        return tuple([self.middle(names), *alone, *pairs][:count])


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A few given directions, each as likely as the others; one alone trains a policy for that direction."""

    kind: Literal["list"] = "list"
    """Selects this set of directions."""
    directions: tuple[Components, ...] = ()
    """The directions."""

    def shown(self, names: tuple[str, ...], count: int) -> tuple[Components, ...]:
        """The directions themselves."""
        return self.directions


Directions = Annotated[Arc | Cap | Listed, Field(discriminator="kind")]


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
    rounds: PositiveInt = 4
    """Rounds of sampling and fine-tuning; they share `training.steps` equally."""
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
    replay: Share = 0.1
    """Share of the round before that is trained on again."""
    loss: Literal["sft", "dpo"] = "sft"
    """Imitate the best answer, as published, or prefer it to the worst (ours); dpo's reference is the round's start."""
    beta: PositiveFloat | None = None
    """Of `loss: dpo` (`null`: 0.1)."""


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

    def steps_per_round(self) -> int:
        """Steps of a round; the checks see to it that rounds are equal."""
        return max(1, self.training.steps // self.algorithm.rounds)
