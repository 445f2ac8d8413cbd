"""`align audit`: where samples, weights and shares come from. No formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.config.checks import reward_name
from align.config.pipeline import PipelineConfig
from align.config.shaping import FixedWeights, Lexicographic
from align.config.shaping.combine import takes_negative
from align.errors import AlignError, did_you_mean
from align.inspect.audit.findings import Audit, audit
from align.inspect.audit.prompt_weights import weighed
from align.inspect.audit.rows import ScoredRows
from align.shaping.describe import LINEAR, shares_of_score
from align.shaping.score import Shaping
from align.shaping.table import columns_of
from align.types import RewardTable

if TYPE_CHECKING:
    from align.config.shared import RewardConfig


def audit_rows(rows: ScoredRows, weights: Mapping[str, float] | None = None, config: Any = None) -> Audit:
    """Audit scored samples with the score that a run makes of them.

    Args:
        rows: the samples.
        weights: by name, instead of those of the settings; rewards that are not named keep theirs.
        config: root dataclass that says what makes the score (Any: of any branch, see `scoring_of`); None weighs
            every reward 1 in a plain sum.

    Raises:
        AlignError: a weight of a reward that is not there, no weight at all, or a negative one that is not allowed.
    """
    rewards, pipeline = scoring_of(config)
    given = _weights(rows, weights, rewards)
    _check_signs(rows.names, given, pipeline)
    weighing, by_row = weighed(rows, given, pipeline)
    shown = given if by_row is None else by_row.mean(dim=0)
    return audit(rows, shown, _shares(rows, given, pipeline, by_row), weighing)


def scoring_of(config: Any) -> tuple[Sequence[RewardConfig], PipelineConfig]:
    """The rewards of some settings and what makes one score of them.

    Args:
        config: root dataclass of any branch (hence `Any`). One whose score has another place than `rewards` and
            `pipeline` says so by a method `scoring`; None has neither.
    """
    own = getattr(config, "scoring", None)
    return own() if own is not None else (getattr(config, "rewards", ()), getattr(config, "pipeline", PipelineConfig()))


def _weights(
    rows: ScoredRows, weights: Mapping[str, float] | None, rewards: Sequence[RewardConfig]
) -> Float[Tensor, "k"]:
    """One weight a column: as asked, as configured, or 1 each."""
    scored = {name: value for name, value in rows.weights.items() if name in rows.names}
    own = {**default_weights(rows.names, rewards), **({} if rewards else scored)}
    found = {**own, **checked_names(weights or {}, rows.names, rows.source)}
    if not any(found.values()):
        raise AlignError("every weight is 0, so there is no score.", "Give a reward a weight with `--weights name=1`.")
    return torch.tensor([found[name] for name in rows.names], dtype=torch.float64)


def _check_signs(names: Sequence[str], weights: Float[Tensor, "k"], pipeline: PipelineConfig) -> None:
    """Refuse a cost as it is where the combination takes none."""
    if takes_negative(pipeline.combine) or isinstance(pipeline.combine, Lexicographic):
        return
    for name, weight in zip(names, weights.tolist(), strict=True):
        if weight < 0:
            raise AlignError(
                f"the weight of `{name}` is negative ({weight:g}), but `combine: {pipeline.combine.kind}` takes no "
                "such weight.",
                "Give a config that allows it (`combine: {kind: weighted_sum, allow_negative: true}`), or a reward "
                "that is turned round.",
            )


def default_weights(names: Sequence[str], rewards: Sequence[RewardConfig]) -> dict[str, float]:
    """The configured weight of each column, 0 for one that is only evaluated; 1 each where none is configured."""
    configured = {reward_name(reward): reward.weight for reward in rewards}
    known = any(name in configured for name in names)
    return {name: configured.get(name, 0.0) if known else 1.0 for name in names}


def checked_names(weights: Mapping[str, float], names: Sequence[str], source: str) -> Mapping[str, float]:
    """The weights, each of a reward that is there.

    Raises:
        AlignError: one is not; names the nearest.
    """
    for name in weights:
        if name not in names:
            raise AlignError(
                f"a weight is given for `{name}`, which {source} has no scores of.{did_you_mean(name, names)}",
                f"There are: {', '.join(names)}.",
            )
    return weights


def _shares(
    rows: ScoredRows, weights: Float[Tensor, "k"], pipeline: PipelineConfig, by_row: Float[Tensor, "n k"] | None
) -> Float[Tensor, "k"] | None:
    """Shares of the score's variance; None where the score is no sum of rewards, or stages need columns not stored.

    `by_row`: weights that an adapter has inferred, as the score uses them.
    """
    if not isinstance(pipeline.combine, LINEAR):
        return None
    table = RewardTable(names=rows.names, values=rows.values.float(), weights=weights)
    columns = columns_of(table, rows.group_ids)
    if by_row is not None:
        shaped = Shaping(replace(pipeline, weights=FixedWeights()))(columns)
        return shares_of_score(columns, replace(shaped, weights=by_row))
    try:
        return shares_of_score(columns, Shaping(pipeline)(columns))
    except ValueError:  # a stage names a reward that these rows do not have
        return None
