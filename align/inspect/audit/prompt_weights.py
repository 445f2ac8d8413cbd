"""Weights that a preference adapter gives the audited prompts, and whether the rewards are those it was taught on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.adapter.files import load_normaliser
from align.adapter.use import PromptWeigher, weigher_of
from align.config.pipeline import PipelineConfig
from align.config.shaping import AdapterWeights
from align.errors import AlignError
from align.inspect.audit.rows import ScoredRows
from align.report import words
from align.report.tables import Table, share
from align.shaping.score import Shaping
from align.shaping.table import columns_of
from align.types import RewardTable

ALIKE = 0.02  # standard deviation of a weight over prompts, below which prompts hardly matter
ELSEWHERE = 0.5  # share of the samples outside the scores that the adapter was taught on
SHOWN = 12
"""Prompts whose weights the page lists; the record has all."""
LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class PromptWeighing:
    """What an adapter makes of the prompts.

    Attributes:
        path: of the adapter.
        names: of the weighted rewards.
        prompts: each once, as the adapter reads them.
        weights: of each prompt, as the score uses them (the user's own mixed in).
        taught: reward -> (lowest, highest) score that the adapter was taught on.
        outside: reward -> share of the samples beyond these.
        problem: why there are no weights, as a sentence; None where there are.
    """

    path: str
    names: Sequence[str] = ()
    prompts: Sequence[str] = ()
    weights: Float[Tensor, "p k"] | None = None
    taught: dict[str, tuple[float, float]]
    outside: dict[str, float]
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data (Any: nested)."""
        rows = [] if self.weights is None else self.weights.tolist()
        return {
            "adapter": self.path,
            "problem": self.problem,
            "outside": self.outside,
            "prompts": [
                {"prompt": prompt, "weights": dict(zip(self.names, row, strict=True))}
                for prompt, row in zip(self.prompts, rows, strict=True)
            ],
        }


def weighed(
    rows: ScoredRows, given: Float[Tensor, "k"], pipeline: PipelineConfig
) -> tuple[PromptWeighing | None, Float[Tensor, "n k"] | None]:
    """What the pipeline's adapter makes of the prompts, and the weights of each row.

    Args:
        rows: scored samples.
        given: weights of the columns; 0 marks a metric.
        pipeline: names the adapter; without one there is nothing to say.
    """
    if not isinstance(pipeline.weights, AdapterWeights):
        return None, None
    path = str(pipeline.weights.path)
    names = [name for name, weight in zip(rows.names, given.tolist(), strict=True) if weight != 0]
    texts = list(rows.texts or rows.prompts)
    try:
        weigher = weigher_of(pipeline.weights, names)
        assert weigher is not None  # for the type checker: it names one
        effective = _effective(rows, given, pipeline, weigher, texts)
        taught = _taught(path, weigher.record.objectives)
    except (AlignError, ValueError) as error:
        said = f"{error.message} {error.way_out}" if isinstance(error, AlignError) else str(error)
        return PromptWeighing(path=path, taught={}, outside={}, problem=said), None
    first = _first_rows(rows)
    found = PromptWeighing(
        path=path,
        names=names,
        prompts=[texts[place] for place in first],
        weights=effective[first][:, [rows.names.index(name) for name in names]],
        taught=taught,
        outside={name: _outside(rows.values[:, rows.names.index(name)], ends) for name, ends in taught.items()},
    )
    return found, effective


def _effective(
    rows: ScoredRows, given: Tensor, pipeline: PipelineConfig, weigher: PromptWeigher, texts: Sequence[str]
) -> Float[Tensor, "n k"]:
    table = RewardTable(names=rows.names, values=rows.values.float(), weights=given)
    columns = columns_of(table, rows.group_ids, prompt_weights=weigher.by_name(texts))
    return Shaping(pipeline).source.weights(columns)


def _first_rows(rows: ScoredRows) -> list[int]:
    """The first row of each prompt."""
    return sorted({group: place for place, group in reversed(list(enumerate(rows.group_ids.tolist())))}.values())


def _taught(path: str, objectives: Sequence[str]) -> dict[str, tuple[float, float]]:
    ranges = load_normaliser(path).ranges().tolist()
    return {name: (low, high) for name, (low, high) in zip(objectives, ranges, strict=True)}


def _outside(column: Float[Tensor, "n"], ends: tuple[float, float]) -> float:
    scored = column[~column.isnan()]
    return float(((scored < ends[0]) | (scored > ends[1])).double().mean()) if len(scored) else 0.0


def says(found: PromptWeighing) -> Iterator[str]:
    """What to do about the adapter, one sentence each; nothing where nothing stands out."""
    if found.problem is not None:
        yield f"The adapter weighs nothing here: {found.problem}"
        return
    for name, outside in found.outside.items():
        if outside >= ELSEWHERE:
            low, high = found.taught[name]
            yield (
                f"{share(outside)} of the scores of `{name}` lie outside {low:.3g} to {high:.3g}, where they lay when "
                f"the adapter was taught: another reward under that name, other units, or much worse answers. Train "
                "the adapter on scores of this reward."
            )
    assert found.weights is not None  # there is no problem
    if len(found.prompts) > 1 and float(found.weights.std(dim=0).max()) < ALIKE:
        means = ", ".join(
            f"{name} {value:.2f}" for name, value in zip(found.names, found.weights.mean(dim=0).tolist(), strict=True)
        )
        yield f"The adapter weighs all prompts nearly alike: constant weights do as well ({means})."


def tables(found: PromptWeighing) -> Iterator[Table]:
    """Weights by reward, and of the first prompts."""
    if found.weights is None:
        return
    low, high = found.weights.min(dim=0), found.weights.max(dim=0)
    deviations = found.weights.std(dim=0) if len(found.prompts) > 1 else torch.zeros(len(found.names))
    yield Table(
        title="Weights of the adapter",
        note="Over prompts, with your own mixed in as `anchor` says. Outside: share of the samples beyond the scores "
        "that the adapter was taught on.",
        columns=("reward", "mean", "deviation", "smallest", "largest", "taught on", "outside"),
        rows=[
            (
                name,
                words.number(float(found.weights[:, k].mean())),
                words.number(float(deviations[k])),
                words.number(float(low.values[k])),
                words.number(float(high.values[k])),
                _span(found.taught[name]),
                share(found.outside[name]),
            )
            for k, name in enumerate(found.names)
        ],
    )
    yield Table(
        title="Weights of each prompt",
        note=f"The first {min(SHOWN, len(found.prompts))} of {len(found.prompts)}; the record has all.",
        columns=("prompt", *found.names),
        rows=[
            (_short(prompt), *(f"{value:.3f}" for value in row))
            for prompt, row in zip(found.prompts[:SHOWN], found.weights.tolist(), strict=False)
        ],
    )


def _span(ends: tuple[float, float]) -> str:
    return "any" if ends[1] == float("inf") else f"{ends[0]:.3g} to {ends[1]:.3g}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
