"""An encoder that counts words, and rows whose weights follow a known rule from the words of the prompt."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.adapter.config import (
    AdapterCheckpointConfig,
    AdapterOptimizerConfig,
    AdapterRun,
    AdapterTrainingConfig,
    HeadConfig,
    RowsConfig,
    StoppingConfig,
    TargetConfig,
)
from align.adapter.files import save_adapter
from align.adapter.record import AdapterRecord
from align.config.shared import OutputConfig
from align.shaping.adapter import PreferenceAdapter
from align.shaping.normaliser import Normaliser

OBJECTIVES = ("helpful", "harmless", "brief")
WORDS = ("explain", "poison", "short", "the", "cat", "a", "dog", "why")


class WordCounts:
    """One number per word of a small vocabulary. `calls` counts the texts that it has been asked for."""

    name = "word counts"

    def __init__(self, words: Sequence[str] = WORDS) -> None:
        self.words, self.calls = tuple(words), 0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.calls += len(texts)
        return torch.tensor([[float(text.split().count(word)) for word in self.words] for text in texts])

    def fingerprint(self) -> str:
        return "counts-of-" + "-".join(self.words)


def rewards_of(prompt: str) -> dict[str, float]:
    """The rule: each of the first three words of the vocabulary asks for one objective."""
    words = prompt.split()
    return {name: float(words.count(word)) for name, word in zip(OBJECTIVES, WORDS[:3], strict=True)}


def write_rows(path: Path, count: int, *, seed: int = 0, rule: bool = True) -> Path:
    """Rows with preferred rewards by the rule, or by chance."""
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        prompt = " ".join(draw.choice(WORDS) for _ in range(6)) + f" {number}"
        chance = {name: draw.random() for name in OBJECTIVES}
        lines.append({"prompt": prompt, "rewards": rewards_of(prompt) if rule else chance})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def decided_adapter(folder: Path, objectives: Sequence[str], encoder: Any, taught: Normaliser, strength: float) -> Path:
    """A saved adapter of two objectives that needs no training: number i of the encoder speaks for objective i.

    Args:
        folder: where it is saved.
        objectives: two names.
        encoder: a stub of two numbers per text.
        taught: the scale of its rewards; its name is the target's.
        strength: factor of the encoder's numbers, behind which GELU leaves the positive ones all but alone.
    """
    network = PreferenceAdapter(2, 2, hidden_size=2)
    with torch.no_grad():
        network.hidden.weight.copy_(strength * torch.eye(2))
        network.hidden.bias.zero_()
        network.out.weight.copy_(torch.eye(2))
    record = AdapterRecord(
        objectives=tuple(objectives),
        encoder={"kind": "minilm"},
        encoder_name="words",
        encoder_fingerprint=encoder.fingerprint(),
        embedding_size=2,
        hidden_size=2,
        temperature=1.0,
        target={"normaliser": taught.method},
    )
    return save_adapter(folder, network.state_dict(), taught, record)


def adapter_run(folder: Path, **changes: Any) -> AdapterRun:
    """A short run on 120 rows; keywords replace whole sections."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    if not rows.exists():
        write_rows(rows, 120)
    config = AdapterRun(
        objectives=OBJECTIVES,
        data=RowsConfig(train=str(rows), heldout_share=0.25, prompts_per_step=32),
        head=HeadConfig(hidden_size=24),
        target=TargetConfig(temperature=0.3),
        optimizer=AdapterOptimizerConfig(learning_rate=1e-2, warmup_updates=5),
        training=AdapterTrainingConfig(steps=60, micro_batch_size=20),
        stopping=StoppingConfig(every=10, patience=3),
        checkpoint=AdapterCheckpointConfig(every=20),
        output=OutputConfig(directory=str(folder / "runs"), name="run", trackers=(), images_every=0),
    )
    return replace(config, **changes)
