"""The demo's configs: what they promise, and two of their steps, with evaluation and report."""

import json

import pytest

from align.config.load import load_config
from preference import commands
from preference.tiny import reward

SMALL = (
    *("training.steps=2", "optimizer.warmup_updates=0", "data.pairs_per_step=4", "evaluation.pairs=5"),
    "evaluation.generate.limit=6",
)


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_two_steps(name, tmp_path) -> None:
    config = load_config(f"demo/{name}_tiny", [*SMALL, f"output.directory={tmp_path}", "output.trackers=[]"])
    folder = commands.train(config, name=name)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "loss" in row] == [1, 2]
    for step in (0, 2):
        rows = json.loads((folder / "evaluations" / f"step_{step:06d}.json").read_text())["rows"]
        answered = [row for row in rows if row.get("completion") is not None]
        assert len(answered) == 6
        for row in answered:
            (score,) = reward.correct(prompts=[row["prompt"]], completions=[row["completion"]])
            assert row["rewards"]["correct"] == score
    assert (folder / "report.html").is_file()
