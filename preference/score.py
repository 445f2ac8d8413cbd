"""Candidates -> their rewards, and one score each by the shared shaping. Unscored stays null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from align.adapter.rows import prompt_text
from align.adapter.use import weigher_of
from align.config.checks import reward_name
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.heldout import known
from align.rewards.scorer import Scorer
from align.shaping.score import Shaping
from align.shaping.table import columns_of
from align.statistics import Interval, bootstrap_mean_interval
from align.types import Samples
from preference.candidates import OWN, SCORED, check_ending, write_rows
from preference.config import CandidatesConfig, PreferenceRun
from preference.formats import Unusable, as_text, readable
from preference.tables import Table, open_table


@dataclass(frozen=True, kw_only=True)
class ScoredCandidates:
    """A file of candidates with its rewards.

    Attributes:
        rows: as in the file, with `rewards` (name -> one number or None per candidate), `scores` and `weights`.
        problems: per reward, why candidates are unscored: message -> count.
    """

    rows: Sequence[Mapping[str, Any]]
    problems: Mapping[str, Mapping[str, int]]

    @property
    def names(self) -> tuple[str, ...]:
        """The rewards."""
        return tuple(self.rows[0]["rewards"])

    def mean(self, name: str) -> Interval | None:
        """Mean of a reward and its 95 % interval over prompts; None where nothing was scored."""
        found = [(value, row) for row, entry in enumerate(self.rows) for value in entry["rewards"][name]]
        scored = [(value, row) for value, row in found if value is not None]
        if not scored:
            return None
        values, prompts = zip(*scored, strict=True)
        return bootstrap_mean_interval(values, clusters=prompts)


def score(
    samples: Path,
    *,
    rewards: Sequence[RewardConfig | str] = (),
    config: PreferenceRun | None = None,
    prompts: Path | None = None,
    output: Path | None = None,
) -> ScoredCandidates:
    """Score a file of candidates, print the means, and write the file with rewards and scores.

    Args:
        samples: a file of `align generate`.
        rewards: names as in a config, or whole settings; nothing takes `candidates.rewards` of the config.
        config: its `candidates` says how rewards become one score; None adds them up.
        prompts: not for texts: a file of candidates has its prompts.
        output: .jsonl or .parquet; None puts `.scored` before the ending of `samples`.

    Raises:
        AlignError: no such file, rows that are no candidates, a reward that cannot be found or used.
    """
    if prompts is not None:
        raise AlignError("a file of candidates has its prompts in it.", "Leave `--prompts` out.")
    settings = (None if config is None else config.candidates) or CandidatesConfig()
    output = output or samples.with_name(f"{samples.stem}.scored{samples.suffix}")
    check_ending(output)
    chosen = [RewardConfig(function=reward) if isinstance(reward, str) else reward for reward in rewards]
    chosen = chosen or list(settings.rewards)
    if not chosen:
        raise AlignError("there is no reward.", "Give `--reward NAME`, or a config with `candidates.rewards`.")
    found = score_rows(read_candidates(samples), chosen, settings)
    write_rows(output, found.rows)
    _print(found)
    return found


def read_candidates(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a file of candidates.

    Raises:
        AlignError: no file, or a row that is none; says which.
    """
    table = open_table(str(path))
    for number, row in enumerate(table.rows):
        _check_row(row, table, number)
    if not table.rows:
        raise AlignError(f"{path} is empty.", "Give a file that `align generate` wrote.")
    return [row for row in table.rows if not isinstance(row, str)]


def _check_row(row: Mapping[str, Any] | str, table: Table, number: int) -> None:
    place = table.place(number)
    if isinstance(row, str):
        raise AlignError(f"{place}: {row}.", "Repair or delete the line.")
    candidates = row.get("candidates")
    if not isinstance(candidates, list) or not candidates or not all(isinstance(text, str) for text in candidates):
        raise AlignError(
            f"{place}: expected texts in `candidates`, found {candidates!r:.60}.",
            "Give a file that `align generate` wrote, or one with the columns `prompt` and `candidates`.",
        )
    try:
        as_text(row.get("prompt"), "prompt")
    except Unusable as problem:
        raise AlignError(f"{place}: {problem}.", "Give each row its `prompt`.") from None


def score_rows(
    rows: Sequence[Mapping[str, Any]], rewards: Sequence[RewardConfig], settings: CandidatesConfig
) -> ScoredCandidates:
    """Rewards and scores of all candidates.

    Args:
        rows: of `read_candidates`.
        rewards: what scores them.
        settings: how rewards become one score; groups are the rows.
    """
    scorer, samples = Scorer(rewards), flattened(rows)
    scorer.check({"prompts", "completions", *samples.columns})
    scorer.check_rows({**samples.columns, "prompts": samples.prompts})
    weigher = weigher_of(settings.weights, [reward_name(reward) for reward in rewards if reward.weight != 0])
    table = scorer.score(samples)
    inferred = None if weigher is None else weigher.by_name(_weighed_texts(rows))
    try:
        columns = columns_of(table, samples.group_ids, prompt_weights=inferred)
        scores = Shaping(settings.shaping())(columns).scores
    except ValueError as error:
        raise AlignError(str(error), "Correct the `candidates` section of the config.") from error
    weights = {name: float(weight) for name, weight in zip(table.names, table.weights, strict=True)}
    cuts = _cuts(rows)
    numbers = {name: values.tolist() for name, values in zip(table.names, table.values.T, strict=True)}
    found = [
        {
            **row,
            "rewards": {name: [known(value) for value in values[cut]] for name, values in numbers.items()},
            "scores": [known(value) for value in scores[cut].tolist()],
            "weights": weights,
        }
        for row, cut in zip(rows, cuts, strict=True)
    ]
    return ScoredCandidates(rows=found, problems={name: dict(counts) for name, counts in table.problems.items()})


def _weighed_texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The prompt of each candidate as a preference adapter has read prompts in its training."""
    return [prompt_text(row["prompt"]) or "" for row in rows for _ in row["candidates"]]


def flattened(rows: Sequence[Mapping[str, Any]]) -> Samples:
    """All candidates below each other; the row is the group, and its further columns are those of each candidate."""
    owners = [number for number, row in enumerate(rows) for _ in row["candidates"]]
    prompts = [readable(as_text(row["prompt"], "prompt")) for row in rows]
    names = dict.fromkeys(name for row in rows for name in row if name not in (*OWN, *SCORED))
    return Samples(
        index=torch.arange(len(owners)),
        group_ids=torch.tensor(owners),
        prompts=[prompts[number] for number in owners],
        completions=[text for row in rows for text in row["candidates"]],
        columns={name: [rows[number].get(name) for number in owners] for name in names},
    )


def _cuts(rows: Sequence[Mapping[str, Any]]) -> list[slice]:
    """Where the candidates of each row lie."""
    cuts, start = [], 0
    for row in rows:
        cuts.append(slice(start, start + len(row["candidates"])))
        start += len(row["candidates"])
    return cuts


def _print(found: ScoredCandidates) -> None:
    from rich.table import Table as Shown

    from align.cli.app import console

    shown = Shown("reward", "weight", "answers", "mean", "95 % interval", box=None, pad_edge=False)
    for name in found.names:
        mean, weight = found.mean(name), found.rows[0]["weights"][name]
        if mean is not None:
            shown.add_row(name, f"{weight:g}", str(mean.n), f"{mean.mean:.3f}", f"{mean.low:.3f} to {mean.high:.3f}")
    console().print(shown)
    scores = [value for row in found.rows for value in row["scores"] if value is not None]
    spread = math.nan if not scores else max(scores) - min(scores)
    console().print(f"{len(scores)} answers to {len(found.rows)} prompts have a score; range {spread:.3f}")
    for name, counts in found.problems.items():
        for message, count in counts.items():
            console().print(f"{name}, {count} answers: {message}", soft_wrap=True, markup=False)
