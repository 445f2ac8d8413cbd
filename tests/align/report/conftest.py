"""A made-up run folder, as the engine and the branches write it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

CLASSES = {
    "one": "a red circle",
    "two": "a red circle and a blue square",
    "relation": "a red circle left of a blue square",
    "three": "a red circle, a blue square and a green triangle",
}
CONFIG = """\
branch: diffusion
seed: 0
model: {kind: sd3, path: "builtin:tiny"}
rollout: {prompts_per_step: 8, group_size: 8}
rewards:
- {function: "diffusion.tiny.reward:shapes"}
algorithm: {kind: awm}
evaluation:
  rewards:
  - {function: "diffusion.tiny.reward:shapes_strict"}
"""
PLAN = {
    "title": "AWM on builtin:tiny: 8 prompts x 8 pictures = 64 pictures a step",
    "sections": [
        {
            "title": "One step",
            "rows": [
                ["pictures", "64", "8 prompts x 8 each"],
                ["micro-batches", "8", "of 8 pictures"],
                ["updates", "1", None],
            ],
        },
        {"title": "The run", "rows": [["steps", "60", ""], ["network evaluations", "168,960", "44 per picture"]]},
    ],
    "differences": [["rollout.group_size", "24", "8"], ["training.ema", "0.99", None]],
}


def draw(quality: float, seed: int, side: int = 64) -> Image.Image:
    """A red disc and a blue square that get cleaner with quality."""
    chance = random.Random(seed)
    picture = Image.new("RGB", (side, side), "#f4f3ef")
    pen = ImageDraw.Draw(picture)
    scale = side / 64
    for color, center in (("#c8342c", 20), ("#2c57c8", 44)):
        x, y = (center + chance.uniform(-3, 3)) * scale, (32 + chance.uniform(-6, 6)) * scale
        r = (10 + (1 - quality) * chance.uniform(-6, 6)) * scale
        shape = pen.ellipse if color == "#c8342c" or chance.random() > quality else pen.rectangle
        shape((x - r, y - r, x + r, y + r), fill=color)
    return picture


def metric_row(step: int, steps: int, chance: random.Random) -> dict[str, float]:
    """One line of metrics.jsonl, with the engine's names."""
    done = step / max(1, steps)
    reward = 0.55 + 0.3 * (1 - math.exp(-3 * done)) + chance.gauss(0, 0.02)
    times = {"encode": 0.01, "rollout": 1.1, "decode": 0.1, "reward": 0.06, "forward": 0.55, "backward": 0.7}
    times |= {"advantage": 0.004, "optimizer": 0.02}
    row = {"step": step, "reward": reward, "reward_std": 0.2 - 0.1 * done, "frac_reward_zero_std": 0.1 + 0.3 * done}
    row |= {"rewards/shapes/mean": reward, "rewards/brightness/mean": 0.9 - 0.05 * done, "loss": chance.gauss(0, 0.01)}
    row |= {"kl": 0.02 * done, "kl_lagged": 0.002, "grad_norm": 0.3 + chance.random() * 0.2}
    row |= {"ratio_deviation": 0.0, "clip_ratio": 0.0, "unscored": 0.0, "skipped_updates": 0.0}
    row |= {f"time/{name}": seconds * chance.uniform(0.9, 1.1) for name, seconds in times.items()}
    row["time/step"] = sum(value for name, value in row.items() if name.startswith("time/")) * 1.02
    return row | {"time/checkpoint": 0.01, "time/evaluate": 0.4, "time/pictures": 0.02}


def evaluation(step: int, quality: float, seeds: int) -> dict:
    """A held-out evaluation whose rows pair with those of every other step."""
    rows = []
    for number, (group, prompt) in enumerate((g, f"{p}, {i}") for i in range(4) for g, p in CLASSES.items()):
        for seed in range(seeds):
            luck = random.Random(100 * number + seed).random()
            strict = float(luck < quality - 0.12 * list(CLASSES).index(group))
            rows.append(
                {
                    "prompt": prompt,
                    "class": group,
                    "seed": seed,
                    "rewards": {"shapes": 0.5 + strict / 2, "shapes_strict": strict},
                }
            )

    def mean_of(name: str, chosen: list[dict]) -> dict:
        values = [row["rewards"][name] for row in chosen]
        mean = sum(values) / len(values)
        half = 1.96 * math.sqrt(max(1e-9, mean * (1 - mean)) / len(values))
        return {"mean": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half), "n": len(values)}

    names = ("shapes", "shapes_strict")
    return {
        "step": step,
        "weights": "ema" if step else "raw",
        "rewards": {name: mean_of(name, rows) for name in names},
        "classes": {g: {name: mean_of(name, [r for r in rows if r["class"] == g]) for name in names} for g in CLASSES},
        "rows": rows,
    }


def build_run(
    folder: Path,
    *,
    steps: int = 60,
    evaluations: bool = True,
    pictures: bool = True,
    side: int = 64,
    prompt: str | None = None,
) -> Path:
    """Write a run folder; `prompt` replaces every caption of the strip and the samples."""
    folder.mkdir(parents=True)
    chance = random.Random(0)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    rows = [metric_row(step, steps, chance) for step in range(1, steps + 1)]
    if evaluations:
        rows.insert(0, {"step": 0, "eval/shapes/mean": 0.5, "time/evaluate": 0.4})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    marks = sorted({0, *range(0, steps + 1, max(1, steps // 6)), steps})
    for step in marks if evaluations else ():
        _write_evaluation(folder, step, 0.4 + 0.35 * step / steps, side)
    if pictures:
        _write_strip(folder, marks, steps, side, prompt)
        _write_samples(folder, steps, side, prompt)
    return folder


def _write_evaluation(folder: Path, step: int, quality: float, side: int) -> None:
    target = folder / "evaluations"
    target.mkdir(exist_ok=True)
    (target / f"step_{step:06d}.json").write_text(json.dumps(evaluation(step, quality, seeds=4)))
    shown = target / "pictures" / f"step_{step:06d}"
    shown.mkdir(parents=True)
    for number in range(8):
        draw(quality, number, side).save(shown / f"{number:03d}.png")


def _write_strip(folder: Path, marks: list[int], steps: int, side: int, prompt: str | None) -> None:
    lines = []
    for step in marks:
        target = folder / "strip" / f"step_{step:06d}"
        target.mkdir(parents=True)
        for number, (group, caption) in enumerate(CLASSES.items()):
            quality = min(1.0, 0.3 + 0.7 * step / steps)
            draw(quality, number, side).save(target / f"{number:03d}.png")
            image = f"strip/step_{step:06d}/{number:03d}.png"
            rewards = {"shapes": round(quality, 3), "shapes_strict": float(quality > 0.8)}
            text = caption if prompt is None else f"{prompt} {number}"
            lines.append({"step": step, "prompt": text, "class": group, "seed": 0, "image": image, "rewards": rewards})
    (folder / "strip" / "strip.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_samples(folder: Path, step: int, side: int, prompt: str | None) -> None:
    (folder / "samples").mkdir()
    pictures = folder / "images" / f"step_{step:06d}"
    pictures.mkdir(parents=True)
    lines = []
    for number in range(24):
        image = None
        if number < 16:
            draw(number / 16, number, side).save(pictures / f"{number:03d}.png")
            image = f"images/step_{step:06d}/{number:03d}.png"
        score = number / 16
        text = prompt or list(CLASSES.values())[number % 4]
        lines.append(
            {
                "index": number,
                "group_id": number // 8,
                "prompt": text,
                "image": image,
                "rewards": {"shapes": score},
                "score": score,
                "advantage": score - 0.5,
            }
        )
    (folder / "samples" / f"step_{step:06d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder and returns its path; the options are those of `build_run`."""
    return lambda **options: build_run(tmp_path / "run", **options)
