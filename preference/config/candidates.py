"""Candidates: answers that are sampled, scored and paired by `align generate | score | pairs`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from align.config.numbers import Count, NonNegativeFloat, PositiveFloat, PositiveInt
from align.config.pipeline import PipelineConfig
from align.config.shaping import Combine, FixedWeights, Transform, WeightedSum, Weights
from align.config.shared import RewardConfig
from preference.config.data import DataPath

Probability = Annotated[float, Field(gt=0, le=1)]
"""A share of probability that is not 0."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """A server with an OpenAI-style interface, such as vLLM's."""

    url: str
    """Address up to and with the version: `http://localhost:8000/v1`."""
    model: str
    """Name of the model there."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` sends turns, and the server applies its template; `completions` sends the prompt's text as it is."""
    token_env: str | None = None
    """Environment variable with a bearer token. The token itself is in no config, no file and no log."""
    in_flight: PositiveInt = 8
    """Requests at once."""
    timeout: PositiveFloat = 120.0
    """Seconds for one request."""
    retries: Count = 5
    """Further tries after the first, on broken connections, time-outs, 429 and 5xx."""
    backoff: NonNegativeFloat = 1.0
    """Seconds before the first further try; doubled each time."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Further fields of a request, such as `stop` or `repetition_penalty` (Any: the server's own)."""


@dataclass(frozen=True, kw_only=True)
class BestWorst:
    """One pair of each prompt: its best and its worst candidate."""

    kind: Literal["best_worst"] = "best_worst"
    """Selects this way."""
    min_margin: NonNegativeFloat = 0.0
    """Smallest difference of scores; equal scores never make a pair."""


@dataclass(frozen=True, kw_only=True)
class AllPairs:
    """Every two candidates of a prompt whose scores differ."""

    kind: Literal["all"] = "all"
    """Selects this way."""
    min_margin: NonNegativeFloat = 0.0
    """Smallest difference of scores; equal scores never make a pair."""


@dataclass(frozen=True, kw_only=True)
class Dominating:
    """Every two candidates of which one is at least as good in every weighted reward and better in one."""

    kind: Literal["dominating"] = "dominating"
    """Selects this way. Weights say only which way is better (their sign), not how much each counts."""


Selection = Annotated[BestWorst | AllPairs | Dominating, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class CandidatesConfig:
    """Answers to prompts for pairs: how they are sampled, scored and paired."""

    prompts: DataPath | None = None
    """A file with a column `prompt`, or text with one prompt a line; `null`: named on the command line."""
    per_prompt: PositiveInt = 4
    """Answers to each prompt, each from its own seed."""
    max_new_tokens: PositiveInt = 256
    """Longest answer."""
    temperature: NonNegativeFloat = 0.8
    """0 takes the likeliest token each time."""
    top_p: Probability = 0.95
    """Sample from the smallest set of tokens with this much probability; 1 = from all."""
    batch_size: PositiveInt = 16
    """Answers that are sampled at once; changes speed and memory only."""
    server: ServerConfig | None = None
    """Where answers are asked for by HTTP; `null` samples them with `model` in this process."""
    rewards: tuple[RewardConfig, ...] = ()
    """What scores the answers."""
    transforms: tuple[Transform, ...] = ()
    """What happens to each reward before they are combined, one after the other; groups are the prompts."""
    weights: Weights = field(default_factory=FixedWeights)
    """Where the weights come from."""
    required: tuple[str, ...] = ()
    """Rewards without which an answer is unscored."""
    combine: Combine = field(default_factory=WeightedSum)
    """How several rewards become one score."""
    pairs: Selection = field(default_factory=BestWorst)
    """Which answers make a pair."""
    finished_only: bool = False
    """Leave out answers that were cut at `max_new_tokens`."""

    def shaping(self) -> PipelineConfig:
        """From rewards to one score, as a pipeline without estimator."""
        return PipelineConfig(
            transforms=self.transforms, weights=self.weights, required=self.required, combine=self.combine
        )
