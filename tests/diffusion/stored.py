"""Small sets of stored pictures for tests: bright ones are preferred."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

PROMPTS = ("a red circle", "two blue squares", "a green triangle on the left")


def png(tone: int, size: tuple[int, int] = (20, 24)) -> bytes:
    """The file of a picture of one grey tone."""
    file = io.BytesIO()
    Image.new("RGB", size, (tone, tone, tone)).save(file, "PNG")
    return file.getvalue()


def write_pairs(folder: Path, count: int = 12) -> Path:
    """A JSONL file of pairs beside its pictures, 12 bright and 12 dark ones; returns the file."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        for name, tone in (("bright", 200 + number), ("dark", 20 + number)):
            (folder / "images" / f"{name}{number}.png").write_bytes(png(tone))
        rows.append(
            {
                "prompt": PROMPTS[number % len(PROMPTS)],
                "chosen": f"images/bright{number}.png",
                "rejected": f"images/dark{number}.png",
                "image": f"images/bright{number}.png",
            }
        )
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pick_a_pic_rows() -> list[dict]:
    """Four rows in the columns of Pick-a-Pic: the first better, the second better, a tie, the first better."""
    tones, labels = ((200, 20), (30, 210), (100, 100), (220, 40)), (1, 0, 0.5, 1.0)
    return [
        {"caption": f"prompt {i}", "jpg_0": png(first), "jpg_1": png(second), "label_0": float(label)}
        for i, ((first, second), label) in enumerate(zip(tones, labels, strict=True))
    ]
