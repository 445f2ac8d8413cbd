"""What evaluation and progress strip leave in a run folder. Files only; no formula."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from align.engine.folder import step_name
from align.heldout import write_record
from diffusion.evaluate import EvaluatedRow, Evaluation


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """`evaluations/step_XXXXXX.json` and the kept pictures beside it; replaces an earlier record of the same step."""
    name = step_name(evaluation.step)
    pictures = folder / "evaluations" / "pictures" / name
    _write_pictures(pictures, evaluation)
    return write_record(folder / "evaluations" / f"{name}.json", evaluation)


def read_evaluation(path: Path) -> Evaluation:
    """Inverse of `write_evaluation`, without the pictures."""
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        EvaluatedRow(
            number=number,
            prompt=row["prompt"],
            group=row["class"],
            seed=row["seed"],
            rewards=row["rewards"],
            user_group=row.get("user_group"),
        )
        for number, row in enumerate(record["rows"])
    ]
    return Evaluation(step=record["step"], weights=record["weights"], rows=rows, diversity=record.get("diversity", []))


def write_strip(folder: Path, strip: Evaluation) -> None:
    """`strip/step_XXXXXX/NNN.png`, and a line for each picture in `strip/strip.jsonl`."""
    name = step_name(strip.step)
    _write_pictures(folder / "strip" / name, strip)
    lines = [
        {
            "step": strip.step,
            "prompt": row.prompt,
            "class": row.group,
            "seed": row.seed,
            "image": f"{name}/{row.number:03d}.png",
            "rewards": dict(row.rewards),
        }
        for row in strip.rows
    ]
    with (folder / "strip" / "strip.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _write_pictures(folder: Path, evaluation: Evaluation) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, image in enumerate(evaluation.images):
        image.save(folder / f"{number:03d}.png")
