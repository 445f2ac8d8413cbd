"""Where the pipeline's weights come from. One small class per `kind` of `align/config/shaping.py`; state where needed.

The formulas are in `weights.py` and `directions.py`; here they meet the names of the rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.config.shaping import (
    AdapterWeights,
    ConstraintWeights,
    DirectionWeights,
    DrawnDirection,
    FixedWeights,
    PromptWeights,
    ScheduledWeights,
)
from align.shaping.adapter import anchored
from align.shaping.directions import unit
from align.shaping.table import Columns
from align.shaping.weights import DualVariable, check_prompt_weights, scheduled

State = dict[str, float]


class Fixed:
    """`rewards.N.weight` in every step; the others differ from it where they say so."""

    changes = False
    """Whether the weights are worth a line in the log of each step."""

    def __init__(self, config: FixedWeights) -> None:
        self.config: Any = config  # Any: each subclass has its own settings

    def trained(self, columns: Columns) -> Bool[Tensor, "k"]:
        """Rewards that are trained on in some step."""
        return columns.given != 0

    def weights(self, columns: Columns) -> Float[Tensor, "k"] | Float[Tensor, "n k"]:
        """Weights of this step."""
        return columns.given

    def advance(self, columns: Columns) -> None:
        """A step is over."""

    def state_dict(self) -> State:
        """What the next step's weights depend on."""
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""


class Scheduled(Fixed):
    """Some weights follow a schedule over the steps of the run."""

    changes = True

    def __init__(self, config: ScheduledWeights) -> None:
        super().__init__(FixedWeights())
        self.config = config
        _refuse_doubles(ramp.reward for ramp in config.ramps)
        self.step = 0

    def trained(self, columns: Columns) -> Bool[Tensor, "k"]:
        """The rewards with a schedule, too, also while their weight is 0."""
        return (columns.given != 0) | columns.marked(ramp.reward for ramp in self.config.ramps)

    def weights(self, columns: Columns) -> Float[Tensor, "k"]:
        """Weights of this step."""
        found = columns.given.clone()
        for ramp in self.config.ramps:
            found[columns.position(ramp.reward)] = scheduled(
                self.step, start=ramp.start, end=ramp.end, steps=ramp.steps, begin=ramp.begin, shape=ramp.shape
            )
        return found

    def advance(self, columns: Columns) -> None:
        """Count the step."""
        self.step += 1

    def state_dict(self) -> State:
        """Number of the next step."""
        return {"step": float(self.step)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self.step = int(state["step"])


class Direction(Fixed):
    """A unit vector; rewards that it does not name do not count."""

    def __init__(self, config: DirectionWeights) -> None:
        super().__init__(FixedWeights())
        self.config = config
        _refuse_doubles(component.reward for component in config.components)

    def trained(self, columns: Columns) -> Bool[Tensor, "k"]:
        """The named rewards."""
        return self.weights(columns) != 0

    def weights(self, columns: Columns) -> Float[Tensor, "k"]:
        """The direction, length 1."""
        found = torch.zeros_like(columns.given)
        for component in self.config.components:
            found[columns.position(component.reward)] = component.value
        return unit(found)


class Constrained(Fixed):
    """The weight of a constrained reward is a dual variable that follows how far the constraint is violated."""

    changes = True

    def __init__(self, config: ConstraintWeights) -> None:
        super().__init__(FixedWeights())
        self.config = config
        _refuse_doubles(constraint.reward for constraint in config.constraints)
        self.prices = {
            each.reward: DualVariable(each.at_least, rate=each.rate, start=each.start, largest=each.largest)
            for each in config.constraints
        }

    def trained(self, columns: Columns) -> Bool[Tensor, "k"]:
        """The constrained rewards, too, also while their price is 0."""
        return (columns.given != 0) | columns.marked(self.prices)

    def weights(self, columns: Columns) -> Float[Tensor, "k"]:
        """Weights of this step: the prices as the steps before have left them."""
        found = columns.given.clone()
        for name, price in self.prices.items():
            found[columns.position(name)] = price.value
        return found

    def advance(self, columns: Columns) -> None:
        """Move every price by this step's mean of its raw reward."""
        for name, price in self.prices.items():
            price.update(columns.column(name))

    def state_dict(self) -> State:
        """The prices."""
        return {name: price.value for name, price in self.prices.items()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        for name, price in self.prices.items():
            price.load_state_dict({"value": state[name]})


class PerPrompt(Fixed):
    """Weights of each prompt, from columns of the table."""

    changes = True

    def __init__(self, config: PromptWeights) -> None:
        super().__init__(FixedWeights())
        self.config = config
        _refuse_doubles(each.reward for each in config.columns)

    def trained(self, columns: Columns) -> Bool[Tensor, "k"]:
        """The rewards that have a column of weights."""
        return columns.marked(each.reward for each in self.config.columns)

    def weights(self, columns: Columns) -> Float[Tensor, "n k"]:
        """Weights of each row; the same for all rows of a prompt.

        Raises:
            ValueError: they differ within a prompt, or are missing.
        """
        found = torch.zeros_like(columns.raw)
        for each in self.config.columns:
            found[:, columns.position(each.reward)] = columns.column(each.column)
        check_prompt_weights(found, columns.ids)
        return found


class Inferred(Fixed):
    """Weights of each prompt that a preference adapter has inferred. No gradient, and nothing to keep: they follow from
    the prompt."""

    changes = True

    def __init__(self, config: AdapterWeights) -> None:
        super().__init__(FixedWeights())
        self.config = config

    def weights(self, columns: Columns) -> Float[Tensor, "n k"]:
        """Weights of each row; the same for all rows of a prompt.

        Raises:
            ValueError: nobody has inferred them, they are of other rewards than those that have a weight, or they
                differ within a prompt.
        """
        trained = columns.given != 0
        learned = _given_weights(columns, "inferred weights", "prompt_weights")
        found = torch.zeros_like(columns.raw)
        found[:, trained] = anchored(learned, columns.given[trained], self.config.anchor)
        check_prompt_weights(found, columns.ids)
        return found


class Drawn(Fixed):
    """The direction that was drawn for each row's group. Nothing to keep: it follows from the group."""

    changes = True

    def __init__(self, config: DrawnDirection) -> None:
        super().__init__(FixedWeights())
        self.config = config

    def weights(self, columns: Columns) -> Float[Tensor, "n k"]:
        """A unit vector for each row; the same for all rows of a group.

        Raises:
            ValueError: nobody has drawn any, they are of other rewards than those that have a weight, or they differ
                within a group.
        """
        drawn = _given_weights(columns, "a drawn direction", "drawn_directions")
        found = torch.zeros_like(columns.raw)
        found[:, columns.given != 0] = unit(drawn)
        check_prompt_weights(found, columns.ids)
        return found


def _given_weights(columns: Columns, what: str, field: str) -> Float[Tensor, "n k"]:
    """What came with the rows for each reward that has a weight, float64, without gradient.

    Raises:
        ValueError: it is not there, or of other rewards.
    """
    names = [name for name, own in zip(columns.names, columns.given.tolist(), strict=True) if own != 0]
    given = columns.prompt_weights
    if given is None or set(given) != set(names):
        found = "none" if given is None else ", ".join(given)
        raise ValueError(
            f"`pipeline.weights` expects {what} of {', '.join(names)} for each row (`{field}`), found {found}."
        )
    return torch.stack([given[name].detach().double() for name in names], dim=1)


def _refuse_doubles(names: Iterable[str]) -> None:
    listed = list(names)
    if not listed or len(set(listed)) < len(listed):
        found = ", ".join(listed) or "none"
        raise ValueError(f"`pipeline.weights` must name at least one reward and each at most once, found {found}.")


SOURCES: dict[type, Callable[[Any], Fixed]] = {  # Any: each source has its own settings
    FixedWeights: Fixed,
    ScheduledWeights: Scheduled,
    DirectionWeights: Direction,
    ConstraintWeights: Constrained,
    PromptWeights: PerPrompt,
    AdapterWeights: Inferred,
    DrawnDirection: Drawn,
}
