"""From the table of rewards to one score per sample: transforms -> weights -> combine, with every stage kept.

    raw [n, k]  --transforms, one column at a time-->  utilities [n, k]  --weights, combine-->  scores [n]

The order of the list is the order of operations. Whether rewards are summed and then compared within the group, or
compared and then summed (GDPO), is a matter of what stands in the list, not of a switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.config.pipeline import PipelineConfig
from align.config.shaping import Lexicographic
from align.shaping.sources import SOURCES
from align.shaping.stages import COMBINATIONS, TRANSFORMS, Memory, Place, named_rewards
from align.shaping.table import Columns, equal_rows_agree

WEIGHTS = "weights."
TRANSFORM = "transforms."


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """Every stage of a step's shaping.

    Attributes:
        utilities: after the transforms, float64; raw where a reward is a metric.
        weights: of this step.
        trained: which rewards can have a weight in some step.
        scores: one per sample, NaN where unscored.
    """

    utilities: Float[Tensor, "n k"]
    weights: Float[Tensor, "k"] | Float[Tensor, "n k"]
    trained: Bool[Tensor, "k"]
    scores: Float[Tensor, "n"]


class Shaping:
    """Rewards to scores, as configured. Holds running statistics, schedules and dual variables.

    Args:
        config: which transforms, which weights, which combination.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.source = SOURCES[type(config.weights)](config.weights)
        self._memories: dict[tuple[int, str], Memory] = {}

    def __call__(self, columns: Columns) -> Shaped:
        """Scores of a whole batch. With `columns.update` the statistics move on by one step.

        Raises:
            ValueError: nothing is trained on, a reward that is named is not there, or weights that do not fit the
                combination.
        """
        trained = self._trained(columns)
        if not trained.any():
            raise ValueError(
                f"all rewards ({', '.join(columns.names) or 'none'}) have weight 0: there is nothing to learn from. "
                "Give one of them a weight."
            )
        utilities = self._transformed(columns, trained)
        weights = self.source.weights(columns)
        scores = COMBINATIONS[type(self.config.combine)](self.config.combine, utilities, weights, columns)
        scores = torch.where(self._scorable(columns, trained), scores, float("nan"))
        scores = self._agreed(columns, trained, weights, scores)
        if columns.update:
            self.source.advance(columns)
        return Shaped(utilities=utilities, weights=weights, trained=trained, scores=scores)

    def beside(self, columns: Columns, shaped: Shaped) -> Float[Tensor, "n"]:
        """Scores of other samples of the same prompts, row by row beside those that were just shaped.

        The same weights, and statistics that stand still: a baseline in the unit of the scores. Give it nothing that
        compares samples (`align.config.shaping.relative`); the baselines would be compared with each other.

        Args:
            columns: rewards of the other samples, `update` false.
            shaped: what this object made of the samples themselves.
        """
        utilities = self._transformed(columns, shaped.trained)
        scores = COMBINATIONS[type(self.config.combine)](self.config.combine, utilities, shaped.weights, columns)
        return torch.where(self._scorable(columns, shaped.trained), scores, float("nan"))

    def state_dict(self) -> dict[str, float | Tensor]:
        """What the next step's scores depend on; flat."""
        state: dict[str, float | Tensor] = {WEIGHTS + name: value for name, value in self.source.state_dict().items()}
        for (place, reward), memory in self._memories.items():
            state |= {f"{TRANSFORM}{place}.{reward}.{name}": value for name, value in memory.items()}
        return state

    def load_state_dict(self, state: Mapping[str, float | Tensor]) -> None:
        """Inverse of `state_dict`."""
        weights = {
            name.removeprefix(WEIGHTS): float(value) for name, value in state.items() if name.startswith(WEIGHTS)
        }
        if weights:
            self.source.load_state_dict(weights)
        self._memories = {}
        for key, value in state.items():
            if key.startswith(TRANSFORM):
                place, _, rest = key.removeprefix(TRANSFORM).partition(".")
                reward, _, name = rest.rpartition(".")
                self._memories.setdefault((int(place), reward), {})[name] = value

    def _trained(self, columns: Columns) -> Bool[Tensor, "k"]:
        combine = self.config.combine
        if isinstance(combine, Lexicographic):  # the order is the weight
            return columns.marked(combine.order)
        return self.source.trained(columns)

    def _transformed(self, columns: Columns, trained: Bool[Tensor, "k"]) -> Float[Tensor, "n k"]:
        """Each transform in turn on the rewards it names, or on all that are trained on."""
        utilities = list(columns.raw.unbind(dim=1))
        for number, options in enumerate(self.config.transforms):
            chosen = trained if options.rewards is None else columns.marked(options.rewards)
            for k in chosen.nonzero().flatten().tolist():
                memory = dict(self._memories.get((number, columns.names[k]), {}))
                place = Place(columns=columns, memory=memory)
                utilities[k] = TRANSFORMS[type(options)](options, utilities[k], place)
                if memory:
                    self._memories[number, columns.names[k]] = memory
        return torch.stack(utilities, dim=1)

    def _scorable(self, columns: Columns, trained: Bool[Tensor, "k"]) -> Bool[Tensor, "n"]:
        """Samples with every required reward and at least one that is trained on: a gap that was filled is no score."""
        scored = ~columns.raw.isnan()
        required = scored[:, columns.marked(self.config.required)].all(dim=1)
        return required & scored[:, trained].any(dim=1)

    def _agreed(
        self, columns: Columns, trained: Bool[Tensor, "k"], weights: Tensor, scores: Float[Tensor, "n"]
    ) -> Float[Tensor, "n"]:
        """The same score for equal rows of a group; plain sums of raw rewards have it already."""
        if not self.config.transforms and type(self.config.combine) is type(PipelineConfig().combine):
            return scores
        stages = (*self.config.transforms, self.config.combine)
        read = trained | columns.marked(name for stage in stages for name in named_rewards(stage))
        inputs = [columns.raw[:, read], *([weights] if weights.ndim == 2 else [])]
        return equal_rows_agree(scores, torch.cat(inputs, dim=1), columns.ids)
