"""From the table of rewards to the signal that the loss learns from; every stage is kept for the log.

    values [n, k]  --transforms, weights, combine-->  scores [n]  --base, shapers-->  advantages  --clip-->  Signal

It runs on the gathered rows of all processes, so every process computes the same signal and keeps its own rows. The
same object serves pictures and texts.

Two ways to compare several rewards, as lists of stages:

    sum, then normalise           combine: weighted_sum                               base: grpo
    normalise, then sum (GDPO)    transforms: [zscore], combine: weighted_sum         base: grpo, scale: batch
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.rules import describe_advantages, estimate_with
from align.config.needs import Need, needs_of
from align.config.pipeline import PipelineConfig
from align.shaping.describe import describe_rewards, describe_scores
from align.shaping.inputs import check_collected, check_sources, inputs_from_rewards
from align.shaping.score import TRANSFORM, WEIGHTS, Shaping
from align.shaping.table import Columns, columns_of
from align.types import RewardTable, Signal

BASE = "base."  # prefixes of the estimators' state in the pipeline's
SHAPER = "shapers."

StateValue = Tensor | int | float | str
State = dict[str, StateValue]


class SignalPipeline:
    """Rewards to advantages, as configured. Holds the statistics that outlive a step.

    Args:
        config: which transforms, weights, combination, estimator, shapers, clip.
    """

    def __init__(self, config: PipelineConfig) -> None:
        if config.clip is not None and config.clip <= 0:
            raise ValueError(f"`pipeline.clip` must be above 0, found {config.clip}. `null` switches clipping off.")
        check_sources(config.inputs)
        self.config = config
        self.shaping = Shaping(config)
        self._states: dict[str, State] = {}
        """State of the estimators, by prefix."""

    def __call__(
        self,
        table: RewardTable,
        group_ids: Int[Tensor, "n"],
        *,
        update: bool = True,
        classes: Sequence[str] = (),
        **inputs: Any,
    ) -> Signal:
        """The signal of a whole batch.

        Args:
            table: rewards of all processes' rows.
            group_ids: equal ids answer the same prompt.
            update: let running statistics, schedules and dual variables move on by one step; false in evaluation.
            classes: of the rows' prompts, for the log of weights that depend on the prompt; empty where they have none.
            inputs: further fields of `AdvantageInputs` that the estimators need (Any: each has its own type). A
                `RewardTable`, one row per sample, is shaped like the rewards: a baseline in the unit of the scores. A
                tuple of them, one per column, becomes `[n, columns]`. And `prompt_weights`: reward -> weight of each
                row's prompt, `[n]`, for `weights: {kind: adapter}`; `drawn_directions`: the same of each row's group,
                for `weights: {kind: drawn_direction}`.

        Returns:
            Scores, advantages (float32, zero where unscored) and scalars for the log of every stage.

        Raises:
            ValueError: no rows, every weight 0, a reward that the settings name and the table lacks, an input that an
                estimator needs.
        """
        prompt_ids = inputs.get("prompt_ids")
        brought = [inputs.pop(name, None) for name in ("prompt_weights", "drawn_directions")]
        weights = next((one for one in brought if one is not None), None)
        columns = columns_of(table, group_ids, prompt_ids=prompt_ids, update=update, prompt_weights=weights)
        shaped = self.shaping(columns)
        scores = shaped.scores.to(table.values.dtype)

        def beside(other: RewardTable) -> Tensor:
            columns = columns_of(other, group_ids, prompt_ids=prompt_ids, update=False)
            return self.shaping.beside(columns, shaped).to(scores.dtype)

        for name, other in inputs.items():
            if isinstance(other, RewardTable):
                inputs[name] = beside(other)
            elif isinstance(other, tuple) and all(isinstance(part, RewardTable) for part in other):
                inputs[name] = torch.stack([beside(part) for part in other], dim=1)
        given = {**inputs_from_rewards(self.config.inputs, columns), **inputs}
        result = self._compared(AdvantageInputs(rewards=scores, group_ids=group_ids, **given), update)
        advantages = _clipped(result.advantages, self.config.clip)
        source, combine = self.shaping.source, self.config.combine
        stats = {
            **describe_rewards(columns, shaped, combine, changing=source.changes, classes=classes),
            **self._stats(columns, scores, result, advantages, inputs.get("mask")),
        }
        return Signal(scores=scores, advantages=advantages, stats=stats, aux=result.aux)

    def needs(self) -> tuple[Need, ...]:
        """What a rollout has to bring for transforms and estimators, under their options; no reward fills these."""
        return needs_of(self.config)

    def check_collected(self, fields: Iterable[str]) -> None:
        """Raise a ValueError naming what the estimators need and a rollout that brings these fields does not have."""
        check_collected(self.config, fields)

    def state_dict(self) -> State:
        """What the next step's signal depends on; flat."""
        estimators = {prefix + name: value for prefix, state in self._states.items() for name, value in state.items()}
        return {**self.shaping.state_dict(), **estimators}

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        """Inverse of `state_dict`."""
        prefixes = (BASE, *(_shaper_prefix(number) for number in range(len(self.config.shapers))))
        unknown = [name for name in state if not name.startswith((*prefixes, WEIGHTS, TRANSFORM))]
        if unknown:
            raise ValueError(
                f"the reward pipeline has no state {unknown}; the checkpoint is of another version or place."
            )
        shaping = {name: value for name, value in state.items() if name.startswith((WEIGHTS, TRANSFORM))}
        self.shaping.load_state_dict({name: _number(value) for name, value in shaping.items()})
        self._states = {
            prefix: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            for prefix in prefixes
        }

    def _compared(self, inputs: AdvantageInputs, update: bool) -> AdvantageResult:
        """Base estimator, then the shapers in their order; the numbers for the log of all of them."""
        result = self._estimated(BASE, self.config.base, inputs, update)
        for number, options in enumerate(self.config.shapers):
            before = result
            shaped = replace(inputs, advantages=before.advantages)
            result = self._estimated(_shaper_prefix(number), options, shaped, update)
            result = replace(result, stats={**result.stats, **before.stats}, aux={**before.aux, **result.aux})
        return result

    def _estimated(self, prefix: str, options: Any, inputs: AdvantageInputs, update: bool) -> AdvantageResult:
        result = estimate_with(options, inputs, state=self._states.get(prefix) or None)
        if update:
            self._states[prefix] = dict(result.state)
        return result

    def _stats(
        self,
        columns: Columns,
        scores: Float[Tensor, "n"],
        result: AdvantageResult,
        advantages: Tensor,
        mask: Tensor | None,
    ) -> dict[str, float]:
        """Numbers of the stages behind the rewards."""
        clipped = float((advantages != result.advantages).double().mean()) if advantages.numel() else 0.0
        return {
            **describe_scores(scores, columns.ids),
            **result.stats,
            **describe_advantages(advantages, mask),
            "advantages/frac_clipped": clipped,
        }


def _number(value: StateValue) -> float | Tensor:
    return value if isinstance(value, Tensor) else float(value)


def _shaper_prefix(number: int) -> str:
    return f"{SHAPER}{number}."


def _clipped(advantages: Tensor, clip: float | None) -> Tensor:
    return advantages if clip is None else advantages.clamp(-clip, clip)
