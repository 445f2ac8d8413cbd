"""`align replay`: stored rewards, the run's own settings, other ones, the page. No formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align.config.pipeline import PipelineConfig
from align.errors import AlignError
from align.inspect.audit.command import checked_names, default_weights
from align.inspect.replay.page import replay_page
from align.inspect.replay.run import replay, reproduces, reshaped
from align.inspect.replay.settings import ReplaySettings, changed
from align.inspect.replay.sources import Stored
from align.report.tables import Page


def replay_stored(
    stored: Stored,
    config: Any = None,
    *,
    weights: Mapping[str, float] | None = None,
    combine: str | None = None,
    estimator: str | None = None,
    overrides: Sequence[str] = (),
) -> Page:
    """Replay stored rewards with other settings and compare.

    Args:
        stored: the rewards.
        config: root dataclass of the run, whose `rewards` and `pipeline` are its own settings (Any: of any branch);
            None is every reward with weight 1 in the default pipeline.
        weights: by name; the others stay.
        combine: see `changed`.
        estimator: see `changed`.
        overrides: see `changed`.

    Raises:
        AlignError: nothing is changed, a reward that is not there, or settings that cannot be replayed.
    """
    if not weights and combine is None and estimator is None and not overrides:
        raise AlignError(
            "nothing is changed, so there is nothing to replay.",
            "Give other settings: --weights a=1,b=0.5, --combine soft_min, --estimator rloo, or pipeline.KEY=VALUE.",
        )
    own = ReplaySettings(
        weights=default_weights(stored.names, getattr(config, "rewards", ())),
        pipeline=getattr(config, "pipeline", PipelineConfig()),
    )
    checked_names(weights or {}, stored.names, stored.source)
    other = changed(own, weights=weights, combine=combine, estimator=estimator, overrides=overrides)
    if stored.compared:
        _, check = reproduces(stored.tables, own)
        before = stored.tables
    else:
        check = "No advantages were made of these rewards; compared is what the run's own settings make of them."
        before = reshaped(stored.tables, own)
    return replay_page(stored, replay(before, other), _words(weights, combine, estimator, overrides), check)


def _words(
    weights: Mapping[str, float] | None, combine: str | None, estimator: str | None, overrides: Sequence[str]
) -> str:
    parts = [f"{name} weighs {value:g}" for name, value in (weights or {}).items()]
    parts += [f"combined by {combine}"] if combine else []
    parts += [f"estimator {estimator}"] if estimator else []
    return ", ".join([*parts, *overrides])
