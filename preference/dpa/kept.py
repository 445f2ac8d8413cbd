"""What a round of DPA keeps of its answers, and the file that holds it.

    s_i = v . C r(x, y_i)
    kept: argmax and argmin of s over the scored answers of (x, v), if they differ by the margin; ties: the first
          or, for losses that read them all, every scored answer of such an (x, v)

A round is a file in TRL's format, of pairs or of answers, with scores as columns: written once, read by the training
that follows and by a run that goes on after it was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.engine.random import generator
from align.pairs import Pairs, best_and_worst
from align.shaping.steering import Scale
from preference.dpa.control import Control
from preference.dpa.rounds import Answers
from preference.formats import TextRow


def scores_of(answers: Answers, control: Control, scale: Scale) -> Float[Tensor, "n"]:
    """v . C r of each answer; NaN where unscored. Empty answers are taken for such: nothing can be learnt from them."""
    scores = control.scores(answers.rewards, answers.vectors, scale)
    empty = torch.tensor([not text.strip() for text in answers.completions])
    return scores.masked_fill(empty, float("nan"))


def kept_pairs(answers: Answers, scores: Float[Tensor, "n"], *, min_margin: float) -> Pairs:
    """Best and worst of each group that is kept: with two scores that differ by the margin, in different words."""
    pairs = best_and_worst(scores, answers.group_ids, min_margin=min_margin)
    texts = answers.completions
    differ = [texts[a] != texts[b] for a, b in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)]
    keep = torch.tensor(differ, dtype=torch.bool)
    return Pairs(chosen=pairs.chosen[keep], rejected=pairs.rejected[keep], margin=pairs.margin[keep])


def pair_rows(answers: Answers, control: Control, scores: Float[Tensor, "n"], pairs: Pairs) -> list[dict[str, Any]]:
    """The kept pairs of a round as rows of a file: TRL's columns, the direction, scores, raw rewards of the best."""
    return [
        {
            "prompt": _asked(answers.rows[best]),
            "chosen": _said(answers.rows[best], answers.completions[best]),
            "rejected": _said(answers.rows[best], answers.completions[worst]),
            "direction": dict(zip(control.names, answers.vectors[best], strict=True)),
            "score_chosen": float(scores[best]),
            "score_rejected": float(scores[worst]),
            "rewards_chosen": _known(answers.rewards[best]),
        }
        for best, worst in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)
    ]


def scored_rows(
    answers: Answers,
    control: Control,
    scores: Float[Tensor, "n"],
    pairs: Pairs,
    columns: Mapping[str, Float[Tensor, "n"]],
) -> list[dict[str, Any]]:
    """All scored answers of the kept groups as rows of a file: TRL's columns, group, direction, score, raw rewards.

    Args:
        answers: of a round.
        control: names of the objectives.
        scores: of the answers; NaN = unscored, and left out.
        pairs: best and worst of the groups that are kept.
        columns: further numbers of each answer.
    """
    kept = torch.isin(answers.group_ids, answers.group_ids[pairs.chosen]) & ~scores.isnan()
    return [
        {
            "prompt": _asked(answers.rows[place]),
            "completion": _said(answers.rows[place], answers.completions[place]),
            "group": int(answers.group_ids[place]),
            "direction": dict(zip(control.names, answers.vectors[place], strict=True)),
            "score": float(scores[place]),
            **{name: float(values[place]) for name, values in columns.items()},
            "rewards": _known(answers.rewards[place]),
        }
        for place in kept.nonzero().flatten().tolist()
    ]


def _asked(row: TextRow) -> Any:
    """A prompt as a file holds it (Any: a text, or turns)."""
    return row.prompt if isinstance(row.prompt, str) else list(row.prompt)


def _known(rewards: Float[Tensor, "k"]) -> list[float | None]:
    return [None if value != value else value for value in rewards.tolist()]


def _said(row: TextRow, text: str) -> Any:
    """An answer in the form of its prompt."""
    return text if isinstance(row.prompt, str) else [{"role": "assistant", "content": text}]


def replayed(rows: list[dict[str, Any]], share: float, *key: int | str) -> list[dict[str, Any]]:
    """A random share of a round's rows, in their order."""
    count = round(share * len(rows))
    places = torch.randperm(len(rows), generator=generator(*key, "replay"))[:count].sort().values.tolist()
    return [rows[place] for place in places]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A JSONL file in one go: it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(draft, path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Inverse of `write_rows`."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(answers: Answers, pairs: Pairs, scores: Float[Tensor, "n"]) -> dict[str, float]:
    """What a round kept, for the log: share of the groups, margin, score and length of the best."""
    groups, count = len(answers.group_ids.unique()), max(len(pairs), 1)
    best = pairs.chosen.tolist()
    return {
        "dpa/kept": len(pairs) / max(groups, 1),
        "dpa/margin": float(pairs.margin.sum()) / count,
        "dpa/score_chosen": float(scores[pairs.chosen].sum()) / count,
        "dpa/characters_chosen": sum(len(answers.completions[place]) for place in best) / count,
    }
