"""Adapters that infer weights from the caption (PRO), for objectives.py and objectives_judge.py.

    python benchmarks/objectives_pro.py pairs --out OUT      the base model's pictures, scored and judged in pairs
    python benchmarks/objectives_pro.py train --out OUT      an adapter for each target, amount of pairs and seed

The annotator's priorities depend on the class of the caption (`PRIORITIES`). Of two pictures a, b of a caption it
prefers a with the probability sigmoid(2 (U_a - U_b)), U = priorities . rewards in deviations of the base model
(objectives.py, `UNITS`). Seed s of 0, 1, 2 has its own pictures, labels and adapter; "1200 pairs" are those of all
seeds together, on which only the adapter's seed differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from objectives import HERE, SEEDS, UNITS

PRIORITIES: Mapping[str, tuple[float, float, float]] = {
    **dict.fromkeys(("one", "placed", "count"), (0.2, 0.2, 0.6)),
    **dict.fromkeys(("two", "relation"), (0.6, 0.2, 0.2)),
    **dict.fromkeys(("size", "three"), (0.2, 0.6, 0.2)),
}
"""Class of the caption -> how much success, compressibility and colourfulness count."""
SHARPNESS = 2.0
TRAIN_CAPTIONS, HELDOUT_PER_CLASS, HELDOUT_PICTURES = 400, 24, 8
TARGETS = {"paper": "false", "contrastive": "true"}
"""`target.contrastive` of each adapter."""
PAIRS = {"400": "pairs-seed{seed}.jsonl", "1200": "pairs.jsonl"}
"""How many pairs of the training captions are learnt from, and their file."""


def captions() -> dict[str, list[str]]:
    """Captions to learn from and captions that neither the model nor an adapter is trained on."""
    from diffusion.prompts import read_prompts
    from diffusion.tiny import world

    every = read_prompts("builtin:tiny/train").prompts
    heldout = [
        text
        for kind in world.CLASSES
        for text in [one for one in world.captions(kind) if world.held_out(one)][:HELDOUT_PER_CLASS]
    ]
    return {"train": list(every[:: len(every) // TRAIN_CAPTIONS][:TRAIN_CAPTIONS]), "heldout": heldout}


def scored(texts: Sequence[str], seeds: Sequence[int]) -> list[dict[str, object]]:
    """A row for each caption and seed: its rewards in deviations of the base model, and the raw ones."""
    from align.rewards.image import colourfulness, jpeg_compressibility
    from diffusion.config import OdeSampler, Sd3Model
    from diffusion.generate import draw
    from diffusion.models import load_model
    from diffusion.rollout import SamplerSettings
    from diffusion.tiny import world
    from diffusion.tiny.reward import shapes

    torch.set_num_threads(1)
    model = load_model(Sd3Model(path="builtin:tiny"))
    settings = SamplerSettings(
        sampler=OdeSampler(), num_inference_steps=20, guidance_scale=1.0, resolution=None, batch_size=60
    )
    images = draw(model, model.network, texts, tuple(seeds), settings)
    prompts = [text for text in texts for _ in seeds]
    columns = (
        shapes(images=images, prompts=prompts),
        jpeg_compressibility(images=images),
        colourfulness(images=images),
    )
    return [
        {
            "prompt": prompt,
            "class": world.parse(prompt).kind,
            "seed": seeds[number % len(seeds)],
            "rewards": dict(zip(UNITS, (column[number] for column in columns), strict=True)),
        }
        for number, prompt in enumerate(prompts)
    ]


def deviations(rewards: Mapping[str, float]) -> np.ndarray:
    """Rewards in deviations from the base model."""
    return np.array([(rewards[name] - unit.mean) / unit.spread for name, unit in UNITS.items()])


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jsonl_out(path: Path, rows: Sequence[Mapping]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def pairs(arguments: argparse.Namespace) -> None:
    """Pictures of both splits, and for each seed one judged pair of every training caption."""
    place = arguments.out / "pro"
    place.mkdir(parents=True, exist_ok=True)
    texts = captions()
    rows = {
        "train": scored(texts["train"], tuple(range(2 * len(SEEDS)))),
        "heldout": scored(texts["heldout"], tuple(range(HELDOUT_PICTURES))),
    }
    for split, found in rows.items():
        jsonl_out(place / f"{split}.jsonl", found)
    everything = []
    for seed in SEEDS:
        lines, agreed = labelled(rows["train"], seed)
        jsonl_out(place / PAIRS["400"].format(seed=seed), lines)
        everything += lines
        print(f"seed {seed}: {len(lines)} pairs, {agreed:.1%} as the priorities alone would have it")
    jsonl_out(place / PAIRS["1200"], everything)


def labelled(rows: Sequence[Mapping], seed: int) -> tuple[list[dict], float]:
    """A judged pair of each caption, of this seed's two pictures; the share of labels that no chance has turned."""
    generator = np.random.default_rng([seed, 5])
    lines, agreed = [], 0
    for first in range(0, len(rows), 2 * len(SEEDS)):
        a, b = rows[first + 2 * seed : first + 2 * seed + 2]
        gain = float(np.array(PRIORITIES[a["class"]]) @ (deviations(a["rewards"]) - deviations(b["rewards"])))
        prefers = generator.random() < 1 / (1 + np.exp(-SHARPNESS * gain))
        better, worse = (a, b) if prefers else (b, a)
        agreed += prefers == (gain > 0)
        lines.append({"prompt": a["prompt"], "chosen_rewards": better["rewards"], "rejected_rewards": worse["rewards"]})
    return lines, agreed / len(lines)


def train(arguments: argparse.Namespace) -> None:
    """One adapter for each target, amount of pairs and seed; what is there is left alone."""
    place = arguments.out / "pro"
    for target, amount, seed in product(TARGETS, PAIRS, SEEDS):
        name = f"{target}-{amount}-seed{seed}"
        if (place / name / "adapter").is_dir():
            continue
        settings = [
            f"objectives=[{', '.join(UNITS)}]",
            f"data.train={place / PAIRS[amount].format(seed=seed)}",
            f"target.contrastive={TARGETS[target]}",
            f"seed={seed}",
            f"output.directory={place}",
            f"output.name={name}",
        ]
        command = [sys.executable, "-m", "align", "train", "objectives/pro_tiny", *settings]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=HERE, check=True)


COMMANDS = {"pairs": pairs, "train": train}


def main() -> None:
    """Parse and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives"))
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
