"""Samples that somebody has scored, read from a file or a run folder: what an audit looks at.

| source | rows |
|---|---|
| `.jsonl` of `align score`, or your own | objects with `rewards` (name -> number or null) and, if any, `prompt` |
| the same of texts | `rewards` (name -> list), `candidates` (list of texts) and `prompt`: a prompt a line |
| `.json` of an evaluation | its `rows` |
| run folder | the evaluation before training; if its prompts have one sample each, the reward table of step 1 |

Of each row `completion` (or `response`) and `image` say what the reward may have looked at: length, brightness, size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.adapter.rows import prompt_text
from align.engine.reward_tables import read_table, table_files
from align.errors import AlignError

Row = Mapping[str, Any]  # Any: JSON that somebody else wrote
TEXTS = ("completion", "response")
LENGTH, BRIGHTNESS, JPEG_SIZE = "length", "brightness", "jpeg_size"


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Scored samples.

    Attributes:
        source: what a person calls them.
        names: of the rewards.
        values: one column a reward, NaN where unscored.
        group_ids: equal for samples of the same prompt; 0, 1, ... in order of appearance.
        prompts: one text a row.
        texts: the same as a preference adapter reads them: of a conversation the contents of its turns.
        again: the scores of a second scoring of the same samples, if there was one.
        weights: of the rewards when they were scored, by name; empty where the source does not say.
        features: what a reward may be biased towards: name -> a number a row, NaN where unknown.
    """

    source: str
    names: tuple[str, ...]
    values: Float[Tensor, "n k"]
    group_ids: Int[Tensor, "n"]
    prompts: Sequence[str]
    texts: Sequence[str] = ()
    again: Float[Tensor, "n k"] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, Float[Tensor, "n"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)


def read_rows(path: Path) -> ScoredRows:
    """Read a scored file, or what a run folder says about the policy before training.

    Raises:
        AlignError: no such file, nothing in it that is a score, or a line that is no JSON.
    """
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        raise AlignError(
            f"expected a scored file or a run folder at {path}, found nothing.",
            "`align score --output scores.jsonl` writes one; or give the folder that `align train` printed.",
        )
    if path.suffix == ".json":
        rows, pictures = _evaluation(path)
        return made_rows(rows, str(path), pictures)
    return made_rows([one for row in _lines(path) for one in _of_candidates(row)], str(path), path.parent)


def made_rows(rows: Sequence[Row], source: str, pictures: Path | None = None) -> ScoredRows:
    """Rows of JSON as tensors.

    Args:
        rows: objects with `rewards`; further keys as in this file's docstring, `features` and `rewards_again`.
        source: for messages and the page.
        pictures: folder that names of pictures are relative to; None leaves pictures alone.

    Raises:
        AlignError: rows without rewards, or a reward that is no number.
    """
    bad = [number for number, row in enumerate(rows, 1) if not isinstance(row.get("rewards"), Mapping)]
    if bad or not rows:
        keys = ", ".join(sorted(rows[bad[0] - 1])) if bad else "no rows"
        raise AlignError(
            f"{source}: expected rows with `rewards`, an object of names and numbers; row {bad[0] if bad else 0} has "
            f"{keys}.",
            '`align score --output` writes such rows: {"prompt": "a dog", "rewards": {"aesthetic": 5.1}}.',
        )
    names = tuple(dict.fromkeys(name for row in rows for name in row["rewards"]))
    prompts = [_as_text(row.get("prompt", "")) for row in rows]
    place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    again = _table(rows, "rewards_again", names, source) if all("rewards_again" in row for row in rows) else None
    return ScoredRows(
        source=source,
        names=names,
        values=_table(rows, "rewards", names, source),
        group_ids=torch.tensor([place[prompt] for prompt in prompts]),
        prompts=prompts,
        texts=[prompt_text(row.get("prompt", "")) or prompt for row, prompt in zip(rows, prompts, strict=True)],
        again=again,
        weights=_weights(rows[0].get("weights")),
        features=_features(rows, pictures),
    )


def second_scoring(first: ScoredRows, path: Path) -> Float[Tensor, "n k"]:
    """The scores of the same samples in another file, column by column.

    Raises:
        AlignError: other samples, or none of the rewards.
    """
    second = read_rows(path)
    if list(second.prompts) != list(first.prompts):
        raise AlignError(
            f"{path} holds other samples than {first.source}: {len(second)} rows against {len(first)}, or other "
            "prompts.",
            "Score the same samples twice, in the same order.",
        )
    if not set(first.names) & set(second.names):
        raise AlignError(
            f"{path} has none of the rewards {', '.join(first.names)}; it has {', '.join(second.names)}.",
            "Score with the same rewards, under the same names.",
        )
    missing = torch.full((len(first),), math.nan, dtype=torch.float64)
    columns = dict(zip(second.names, second.values.unbind(dim=1), strict=True))
    return torch.stack([columns.get(name, missing) for name in first.names], dim=1)


def picture_features(images: Sequence[Any]) -> dict[str, list[float]]:
    """Mean luma and size as a JPEG file of pictures (PIL images, hence `Any`)."""
    from align.rewards.image import brightness, jpeg_size

    return {BRIGHTNESS: brightness(images=images), JPEG_SIZE: jpeg_size(images=images)}


def _of_run(folder: Path) -> ScoredRows:
    path = folder / "evaluations" / "step_000000.json"
    evaluation = None
    if path.is_file():
        rows, pictures = _evaluation(path)
        evaluation = made_rows(rows, f"the evaluation before training of {folder}", pictures) if rows else None
        if evaluation is not None and len(evaluation.group_ids.unique()) < len(evaluation):
            return evaluation
    files = table_files(folder)
    if files:
        first = read_table(files[0])
        place = {group: number for number, group in enumerate(dict.fromkeys(first.group_ids.tolist()))}
        return ScoredRows(
            source=f"the samples of step {first.step} of {folder}",
            names=first.table.names,
            values=first.table.values.double(),
            group_ids=torch.tensor([place[group] for group in first.group_ids.tolist()]),
            prompts=first.prompts,
            texts=first.prompts,
        )
    if evaluation is not None:
        return evaluation
    raise AlignError(
        f"{folder} holds neither an evaluation before training nor a reward table.",
        "Give a config instead: then samples of its held-out prompts are drawn and scored.",
    )


def _evaluation(path: Path) -> tuple[list[Row], Path]:
    """Rows of an evaluation's record, each with the name of its picture, and the folder of the pictures."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = list(record["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlignError(
            f"{path} is no record of an evaluation ({error!r}).", "Give a file of `evaluations/`."
        ) from error
    pictures = path.parent / "pictures" / path.stem
    return [{"image": f"{number:03d}.png", **row} for number, row in enumerate(rows)], pictures


def _lines(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AlignError(f"{path}:{number} is no JSON: {error}.", "Each line must be one JSON object.") from error
        rows.append(row if isinstance(row, dict) else {})
    return rows


def _of_candidates(row: Row) -> list[Row]:
    """One row per answer, where a line holds all answers to a prompt; otherwise the row itself."""
    texts, rewards = row.get("candidates"), row.get("rewards")
    if not isinstance(texts, list) or not isinstance(rewards, Mapping):
        return [row]
    lists = {name: values for name, values in rewards.items() if isinstance(values, list) and len(values) == len(texts)}
    return [
        {
            "prompt": row.get("prompt", ""),
            "completion": text,
            "rewards": {name: values[place] for name, values in lists.items()},
            "weights": row.get("weights"),
        }
        for place, text in enumerate(texts)
    ]


def _as_text(prompt: object) -> str:
    """The prompt as one text; a conversation as its JSON."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)


def _weights(given: object) -> dict[str, float]:
    if not isinstance(given, Mapping):
        return {}
    return {str(name): float(value) for name, value in given.items() if isinstance(value, int | float)}


def _table(rows: Sequence[Row], key: str, names: Sequence[str], source: str) -> Float[Tensor, "n k"]:
    return torch.tensor(
        [[_number(row[key].get(name), f"{source}, row {number}, `{name}`") for name in names]
         for number, row in enumerate(rows, 1)],
        dtype=torch.float64,
    ).reshape(len(rows), len(names))  # fmt: skip


def _number(value: object, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AlignError(f"{where}: expected a number or null, found {json.dumps(value)[:60]}.", "Repair the row.")
    return float(value) if math.isfinite(value) else math.nan


def _features(rows: Sequence[Row], pictures: Path | None) -> dict[str, Float[Tensor, "n"]]:
    """What rows say of themselves, the length of texts, and what pictures on disk look like."""
    found: dict[str, list[float]] = {}
    for number, row in enumerate(rows):
        own = row.get("features")
        own = dict(own) if isinstance(own, Mapping) else {}
        text = next((row[key] for key in TEXTS if isinstance(row.get(key), str)), None)
        if text is not None:
            own.setdefault(LENGTH, len(text))
        elif not own and pictures is not None and isinstance(row.get("image"), str):
            own = _of_picture(pictures, row["image"])
        for name, value in own.items():
            column = found.setdefault(str(name), [math.nan] * len(rows))
            column[number] = _number(value, f"feature `{name}` of row {number + 1}")
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in found.items()}


def _of_picture(folder: Path, name: str) -> dict[str, float]:
    from align.report.grids import open_picture

    path = next((path for path in (folder / name, Path(name)) if path.is_file()), None)
    if path is None:
        return {}
    try:
        picture = open_picture(path)
    except OSError:
        return {}
    return {feature: values[0] for feature, values in picture_features([picture]).items()}
