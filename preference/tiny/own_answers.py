"""Pairs from the model's own answers: a right one is chosen, a wrong one is rejected. Writes `pairs/*.jsonl`.

    python -m preference.tiny.own_answers

Each prompt is answered `SAMPLES` times at temperature 1. A prompt whose answers are all right or all wrong makes no
pair, and silence is no answer; from the others one right and one wrong answer are drawn at random. So what is chosen
differs from what is rejected in nothing but the truth, on average: tone and length are the model's own on both sides.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from preference.tiny import pairs_path, reward, world

if TYPE_CHECKING:
    from preference.models.language_model import LanguageModel

SAMPLES = 4
ROWS = {"train": 720, "heldout": 180}
SEEDS = {"train": 11, "heldout": 12}
MARGIN = 1.3
"""So many more prompts than rows are answered, because some make no pair."""

Row = dict[str, object]


def prompts(split: str, count: int) -> list[tuple[str, str]]:
    """Different prompts of one side of the split with their classes, all classes alike."""
    rng = random.Random(SEEDS[split])
    found: dict[str, str] = {}
    while len(found) < count:
        kind = world.CLASSES[len(found) % len(world.CLASSES)]
        found.setdefault(world.prompt(world.draw_note(rng, heldout=split == "heldout"), kind), kind)
    return list(found.items())


def row_of(prompt: str, kind: str, said: Sequence[str], rng: random.Random) -> Row | None:
    """The pair of a prompt in TRL's conversational format, or None if its answers are all right or all wrong.

    Args:
        prompt: text of the user's turn.
        kind: its class.
        said: the model's answers.
        rng: draws one of each side.
    """
    verdicts = [reward.judge(prompt, text) for text in said]
    right = [text for text, verdict in zip(said, verdicts, strict=True) if verdict]
    wrong = [text for text, verdict in zip(said, verdicts, strict=True) if not verdict and text.strip()]
    if not right or not wrong:
        return None
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": rng.choice(right)}],
        "rejected": [{"role": "assistant", "content": rng.choice(wrong)}],
        "class": kind,
    }


def make(model: LanguageModel, split: str) -> list[Row]:
    """The rows of one file, in random order."""
    from preference.tiny.evaluate import answers

    rng = random.Random(SEEDS[split])
    asked = prompts(split, int(ROWS[split] * MARGIN))
    texts = [prompt for prompt, _ in asked]
    said = [answers(model, texts, temperature=1.0, seed=seed) for seed in range(SAMPLES)]
    found = (row_of(prompt, kind, own, rng) for (prompt, kind), own in zip(asked, zip(*said, strict=True), strict=True))
    return [row for row in found if row is not None][: ROWS[split]]


def main(arguments: list[str] | None = None) -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Make the pairs of the embedded language model.")
    parser.add_argument("--model", default="builtin:tiny", help="whose answers")
    options = parser.parse_args(arguments)

    from preference.config.models import CausalLm
    from preference.models.load import load

    model = load(CausalLm(path=options.model))
    for split in ROWS:
        rows = make(model, split)
        path = pairs_path(split)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        print(f"{len(rows)} pairs -> {path}")


if __name__ == "__main__":
    main()
