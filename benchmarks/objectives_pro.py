"""Weights from the prompt (PRO) against the best fixed weights, on held-out captions of the embedded picture world.

    python benchmarks/objectives_pro.py pairs --out OUT      the base model's pictures, scored and judged in pairs
    python benchmarks/objectives_pro.py train --out OUT      an adapter for each seed and target, by `align train`
    python benchmarks/objectives_pro.py compare --out OUT    held-out captions -> OUT/pro.csv and a table
    python benchmarks/objectives_pro.py policies --out OUT   the same annotator judges the policies of objectives.py

The annotator's priorities depend on the class of the caption (`PRIORITIES`). Of two pictures a, b of a caption it
prefers a with the probability sigmoid(2 (U_a - U_b)), U = priorities . rewards in deviations of the base model
(objectives.py, `UNITS`). Seed s of 0, 1, 2 has its own pictures, labels and adapter. All weights, fixed or not, see
the same rewards; *best fixed* are the weights in tenths that agree with most of the labels that the adapter was
trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from methods import write
from objectives import HERE, SEEDS, UNITS, WEIGHTS, folder

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
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    for seed in SEEDS:
        generator = np.random.default_rng([seed, 5])
        lines, agreed = [], 0
        for first in range(0, len(rows["train"]), 2 * len(SEEDS)):
            a, b = rows["train"][first + 2 * seed : first + 2 * seed + 2]
            gain = float(np.array(PRIORITIES[a["class"]]) @ (deviations(a["rewards"]) - deviations(b["rewards"])))
            prefers = generator.random() < 1 / (1 + np.exp(-SHARPNESS * gain))
            better, worse = (a, b) if prefers else (b, a)
            agreed += prefers == (gain > 0)
            lines.append(
                {"prompt": a["prompt"], "chosen_rewards": better["rewards"], "rejected_rewards": worse["rewards"]}
            )
        (place / f"pairs-seed{seed}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8"
        )
        print(f"seed {seed}: {len(lines)} pairs, {agreed / len(lines):.1%} as the priorities alone would have it")


def train(arguments: argparse.Namespace) -> None:
    """One adapter for each seed and target; what is there is left alone."""
    place = arguments.out / "pro"
    for target, contrastive in TARGETS.items():
        for seed in SEEDS:
            name = f"{target}-seed{seed}"
            if (place / name / "adapter").is_dir():
                continue
            settings = [
                f"objectives=[{', '.join(UNITS)}]",
                f"data.train={place / f'pairs-seed{seed}.jsonl'}",
                f"target.contrastive={contrastive}",
                f"seed={seed}",
                f"output.directory={place}",
                f"output.name={name}",
            ]
            command = [sys.executable, "-m", "align", "train", "objectives/pro_tiny", *settings]
            subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=HERE, check=True)


def best_fixed(rows: Sequence[Mapping]) -> np.ndarray:
    """The weights in tenths that agree with most labels; of several the first."""
    from align.shaping.pareto import simplex_grid

    gains = np.array([deviations(row["chosen_rewards"]) - deviations(row["rejected_rewards"]) for row in rows])
    grid = simplex_grid(len(UNITS), 10).numpy()
    return grid[np.argmax((gains @ grid.T > 0).mean(axis=0))]


def judged(weights: np.ndarray, utilities: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per caption: share of the pairs of its pictures that weights order as the annotator does, and the regret of the
    picture that they choose, in the annotator's utility.

    Args:
        weights: `[n, 3]`, of each caption.
        utilities: `[n, g]`, what the annotator thinks of each picture.
        rewards: `[n, g, 3]`, in deviations.
    """
    scores = np.einsum("nk,ngk->ng", weights, rewards)
    first, second = np.triu_indices(scores.shape[1], 1)
    wanted = np.sign(utilities[:, first] - utilities[:, second])
    found = np.sign(scores[:, first] - scores[:, second])
    chosen = np.take_along_axis(utilities, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    return (wanted == found).mean(axis=1), utilities.max(axis=1) - chosen


def systems(place: Path, seed: int, prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """System -> weights of each caption."""
    from align.adapter.use import PromptWeigher

    fixed = best_fixed(jsonl(place / f"pairs-seed{seed}.jsonl"))
    print(f"seed {seed}: best fixed weights {fixed.round(1).tolist()}")
    found = {"uniform": np.full(3, 1 / 3), "best fixed": fixed}
    weights = {name: np.broadcast_to(one, (len(prompts), 3)) for name, one in found.items()}
    for target in TARGETS:
        weigher = PromptWeigher.load(place / f"{target}-seed{seed}", objectives=tuple(UNITS))
        columns = weigher.by_name(prompts)
        weights[f"PRO, {target}"] = np.stack([columns[name].double().numpy() for name in UNITS], axis=1)
    return weights


def compare(arguments: argparse.Namespace) -> None:
    """Agreement and regret of all weights on held-out captions; differences to the best fixed ones, by caption."""
    place = arguments.out / "pro"
    rows = jsonl(place / "heldout.jsonl")
    heads = rows[::HELDOUT_PICTURES]
    prompts = [row["prompt"] for row in heads]
    rewards = np.stack([deviations(row["rewards"]) for row in rows]).reshape(len(heads), HELDOUT_PICTURES, 3)
    priorities = np.array([PRIORITIES[row["class"]] for row in heads])
    utilities = np.einsum("nk,ngk->ng", priorities, rewards)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for seed in SEEDS:
        for name, weights in systems(place, seed, prompts).items():
            found.setdefault(name, []).append(judged(weights, utilities, rewards))
    table(arguments.out / "pro.csv", found)


def table(
    path: Path, found: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], against: str = "best fixed"
) -> None:
    """One row for each system: means over seeds and captions, the seeds' own, and the paired difference."""
    from align.statistics import bootstrap_mean_interval, paired_bootstrap_interval

    lines = []
    for name, seeds in found.items():
        line: dict[str, object] = {"weights": name, "captions": len(seeds[0][0]), "seeds": len(seeds)}
        for place, quantity in enumerate(("agreement", "regret")):
            own = np.mean([one[place] for one in seeds], axis=0)
            other = np.mean([one[place] for one in found[against]], axis=0)
            spans = {"": bootstrap_mean_interval(own), "_gain": paired_bootstrap_interval(other, own)}
            for ending, interval in spans.items():
                for part in ("mean", "low", "high"):
                    line[f"{quantity}{ending}_{part}"] = round(getattr(interval, part), 4)
            line[f"{quantity}_seeds"] = " ".join(f"{one[place].mean():.4f}" for one in seeds)
        lines.append(line)
        print(line)
    write(path, lines)


def policies(arguments: argparse.Namespace) -> None:
    """Utility of the pictures of trained policies on held-out captions, by the annotator: PRO and the weighted sums."""
    from align.statistics import bootstrap_mean_interval, paired_bootstrap_interval

    names = {f"weighted sum, {point}": f"{folder('weighted sum')}-{point}" for point in WEIGHTS}
    names["PRO"] = "PRO-alone"
    of_policy: dict[str, np.ndarray] = {}
    for name, stem in names.items():
        seeds = []
        for seed in SEEDS:
            records = sorted(
                (arguments.out / "fronts" / "runs" / f"{stem}-seed{seed}" / "evaluations").glob("step_*.json")
            )
            for label, record in ((name, records[-1]), ("before training", records[0])):
                rows = json.loads(record.read_text())["rows"]
                values = np.array([np.array(PRIORITIES[row["class"]]) @ deviations(row["rewards"]) for row in rows])
                of_policy.setdefault("before training", values) if label != name else seeds.append(values)
        of_policy[name] = np.mean(seeds, axis=0)
    best = max((name for name in names if name != "PRO"), key=lambda name: of_policy[name].mean())
    lines = []
    for name, values in of_policy.items():
        own, gain = bootstrap_mean_interval(values), paired_bootstrap_interval(of_policy[best], values)
        spans = {"utility": own, f"against {best}": gain}
        line = {
            f"{key} {part}": round(getattr(one, part), 3)
            for key, one in spans.items()
            for part in ("mean", "low", "high")
        }
        lines.append({"policy": name, **line})
        print(lines[-1])
    write(arguments.out / "pro_policies.csv", lines)


COMMANDS = {"pairs": pairs, "train": train, "compare": compare, "policies": policies}


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
