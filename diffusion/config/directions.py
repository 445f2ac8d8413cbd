"""Settings of Directional Preference Alignment for pictures: which directions, how the model is told. Torch-free.

The method is any on-line one; `diffusion/directions` tells the model, `pipeline.weights: {kind: drawn_direction}`
scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from align.config.directions import Cap, Components, Directions
from align.config.numbers import Count, PositiveFloat, PositiveInt, Share


@dataclass(frozen=True, kw_only=True)
class PromptCondition:
    """The direction as whole numbers in the text that the text encoders read; rewards see the prompt without it."""

    kind: Literal["prompt"] = "prompt"
    """Selects this way of telling the model."""
    template: str | None = None
    """Text with a slot for each objective, such as `[shapes {shapes}]`; `null`: `shapes {shapes}, ...`, few words."""
    position: Literal["before", "after"] = "before"
    """Where it stands; a prompt that is cut off at its end loses what stands after it."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingCondition:
    """The direction through two layers of its own, added to the embedding of the time; zero before training."""

    kind: Literal["embedding"] = "embedding"
    """Selects this way of telling the model."""
    hidden: PositiveInt = 256
    """Width of the layer between direction and embedding."""
    frequencies: Count = 4
    """Sines and cosines of 1, 2, 4, ... half turns of each component; 0 gives the components alone."""
    dropout: Share = 0.1
    """Share of the groups that are drawn and trained without a direction, so that guidance over it has a contrast."""


Condition = Annotated[PromptCondition | EmbeddingCondition, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class ShownConfig:
    """Held-out evaluation: the same prompts and noise under several directions, and whether the policy follows."""

    directions: tuple[Components, ...] = ()
    """Directions that are asked for; empty: `count` of those that training draws from."""
    count: PositiveInt = 5
    """How many."""
    prompts: PositiveInt | None = None
    """Use so many of the held-out prompts, classes taken in turn; `null` takes all."""
    guidance: PositiveFloat = 1.0
    """Guidance over the direction, also of `align generate`: 1 = none (half the network calls). Embedding only."""
    reference: float = -2.0
    """Of the hypervolume, in every objective, in deviations of the base model's pictures from their mean."""


@dataclass(frozen=True, kw_only=True)
class DirectionsConfig:
    """Directional Preference Alignment: one policy for all trade-offs between the rewards. arXiv:2402.18571.

    Each group of a step asks for one direction, and `pipeline.weights: {kind: drawn_direction}` scores along it.
    """

    sample: Directions = field(default_factory=Cap)
    """Which directions are drawn in training."""
    condition: Condition = field(default_factory=EmbeddingCondition)
    """How the model is told."""
    shown: ShownConfig = field(default_factory=ShownConfig)
    """Held-out evaluation."""

    def shown_for(self, names: tuple[str, ...]) -> tuple[Components, ...]:
        """Directions of the held-out evaluation.

        Args:
            names: the objectives.
        """
        return self.shown.directions or self.sample.shown(names, self.shown.count)
