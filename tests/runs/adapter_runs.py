"""A whole run of a preference adapter, for tests/runs/test_adapter_runs.py.

python adapter_runs.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from align.adapter import commands
from align.adapter.config import AdapterOptimizerConfig, AdapterRun, AdapterTrainingConfig, RowsConfig, StoppingConfig
from align.config.shared import OutputConfig

WORDS = ("left", "right", "up")
STEPS = 6


class WordCounts:
    """An encoder that counts three words."""

    name = "word counts"

    def __call__(self, texts):
        return torch.tensor([[float(text.count(word)) for word in WORDS] for text in texts])

    def fingerprint(self) -> str:
        return "word-counts"


def write_rows(path: Path) -> None:
    """30 rows: the reward of an objective is how often its word stands in the prompt, over 3."""
    lines = []
    for number in range(30):
        words = [WORDS[(number // 3**place) % 3] for place in range(3)]
        rewards = {name: words.count(name) / 3 for name in WORDS}
        lines.append({"prompt": f"{' '.join(words)} {number}", "rewards": rewards})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def run(folder: Path) -> Path:
    """Seven rows a step: two processes take four and three."""
    return commands.train(
        AdapterRun(
            objectives=WORDS,
            data=RowsConfig(train=str(folder / "rows.jsonl"), heldout_share=0.3, prompts_per_step=7),
            optimizer=AdapterOptimizerConfig(learning_rate=1e-2, warmup_updates=0),
            training=AdapterTrainingConfig(steps=STEPS, micro_batch_size=2),
            stopping=StoppingConfig(every=2),
            output=OutputConfig(directory=str(folder / "runs"), name="run", trackers=(), images_every=0),
        ),
        encoder=WordCounts(),
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]))
    print("the adapter is trained")
