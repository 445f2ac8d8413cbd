"""Settings of a run that trains a reward model. Torch-free. The string under each field is its help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, with_config

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt
from align.config.shared import STRICT, EmaConfig, OutputConfig, TrainingConfig
from align.rewards.scales import LabelScale
from preference.config.data import DataPath, PairsConfig, TokensConfig
from preference.config.models import CausalLm, Model
from preference.config.running import TextCheckpointConfig, TextOptimizerConfig

SCORE = "reward"
"""Name of the one head of a Bradley-Terry model."""


@dataclass(frozen=True, kw_only=True)
class RewardPairsConfig(PairsConfig):
    """Prompts with a chosen and a rejected answer, in any of TRL's formats; sources as for `branch: preference`."""

    kind: Literal["pairs"] = "pairs"
    """Selects pairs."""


@dataclass(frozen=True, kw_only=True)
class RatingsConfig(TokensConfig):
    """Answers with ratings: a column for each attribute (HelpSteer), or UltraFeedback's nested lists."""

    kind: Literal["ratings"] = "ratings"
    """Selects rated answers."""
    train: DataPath = "nvidia/HelpSteer2"
    """Answers to train on: a file, a folder, or a hub id."""
    heldout: DataPath | None = "nvidia/HelpSteer2"
    """Answers that are only evaluated; `null` goes without."""
    train_split: str = "train"
    """Split of `train`, where the source has several."""
    heldout_split: str = "validation"
    """Split of `heldout`, where the source has several."""
    attributes: dict[str, LabelScale] = field(default_factory=dict)
    """Attributes to learn, each with its scale (`{lowest: 0, highest: 4, levels: 5}`); a row may lack some of them."""
    answers_per_step: PositiveInt = 64
    """Rated answers of a step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class RewardBtConfig:
    """Bradley-Terry: one reward, learnt from which of two answers is preferred. arXiv:2203.02155."""

    kind: Literal["reward_bt"] = "reward_bt"
    """Selects this method."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the pairs whose order is taken to be wrong."""
    centre_weight: NonNegativeFloat = 0.0
    """Weight of (r_chosen + r_rejected)^2, which holds rewards near 0 (`center_rewards_coefficient` of TRL)."""
    margin_column: str | None = None
    """Column with how much better the chosen answer is, in natural-log odds; `null`: no margin."""


@dataclass(frozen=True, kw_only=True)
class RewardRegressionConfig:
    """One head for each attribute, trained on its ratings; missing ratings count for nothing. arXiv:2311.09528."""

    kind: Literal["reward_regression"] = "reward_regression"
    """Selects this method."""
    averaging: Literal["micro", "macro"] = "micro"
    """Mean over all labels of an update, or first within each attribute (for attributes of very unequal size)."""


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """ArmoRM's gating: one score from all heads, weighed by the prompt, learnt from pairs. arXiv:2406.12845."""

    train: DataPath = "builtin:tiny/train"
    """Pairs that it learns from, with the columns prompt, chosen, rejected."""
    train_split: str = "train"
    """Split of `train`, where the source has several."""
    penalised: str | None = None
    """Attribute that no other head may go along with, such as verbosity; it is itself left out. `null`: none."""
    limit: NonNegativeFloat = 0.03
    """Rank correlation with the penalised attribute that a head may keep."""
    steps: PositiveInt = 2000
    """Updates of the gating network."""
    pairs_per_step: PositiveInt = 1024
    """Pairs of an update."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate; it falls to 0 along a cosine."""
    width: PositiveInt = 1024
    """Units of each of the three hidden layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of hidden units left out in training."""


@dataclass(frozen=True, kw_only=True)
class RewardRidgeConfig:
    """Ridge regression on the last hidden state of the frozen model: one pass, no training. arXiv:2406.12845."""

    kind: Literal["reward_ridge"] = "reward_ridge"
    """Selects this method."""
    chosen_on: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the prompts that choose each attribute's penalty."""
    gate: GateConfig | None = None
    """One score from all heads beside them; `null` goes without."""


RewardData = Annotated[RewardPairsConfig | RatingsConfig, Field(discriminator="kind")]
RewardAlgorithm = Annotated[RewardBtConfig | RewardRegressionConfig | RewardRidgeConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class RewardTrainingConfig(TrainingConfig):
    """How long, how large, how precise. Ridge regression reads `micro_batch_size` only."""

    micro_batch_size: PositiveInt = 8
    """Pairs or answers in one pass of one process; changes speed and memory, not the result."""
    ema: EmaConfig | None = None
    """Moving average of the trained weights; `null` switches it off."""


@dataclass(frozen=True, kw_only=True)
class RewardEvaluationConfig:
    """Held-out evaluation: accuracy, calibration, agreement, errors."""

    every: Count = 0
    """Evaluate after every so many steps (and before the first and after the last); 0 = only before and after."""
    rows: PositiveInt | None = None
    """The first so many held-out pairs or answers; `null` takes all."""
    batch_size: PositiveInt = 16
    """Pairs or answers that are scored at once; changes speed and memory only."""
    bins: PositiveInt = 10
    """Bins of the reliability table."""


@dataclass(frozen=True, kw_only=True)
class RewardCheckpointConfig(TextCheckpointConfig):
    """When a checkpoint is written and which ones stay."""

    best_metric: str = "eval/agreement"
    """The metric that ranks checkpoints; higher is better."""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class RewardModelRun:
    """A run that makes a reward model out of a language model."""

    branch: Literal["reward_model"] = "reward_model"
    """Reward models."""
    recipe: str | None = None
    """Name of the shipped config that this one is a variant of; `align plan` lists where they differ."""
    seed: Count = 0
    """All randomness of the run follows from it."""
    model: Model = field(default_factory=CausalLm)
    """The language model under the head; a reward model of the same attributes goes on with its own head."""
    data: RewardData = field(default_factory=RewardPairsConfig)
    """Pairs or rated answers."""
    algorithm: RewardAlgorithm = field(default_factory=RewardBtConfig)
    """The method."""
    optimizer: TextOptimizerConfig = field(default_factory=TextOptimizerConfig)
    """Optimiser and learning rate."""
    training: RewardTrainingConfig = field(default_factory=RewardTrainingConfig)
    """How long, how large, how precise."""
    evaluation: RewardEvaluationConfig = field(default_factory=RewardEvaluationConfig)
    """Held-out evaluation."""
    checkpoint: RewardCheckpointConfig = field(default_factory=RewardCheckpointConfig)
    """Checkpoints."""
    output: OutputConfig = field(default_factory=OutputConfig)
    """Run folder and trackers."""

    @property
    def names(self) -> tuple[str, ...]:
        """The heads."""
        return (SCORE,) if isinstance(self.data, RewardPairsConfig) else tuple(self.data.attributes)

    @property
    def head_seed(self) -> int | None:
        """Of the draw of a fresh head; None = it begins at 0."""
        return self.seed if isinstance(self.algorithm, RewardBtConfig) else None

    @property
    def rows_per_step(self) -> int:
        """Pairs or answers of a step."""
        data = self.data
        return data.pairs_per_step if isinstance(data, RewardPairsConfig) else data.answers_per_step
