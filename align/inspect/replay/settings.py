"""The settings of a replay: weights by name, and a pipeline, with changes from the command line. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError, with_config

from align.config.diagnose import problems_of
from align.config.document import Document
from align.config.errors import ConfigError
from align.config.load import adapter, to_plain
from align.config.overrides import apply_overrides, drop_settings_of_old_kinds, parse_override
from align.config.pipeline import PipelineConfig
from align.config.sections import fill_kinds
from align.config.shared import STRICT
from align.errors import AlignError


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """How stored rewards become advantages."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each reward, by name; 0 makes it a metric."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    """Transforms, weights, combination, estimator, shapers, clip."""


def changed(
    settings: ReplaySettings,
    *,
    weights: Mapping[str, float] | None = None,
    combine: str | None = None,
    estimator: str | None = None,
    overrides: Sequence[str] = (),
) -> ReplaySettings:
    """Settings with changes.

    Args:
        settings: those of the run.
        weights: by name; the others stay.
        combine: a kind (`soft_min`) or a whole section (`{kind: soft_min, tau: 0.1}`).
        estimator: the same for `pipeline.base`.
        overrides: `pipeline.key=value`, as for `align train`.

    Raises:
        ConfigError: unknown kinds or keys, wrong types.
    """
    texts = [*_section("pipeline.combine", combine), *_section("pipeline.base", estimator), *overrides]
    before = Document(source="the settings of the replay", data=to_plain(settings))
    document = apply_overrides(before, [parse_override(text) for text in texts])
    document = drop_settings_of_old_kinds(ReplaySettings, before, document)
    document = replace(document, data=fill_kinds(ReplaySettings, document.data))
    try:
        found = adapter(ReplaySettings).validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        raise ConfigError(problems_of(error, ReplaySettings, document), document.source) from error
    return replace(found, weights={**found.weights, **(weights or {})})


def parse_weights(text: str | None, option: str = "weights") -> dict[str, float] | None:
    """`aesthetic=1,ocr=0.5`, the value of an option, as numbers by name; None for None.

    Raises:
        AlignError: something else.
    """
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise AlignError(
                f"expected {option} as `name=number,name=number`, found `{text}`.",
                f"For example --{option} a=1,b=0.5.",
            )
    return found


def _section(key: str, given: str | None) -> list[str]:
    if given is None:
        return []
    return [f"{key}={given}" if given.lstrip().startswith("{") else f"{key}.kind={given}"]
