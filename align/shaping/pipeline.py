"""From the table of rewards to the signal that the loss learns from; every stage is kept for the log.

    values [n, k]  --combine-->  scores [n]  --base estimator-->  advantages  --clip-->  Signal

It runs on the gathered rows of all processes, so every process computes the same signal and keeps its own rows. The
same object serves pictures and texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.rules import describe_advantages, estimate_with
from align.config.pipeline import PipelineConfig, WeightedSum
from align.groups import group_std
from align.shaping import combine
from align.types import RewardTable, Signal

COMBINATIONS: dict[type, Callable[..., Tensor]] = {WeightedSum: combine.weighted_sum}
BASE = "base."  # prefix of the estimator's state in the pipeline's

StateValue = Tensor | int | float | str


class SignalPipeline:
    """Rewards to advantages, as configured. Holds the statistics that outlive a step.

    Args:
        config: which combination, which estimator, which clip.
    """

    def __init__(self, config: PipelineConfig) -> None:
        if config.clip is not None and config.clip <= 0:
            raise ValueError(f"`pipeline.clip` must be above 0, found {config.clip}. `null` switches clipping off.")
        self.config = config
        self._base_state: dict[str, StateValue] = {}

    def __call__(self, table: RewardTable, group_ids: Int[Tensor, "n"]) -> Signal:
        """The signal of a whole batch.

        Args:
            table: rewards of all processes' rows.
            group_ids: equal ids answer the same prompt.

        Returns:
            Scores, advantages (float32, zero where unscored) and one scalar for the log per stage.

        Raises:
            ValueError: every weight is 0.
        """
        if not (table.weights != 0).any():
            raise ValueError(
                f"all rewards ({', '.join(table.names) or 'none'}) have weight 0: there is nothing to learn from. "
                "Give one of them a weight."
            )
        scores = self._combined(table)
        result = estimate_with(
            self.config.base, AdvantageInputs(rewards=scores, group_ids=group_ids), state=self._base_state or None
        )
        self._base_state = dict(result.state)
        advantages = _clipped(result.advantages, self.config.clip)
        return Signal(scores=scores, advantages=advantages, stats=_stats(table, scores, group_ids, result, advantages))

    def state_dict(self) -> dict[str, StateValue]:
        """What the next step's signal depends on; flat."""
        return {BASE + name: value for name, value in self._base_state.items()}

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        """Inverse of `state_dict`."""
        unknown = [name for name in state if not name.startswith(BASE)]
        if unknown:
            raise ValueError(
                f"the reward pipeline has no state {unknown}; the checkpoint is of another version or place."
            )
        self._base_state = {name.removeprefix(BASE): value for name, value in state.items()}

    def _combined(self, table: RewardTable) -> Float[Tensor, "n"]:
        options = {name: value for name, value in asdict(self.config.combine).items() if name != "kind"}
        return COMBINATIONS[type(self.config.combine)](table.values, table.weights, **options)


def _clipped(advantages: Tensor, clip: float | None) -> Tensor:
    return advantages if clip is None else advantages.clamp(-clip, clip)


def _stats(
    table: RewardTable, scores: Tensor, group_ids: Tensor, result: AdvantageResult, advantages: Tensor
) -> dict[str, float]:
    """Numbers of every stage. A mean over nothing is left out rather than logged as NaN."""
    stats: dict[str, float] = {}
    for name, column in zip(table.names, table.values.double().unbind(dim=1), strict=True):
        scored = column[~column.isnan()]
        if len(scored):
            stats[f"rewards/{name}/mean"] = float(scored.mean())
            stats[f"rewards/{name}/std"] = float(scored.std()) if len(scored) > 1 else 0.0
    scored = scores[~scores.isnan()].double()
    if len(scored):
        stats["reward"] = float(scored.mean())
        stats["reward_std"] = _mean_group_std(scored, group_ids[~scores.isnan()])
    clipped = float((advantages != result.advantages).double().mean()) if advantages.numel() else 0.0
    return {**stats, **result.stats, **describe_advantages(advantages), "advantages/frac_clipped": clipped}


def _mean_group_std(scores: Float[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> float:
    """Standard deviation within a group (unbiased), averaged over samples: what the estimator has to compare."""
    return float(torch.mean(group_std(scores, group_ids)))
