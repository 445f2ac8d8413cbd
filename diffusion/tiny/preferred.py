"""Scored pairs of the embedded model's own pictures: rows for a preference adapter.

    python -m diffusion.tiny.preferred configs/objectives/pro_tiny.jsonl

Two pictures are drawn for each caption and scored by several rewards; the preferred one shows more of its caption (the
share of the caption that is read back from the pixels), and the smaller JPEG file wins a tie. Pictures that differ in
neither make no row. An annotator like this is a stand-in: what an adapter learns from it is about this world only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from align.config.shared import RewardConfig
from align.rewards.scorer import Scorer
from align.types import Samples
from diffusion.config import OdeSampler, Sd3Model
from diffusion.generate import draw
from diffusion.models import load_model
from diffusion.prompts import read_prompts
from diffusion.rollout import SamplerSettings

REWARDS = {
    "shapes": "diffusion.tiny.reward:shapes",
    "compressibility": "jpeg_compressibility",
    "sharpness": "sharpness",
}
"""Name -> function. The order is that of the tie break."""
CAPTIONS, SEEDS = 300, (0, 1)
DIGITS = 5


def scored_pairs(captions: Sequence[str]) -> list[dict[str, Any]]:
    """Rows `prompt`, `chosen_rewards`, `rejected_rewards` (Any: JSON)."""
    model = load_model(Sd3Model(path="builtin:tiny"))
    settings = SamplerSettings(
        sampler=OdeSampler(), num_inference_steps=10, guidance_scale=1.0, resolution=None, batch_size=60
    )
    images = draw(model, model.network, captions, SEEDS, settings)
    prompts = [caption for caption in captions for _ in SEEDS]
    index = torch.arange(len(prompts))
    scorer = Scorer(tuple(RewardConfig(function=function, name=name) for name, function in REWARDS.items()))
    table = scorer.score(Samples(index=index, group_ids=index // len(SEEDS), prompts=prompts, images=images))
    scores = [dict(zip(table.names, row, strict=True)) for row in table.values.tolist()]
    pairs = (_pair(prompts[row], scores[row], scores[row + 1]) for row in range(0, len(prompts), len(SEEDS)))
    return [pair for pair in pairs if pair is not None]


def _pair(prompt: str, first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, Any] | None:
    order = [name for name in REWARDS if first[name] != second[name]][:1]
    if not order or order[0] not in ("shapes", "compressibility"):
        return None
    better, worse = sorted((first, second), key=lambda scores: -scores[order[0]])
    return {"prompt": prompt, "chosen_rewards": _short(better), "rejected_rewards": _short(worse)}


def _short(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in scores.items()}


def main(target: str) -> None:
    """Write the rows."""
    rows = scored_pairs(read_prompts("builtin:tiny/train").prompts[:CAPTIONS])
    Path(target).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows in {target}")


if __name__ == "__main__":
    main(sys.argv[1])
