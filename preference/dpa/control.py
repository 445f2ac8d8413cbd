"""How a direction is asked for and how answers are scored along it.

    R(x, v, y) = v . C r(x, y),   ||v|| = 1                    Wang et al., arXiv:2402.18571, section 3

C mixes rewards into objectives, r is brought to a common scale. v is the vector of the *printed* integers, made unit
again, so that the text and the score mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from align.config.directions import Components, Directions
from align.control import Vector, draw_directions, label_of, vector_of
from align.errors import AlignError, did_you_mean
from align.shaping.directions import from_integers, to_text
from align.shaping.steering import Scale
from preference.dpa.config import DpaConfig
from preference.formats import TextRow


@dataclass(frozen=True, kw_only=True)
class Control:
    """Objectives of a policy and the words that ask for them.

    Attributes:
        names: of the objectives.
        mixes: C, objectives x rewards.
        template: control text with a slot for each objective.
        placement: "system", "prefix" or "none".
    """

    names: tuple[str, ...]
    mixes: Float[Tensor, "c k"]
    template: str
    placement: str = "system"

    @classmethod
    def of(cls, config: DpaConfig, rewards: tuple[str, ...]) -> Control:
        """From settings.

        Args:
            config: of the method.
            rewards: names of the columns of the reward table.

        Raises:
            AlignError: an objective names a reward that is not there, or the template has no slot for an objective.
        """
        objectives = config.objectives or {name: {name: 1.0} for name in rewards}
        rows = [_mix(name, mix, rewards) for name, mix in objectives.items()]
        template = config.template or default_template(tuple(objectives))
        missing = [name for name in objectives if f"{{{name}}}" not in template]
        if missing:
            raise AlignError(
                f"the control text has no slot for the objective `{missing[0]}`.",
                f"Write {{{missing[0]}}} in `algorithm.template` where its number goes.",
            )
        return cls(names=tuple(objectives), mixes=torch.stack(rows), template=template, placement=config.placement)

    def vector(self, components: Components) -> Vector:
        """The integers of a direction given by names, in any length.

        Raises:
            AlignError: an unknown objective, a direction of length 0, or a number that is not finite.
        """
        return vector_of(components, self.names)

    def text(self, vector: Vector) -> str:
        """The control text."""
        return to_text(self.template, self.names, torch.tensor(vector, dtype=torch.float64) / 100)

    def asked(self, row: TextRow, vector: Vector) -> TextRow:
        """A prompt that asks for a direction: in its system turn (added, or at the end of its own), or before it."""
        if self.placement == "none":
            return row
        text = self.text(vector)
        if isinstance(row.prompt, str):
            return replace(row, prompt=f"{text}\n\n{row.prompt}")
        first, *rest = row.prompt
        if self.placement == "prefix":
            place = next((i for i, turn in enumerate(row.prompt) if turn["role"] == "user"), 0)
            turns = list(row.prompt)
            turns[place] = {**turns[place], "content": f"{text}\n\n{turns[place]['content']}"}
            return replace(row, prompt=tuple(turns))
        if first["role"] == "system":
            return replace(row, prompt=({**first, "content": f"{first['content']}\n\n{text}"}, *rest))
        return replace(row, prompt=({"role": "system", "content": text}, first, *rest))

    def values(self, rewards: Float[Tensor, "n k"], scale: Scale) -> Float[Tensor, "n c"]:
        """C r: each answer's objectives. A reward of weight 0 in an objective may be unscored."""
        scaled = scale(rewards)
        parts = torch.where(self.mixes.unsqueeze(0) != 0, self.mixes.unsqueeze(0) * scaled.unsqueeze(1), 0.0)
        return parts.sum(dim=2)

    def scores(self, rewards: Float[Tensor, "n k"], vectors: list[Vector], scale: Scale) -> Float[Tensor, "n"]:
        """v . C r of each answer along its own direction; NaN where an objective that counts is unscored."""
        units = torch.stack([from_integers(vector) for vector in vectors])
        return torch.where(units != 0, units * self.values(rewards, scale), 0.0).sum(dim=1)

    def label(self, vector: Vector) -> str:
        """A direction as people read it: `relevance 80, brevity 60`."""
        return label_of(vector, self.names)


def default_template(names: tuple[str, ...]) -> str:
    """Our words for any objectives."""
    terms = " + ".join(f"{{{name}}} x {name}" for name in names)
    return f"Answer well and safely. Aim for the best value of {terms}."


def draw(directions: Directions, control: Control, count: int, *key: int | str) -> list[Vector]:
    """Random directions as their prompts show them; a pure function of the key."""
    return draw_directions(directions, control.names, count, *key)


def _mix(name: str, mix: Mapping[str, float], rewards: tuple[str, ...]) -> Float[Tensor, "k"]:
    unknown = [reward for reward in mix if reward not in rewards]
    if unknown or not any(mix.values()):
        found = (
            f"names `{unknown[0]}`, which is no reward{did_you_mean(unknown[0], rewards)}" if unknown else "is empty"
        )
        raise AlignError(f"`algorithm.objectives.{name}` {found}.", f"The rewards are {', '.join(rewards) or 'none'}.")
    return torch.tensor([float(mix.get(reward, 0.0)) for reward in rewards], dtype=torch.float64)
