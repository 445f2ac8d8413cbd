"""What the annotator of objectives_pro.py thinks of weights and of policies, on held-out captions.

    python benchmarks/objectives_judge.py weights --out OUT     PRO against the best fixed ones -> OUT/pro.csv, pro.png
    python benchmarks/objectives_judge.py policies --out OUT    policies of objectives.py -> OUT/pro_policies.csv

All weights, fixed or not, see the same rewards in deviations of the base model. *Best fixed* are the weights in tenths
that agree with most of the labels that an adapter was trained on; *in hindsight* are those with the least regret on
the held-out captions, which nobody can know. Each adapter is judged a second time on rewards in its own scale.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from methods import write
from objectives import SEEDS, UNITS, WEIGHTS, folder
from objectives_plot import pro_figure
from objectives_pro import HELDOUT_PICTURES, PAIRS, PRIORITIES, TARGETS, deviations, jsonl

if TYPE_CHECKING:
    from align.statistics import Interval

MINMAX = "minmax"
"""An adapter's weights on rewards in the scale that its targets were made with, instead of deviations."""


def best_fixed(rows: Sequence[Mapping]) -> np.ndarray:
    """The weights in tenths that agree with most labels; of several the first."""
    gains = np.array([deviations(row["chosen_rewards"]) - deviations(row["rejected_rewards"]) for row in rows])
    grid = tenths()
    return grid[np.argmax((gains @ grid.T > 0).mean(axis=0))]


def tenths() -> np.ndarray:
    """Weights with one decimal that sum to 1."""
    from align.shaping.pareto import simplex_grid

    return simplex_grid(len(UNITS), 10).numpy()


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

    weights = {"uniform": np.full((len(prompts), 3), 1 / 3)}
    for amount, file in PAIRS.items():
        fixed = best_fixed(jsonl(place / file.format(seed=seed)))
        print(f"seed {seed}, {amount} pairs: best fixed weights {fixed.round(1).tolist()}")
        weights[f"best fixed, {amount} pairs"] = np.broadcast_to(fixed, (len(prompts), 3))
        for target in TARGETS:
            weigher = PromptWeigher.load(place / f"{target}-{amount}-seed{seed}", objectives=tuple(UNITS))
            columns = weigher.by_name(prompts)
            weights[f"PRO {target}, {amount} pairs"] = np.stack([columns[name].double() for name in UNITS], axis=1)
    return weights


def compare(arguments: argparse.Namespace) -> None:
    """Agreement and regret of all weights on held-out captions; differences to the best fixed ones, by caption."""
    from align.adapter.files import load_normaliser

    place = arguments.out / "pro"
    rows = jsonl(place / "heldout.jsonl")
    heads = rows[::HELDOUT_PICTURES]
    prompts, classes = [row["prompt"] for row in heads], [row["class"] for row in heads]
    shape = (len(heads), HELDOUT_PICTURES, len(UNITS))
    rewards = np.stack([deviations(row["rewards"]) for row in rows]).reshape(shape)
    raw = torch.tensor([[row["rewards"][name] for name in UNITS] for row in rows], dtype=torch.float64)
    priorities = np.array([PRIORITIES[name] for name in classes])
    utilities = np.einsum("nk,ngk->ng", priorities, rewards)
    everyone = [np.broadcast_to(one, priorities.shape) for one in tenths()]
    hindsight = min(everyone, key=lambda one: judged(one, utilities, rewards)[1].mean())
    print(f"fixed in hindsight: {hindsight[0].round(1).tolist()}")
    found = {"fixed in hindsight": [judged(hindsight, utilities, rewards)] * len(SEEDS)}
    learnt: dict[str, list[np.ndarray]] = {}
    for seed in SEEDS:
        for name, weights in systems(place, seed, prompts).items():
            found.setdefault(name, []).append(judged(weights, utilities, rewards))
            learnt.setdefault(name, []).append(weights)
        for target, amount in product(TARGETS, PAIRS):
            own = load_normaliser(place / f"{target}-{amount}-seed{seed}")(raw).numpy().reshape(shape)
            weights = learnt[f"PRO {target}, {amount} pairs"][-1]
            found.setdefault(f"PRO {target} ({MINMAX}), {amount} pairs", []).append(judged(weights, utilities, own))
    lines = table(arguments.out / "pro.csv", found)
    by_class = {name: means_by_class(np.mean(weights, axis=0), classes) for name, weights in learnt.items()}
    columns = tuple(UNITS)
    write(
        arguments.out / "pro_weights.csv",
        [
            {"weights": name, "class": kind, **dict(zip(columns, one.round(3).tolist(), strict=True))}
            for name, means in {"annotator": means_by_class(priorities, classes), **by_class}.items()
            for kind, one in means.items()
        ],
    )
    shown = [line for line in lines if MINMAX not in str(line["weights"])]
    pro_figure(arguments.out / "pro.png", shown, {"annotator": means_by_class(priorities, classes), **by_class})


def means_by_class(weights: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean weights of each class."""
    return {name: weights[np.array(classes) == name].mean(axis=0) for name in dict.fromkeys(classes)}


def table(path: Path, found: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> list[dict]:
    """One row for each system: means over seeds and captions, the seeds' own, and the paired difference to the best
    fixed weights of as many pairs (intervals: captions are drawn again, seeds are not)."""
    from align.statistics import bootstrap_mean_interval, paired_bootstrap_interval

    hindsight = found["fixed in hindsight"]
    lines = []
    for name, seeds in found.items():
        against = f"best fixed, {name.partition(', ')[2] or '1200 pairs'}"
        line: dict[str, object] = {"weights": name, "against": against, "captions": len(seeds[0][0])}
        for place, quantity in enumerate(("agreement", "regret")):
            own, fixed, best = (
                np.mean([one[place] for one in part], axis=0) for part in (seeds, found[against], hindsight)
            )
            spans = {
                quantity: bootstrap_mean_interval(own),
                f"{quantity}_change": paired_bootstrap_interval(fixed, own),
                f"{quantity}_beyond_hindsight": paired_bootstrap_interval(best, own),
            }
            line |= rounded(spans)
            line[f"{quantity}_seeds"] = " ".join(f"{one[place].mean():.4f}" for one in seeds)
        lines.append(line)
        print(line)
    write(path, lines)
    return lines


def rounded(spans: Mapping[str, Interval]) -> dict[str, float]:
    """A column for each end of each interval."""
    return {
        f"{name}_{part}": round(getattr(one, part), 4)
        for name, one in spans.items()
        for part in ("mean", "low", "high")
    }


def utilities(record: Path) -> np.ndarray:
    """What the annotator thinks of each picture of an evaluation."""
    rows = json.loads(record.read_text(encoding="utf-8"))["rows"]
    return np.array([np.array(PRIORITIES[row["class"]]) @ deviations(row["rewards"]) for row in rows])


def policies(arguments: argparse.Namespace) -> None:
    """Mean utility of trained policies on held-out captions, by the annotator: the weighted sums and both PRO. Each is
    compared with the best of the weighted sums, which is chosen on these very captions."""
    from align.statistics import bootstrap_mean_interval, paired_bootstrap_interval

    runs = arguments.out / "fronts" / "runs"
    sums = {f"weighted sum, {point}": f"{folder('weighted sum')}-{point}" for point in WEIGHTS}
    adapters = {f"PRO {target}, alone": f"{folder(f'PRO {target}')}-alone" for target in TARGETS}
    found: dict[str, np.ndarray] = {}
    seeds: dict[str, list[np.ndarray]] = {}
    for name, stem in (sums | adapters).items():
        records = [sorted((runs / f"{stem}-seed{seed}" / "evaluations").glob("step_*.json")) for seed in SEEDS]
        found.setdefault("before training", utilities(records[0][0]))
        seeds[name] = [utilities(one[-1]) for one in records]
        found[name] = np.mean(seeds[name], axis=0)
    best = max(sums, key=lambda name: found[name].mean())
    lines = []
    for name, values in found.items():
        spans = {
            "utility": bootstrap_mean_interval(values),
            "beyond_best": paired_bootstrap_interval(found[best], values),
        }
        own = " ".join(f"{one.mean():.3f}" for one in seeds.get(name, [values]))
        lines.append({"policy": name, "best": best, **rounded(spans), "utility_seeds": own})
        print(lines[-1])
    write(arguments.out / "pro_policies.csv", lines)


COMMANDS = {"weights": compare, "policies": policies}


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
