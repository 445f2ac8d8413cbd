"""Held-out gains of a CSV of tiny_texts.py or smollm2.py as a picture: a bar per method and seed, with its interval.

python benchmarks/plot_gains.py OUT/tiny_texts.csv --metric correct -o docs/images/tiny_texts.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path


def plot(source: Path, metric: str, output: Path, title: str) -> None:
    """One group of bars per method, in the order of the file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with source.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == metric]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for place, method in enumerate(methods):
        own = [row for row in rows if row["method"] == method]
        for number, row in enumerate(own):
            gain, low, high = (float(row[name]) for name in ("gain", "low", "high"))
            spot = place + (number - (len(own) - 1) / 2) * 0.25
            axes.bar(spot, gain, width=0.22, color="#4477aa" if gain >= 0 else "#cc6677")
            axes.plot([spot, spot], [low, high], color="black", linewidth=1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(methods)), methods)
    axes.set_ylabel(f"gain of {metric}, held out")
    axes.set_title(title, fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--metric", required=True)
    parser.add_argument("--title", default="Bars: seeds. Lines: 95 % over prompts, paired with the base model")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    plot(given.source, given.metric, given.output, given.title)


if __name__ == "__main__":
    main()
