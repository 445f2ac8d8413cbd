"""Who asks for what: the direction of each group of a step, and the prompts of a model that is told it.

    v(group) ~ `directions.sample`            keyed by (run's seed, group); a group is one prompt in one step
    told:     v(group), or none with probability `dropout` (embedding only), keyed alike
    scored:   along v(group), always

So a direction depends on no process, no batch and no earlier draw, all pictures of a group share it, and a method that
trains on a picture tells the model what it was told when it drew it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.config.directions import Directions
from align.control import Vector, draw_directions, label_of, vector_of
from align.engine.random import generator
from align.shaping.directions import from_integers, to_text
from diffusion.config import DiffusionRun
from diffusion.config.directions import Condition, EmbeddingCondition, PromptCondition
from diffusion.directions.model import told_to
from diffusion.models.base import Conditioning, DiffusionModel


@dataclass(frozen=True, kw_only=True)
class Asker:
    """The directions of a run.

    Attributes:
        names: the objectives.
        sample: what is drawn.
        condition: how the model is told.
        shown: the directions of the held-out evaluation.
        seed: of the run.
    """

    names: tuple[str, ...]
    sample: Directions
    condition: Condition
    shown: tuple[Vector, ...]
    seed: int

    @classmethod
    def of(cls, config: DiffusionRun) -> Asker | None:
        """From settings; None where a run has no directions.

        Raises:
            AlignError: a direction with an unknown objective, or of length 0.
        """
        given, names = config.directions, config.objectives()
        if given is None:
            return None
        shown = dict.fromkeys(vector_of(components, names) for components in given.shown_for(names))
        return cls(names=names, sample=given.sample, condition=given.condition, shown=tuple(shown), seed=config.seed)

    def direction(self, group: int) -> Vector:
        """What a group is scored along."""
        return draw_directions(self.sample, self.names, 1, self.seed, group)[0]

    def told(self, group: int) -> Vector | None:
        """What the model is told for it; None = nothing."""
        share = _dropout(self.condition)
        draw = float(torch.rand((), generator=generator(self.seed, group, "no_direction"))) if share > 0 else 1.0
        return None if draw < share else self.direction(group)

    def encode(self, model: DiffusionModel, prompts: Sequence[str], vectors: Sequence[Vector | None]) -> Conditioning:
        """One row for each prompt under its own direction."""
        return _encoded(self.condition, self.names, model, prompts, vectors)

    def texts(self, prompts: Sequence[str], vector: Vector) -> tuple[str, ...]:
        """What the text encoders read under a direction."""
        return tuple(_text(self.condition, self.names, prompt, vector) for prompt in prompts)

    def weights(self, group_ids: Int[Tensor, "n"]) -> dict[str, Float[Tensor, "n"]]:
        """Objective -> its component of each row's direction: `drawn_directions` of a `SignalPipeline`."""
        groups, places = group_ids.unique(return_inverse=True)
        units = torch.stack([from_integers(self.direction(group)) for group in groups.tolist()])
        return dict(zip(self.names, units[places].unbind(dim=1), strict=True))

    def label(self, vector: Vector) -> str:
        """A direction as people read it."""
        return label_of(vector, self.names)

    def classes(self, group_ids: Int[Tensor, "n"]) -> list[str]:
        """Label of the shown direction that is nearest to each row's own."""
        groups, places = group_ids.unique(return_inverse=True)
        drawn = torch.stack([from_integers(self.direction(group)) for group in groups.tolist()])
        nearest = (drawn @ self._shown_units.T).argmax(dim=1)[places]
        labels = [self.label(vector) for vector in self.shown]
        return [labels[place] for place in nearest.tolist()]

    @cached_property
    def _shown_units(self) -> Float[Tensor, "d k"]:
        return torch.stack([from_integers(vector) for vector in self.shown])


def means_by_class(names: Sequence[str], values: Float[Tensor, "n k"], classes: Sequence[str]) -> Mapping[str, float]:
    """`directions/<class>/<reward>`: mean of each reward over the scored rows of each class of a step."""
    found: dict[str, float] = {}
    for label in sorted(set(classes)):
        rows = values[[one == label for one in classes]].double()
        for name, column in zip(names, rows.unbind(dim=1), strict=True):
            scored = column[column.isfinite()]
            if len(scored):
                found[f"directions/{label}/{name}"] = float(scored.mean())
    return found


def default_template(names: Sequence[str]) -> str:
    """Our words, few enough for CLIP's 77 tokens: `shapes {shapes}, brevity {brevity}.`"""
    return ", ".join(f"{name} {{{name}}}" for name in names) + "."


@singledispatch
def _dropout(condition: Any) -> float:
    """Share of the groups that are told nothing (`Any`: the members of `Condition`)."""
    return 0.0


@_dropout.register
def _(condition: EmbeddingCondition) -> float:
    return condition.dropout


@singledispatch
def _text(condition: Any, names: Sequence[str], prompt: str, vector: Vector) -> str:
    """What the text encoders read (`Any`: the members of `Condition`)."""
    return prompt


@_text.register
def _(condition: PromptCondition, names: Sequence[str], prompt: str, vector: Vector) -> str:
    template = condition.template or default_template(names)
    words = to_text(template, names, torch.tensor(vector, dtype=torch.float64) / 100)
    return f"{words} {prompt}" if condition.position == "before" else f"{prompt} {words}"


@singledispatch
def _encoded(
    condition: Any,
    names: Sequence[str],
    model: DiffusionModel,
    prompts: Sequence[str],
    vectors: Sequence[Vector | None],
) -> Conditioning:
    """Rows of prompts under their directions (`Any`: the members of `Condition`)."""
    raise TypeError(f"nobody tells a model of {type(condition).__name__}")


@_encoded.register
def _(
    condition: PromptCondition,
    names: Sequence[str],
    model: DiffusionModel,
    prompts: Sequence[str],
    vectors: Sequence[Vector | None],
) -> Conditioning:
    return model.encode(
        [
            prompt if vector is None else _text(condition, names, prompt, vector)
            for prompt, vector in zip(prompts, vectors, strict=True)
        ]
    )


@_encoded.register
def _(
    condition: EmbeddingCondition,
    names: Sequence[str],
    model: DiffusionModel,
    prompts: Sequence[str],
    vectors: Sequence[Vector | None],
) -> Conditioning:
    rows = [
        torch.zeros(len(names), dtype=torch.float64) if vector is None else from_integers(vector) for vector in vectors
    ]
    return told_to(model.encode(prompts), torch.stack(rows))
