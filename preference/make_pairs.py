"""Scored candidates -> preference pairs in TRL's format, by the shared core; what was left out is counted.

    best_worst    the best and the worst answer of each prompt
    all           every two answers of a prompt whose scores differ
    dominating    every two of which one is nowhere worse: no weighing, only which way each reward is better

Ties are never labelled, and texts that a prompt has twice, or that are empty, take no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.errors import AlignError
from align.pairs import Pairs, all_pairs, best_and_worst, dominating_pairs
from preference.candidates import OWN, SCORED, write_rows
from preference.config import CandidatesConfig, PreferenceRun
from preference.config.candidates import AllPairs, BestWorst, Dominating
from preference.score import read_candidates


@dataclass(frozen=True, kw_only=True)
class MadePairs:
    """Pairs and what became of the candidates.

    Attributes:
        rows: pairs in TRL's format.
        prompts: prompts that were looked at.
        answers_left_out: why answers took no part -> how many.
        prompts_left_out: why a prompt gives no pair -> how many.
    """

    rows: Sequence[Mapping[str, Any]]
    prompts: int
    answers_left_out: Mapping[str, int]
    prompts_left_out: Mapping[str, int]

    def summary(self) -> list[str]:
        """Lines for the terminal."""
        return [
            f"{len(self.rows)} pairs from {self.prompts - sum(self.prompts_left_out.values())} of "
            f"{self.prompts} prompts",
            *(f"  {count} answers left out: {reason}" for reason, count in self.answers_left_out.items()),
            *(f"  {count} prompts without a pair: {reason}" for reason, count in self.prompts_left_out.items()),
        ]


def pairs(samples: Path, *, config: PreferenceRun | None = None, output: Path | None = None) -> MadePairs:
    """Make pairs of a scored file, write them, and print what was left out.

    Args:
        samples: a file of `align score`.
        config: its `candidates.pairs` says which answers make a pair; None takes the best and the worst.
        output: .jsonl or .parquet; None = `pairs.jsonl` beside `samples`.

    Raises:
        AlignError: no such file, rows without scores, or no pair at all.
    """
    from align.cli.app import console

    settings = (None if config is None else config.candidates) or CandidatesConfig()
    made = make_pairs(_scored(samples), settings)
    for line in made.summary():
        console().print(line, soft_wrap=True, markup=False, highlight=False)
    if not made.rows:
        raise AlignError(f"{samples} gives no pair.", "Sample more candidates, or lower `candidates.pairs.min_margin`.")
    write_rows(output or samples.with_name("pairs.jsonl"), made.rows)
    return made


def make_pairs(rows: Sequence[Mapping[str, Any]], settings: CandidatesConfig) -> MadePairs:
    """Pairs of scored rows.

    Args:
        rows: with `candidates`, `rewards`, `scores` and `weights`.
        settings: which answers make a pair.
    """
    places = [(number, i) for number, row in enumerate(rows) for i in range(len(row["candidates"]))]
    reasons = _left_out(rows, settings.finished_only)
    group_ids = torch.tensor([number for number, _ in places])
    free = torch.tensor([not reasons[place] for place in places])
    found = SELECTIONS[type(settings.pairs)](settings.pairs, _Points(rows, free), group_ids)
    made = [
        _pair(rows[places[better][0]], places[better][1], places[worse][1], float(margin))
        for better, worse, margin in zip(found.chosen.tolist(), found.rejected.tolist(), found.margin, strict=True)
    ]
    with_pair = {places[better][0] for better in found.chosen.tolist()}
    without = Counter(
        _why_none(rows, number, reasons, settings) for number in range(len(rows)) if number not in with_pair
    )
    return MadePairs(
        rows=made,
        prompts=len(rows),
        answers_left_out=Counter(reason for reason in reasons.values() if reason),
        prompts_left_out=without,
    )


@dataclass(frozen=True)
class _Points:
    """Scores and rewards of all answers, NaN for those that take no part."""

    rows: Sequence[Mapping[str, Any]]
    free: Tensor

    def scores(self) -> Float[Tensor, "n"]:
        return self._masked([value for row in self.rows for value in row["scores"]])

    def rewards(self) -> Float[Tensor, "n k"]:
        """Weighted rewards only, turned so that higher is better."""
        weights = {name: weight for name, weight in self.rows[0]["weights"].items() if weight}
        columns = [
            self._masked([value for row in self.rows for value in row["rewards"][name]]) * (1 if weight > 0 else -1)
            for name, weight in weights.items()
        ]
        return torch.stack(columns, dim=1)

    def _masked(self, values: Sequence[float | None]) -> Float[Tensor, "n"]:
        numbers = torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)
        return torch.where(self.free, numbers, float("nan"))


def _best_worst(settings: BestWorst, points: _Points, group_ids: Int[Tensor, "n"]) -> Pairs:
    return best_and_worst(points.scores(), group_ids, min_margin=settings.min_margin)


def _all(settings: AllPairs, points: _Points, group_ids: Int[Tensor, "n"]) -> Pairs:
    return all_pairs(points.scores(), group_ids, min_margin=settings.min_margin)


def _dominating(settings: Dominating, points: _Points, group_ids: Int[Tensor, "n"]) -> Pairs:
    return dominating_pairs(points.rewards(), group_ids)


SELECTIONS: Mapping[type, Callable[[Any, _Points, Tensor], Pairs]] = {
    BestWorst: _best_worst,
    AllPairs: _all,
    Dominating: _dominating,
}
"""Settings -> which answers make a pair (Any: each takes its own settings)."""


def _left_out(rows: Sequence[Mapping[str, Any]], finished_only: bool) -> dict[tuple[int, int], str]:
    """Why each answer takes no part; an empty text where it does."""
    reasons: dict[tuple[int, int], str] = {}
    for number, row in enumerate(rows):
        seen: set[str] = set()
        finish = row.get("finish") or [""] * len(row["candidates"])
        for i, text in enumerate(row["candidates"]):
            found = (
                ("empty", not text.strip()),
                ("cut at the length limit", finished_only and finish[i] == "length"),
                ("the same text as another answer to the prompt", text.strip() in seen),
                ("without a score", row["scores"][i] is None),
            )
            reasons[number, i] = next((reason for reason, holds in found if holds), "")
            if not reasons[number, i]:
                seen.add(text.strip())
    return reasons


def _why_none(
    rows: Sequence[Mapping[str, Any]], number: int, reasons: Mapping[tuple[int, int], str], settings: CandidatesConfig
) -> str:
    left = [value for i, value in enumerate(rows[number]["scores"]) if not reasons[number, i]]
    if len(left) < 2:
        return "fewer than two different scored answers"
    if isinstance(settings.pairs, Dominating):
        return "no answer is better without being worse somewhere"
    return "all scores equal" if max(left) == min(left) else "margin too small"


def _pair(row: Mapping[str, Any], better: int, worse: int, margin: float) -> dict[str, Any]:
    chat = not isinstance(row["prompt"], str)
    sides = {"chosen": better, "rejected": worse}
    texts = {side: row["candidates"][place] for side, place in sides.items()}
    scores = {f"score_{side}": row["scores"][place] for side, place in sides.items()}
    rewards = {
        f"{name}_{side}": values[place] for name, values in row["rewards"].items() for side, place in sides.items()
    }
    answers = {side: [{"role": "assistant", "content": text}] if chat else text for side, text in texts.items()}
    columns = {name: value for name, value in row.items() if name not in (*OWN, *SCORED)}
    return {"prompt": row["prompt"], **answers, **scores, "margin": margin, **rewards, **columns}


def _scored(path: Path) -> Sequence[Mapping[str, Any]]:
    rows = read_candidates(path)
    for number, row in enumerate(rows):
        count, scores, rewards = len(row["candidates"]), row.get("scores"), row.get("rewards")
        lists = [scores, *(rewards.values() if isinstance(rewards, Mapping) else [None])]
        if not all(isinstance(values, list) and len(values) == count for values in lists):
            raise AlignError(
                f"{path}, row {number}: expected one score and one reward of each kind for its {count} candidates.",
                "Give a file that `align score` wrote.",
            )
    return rows
