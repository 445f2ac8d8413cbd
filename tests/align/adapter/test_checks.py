"""Settings that contradict each other or the files, and the plan, before anything is loaded."""

import json
from dataclasses import replace

import pytest

from align.adapter.checks import contradictions
from align.adapter.config import AdapterOptimizerConfig, RowsConfig, TargetConfig
from align.adapter.plan import plan
from align.encoders.config import TransformersEncoder

from .stub import OBJECTIVES, adapter_run


def told(config, processes=1):
    return " ".join(problem.message for problem in contradictions(config, processes))


def test_a_good_run_has_none_and_a_plan(tmp_path):
    config = adapter_run(tmp_path)
    assert told(config) == ""
    made = plan(config, 2)
    rows = {row.label: row.value for section in made.sections for row in section.rows}
    assert (rows["rows"], rows["rows a step"], rows["normaliser"]) == ("120", "32", "minmax")


CHANGES = {
    "one objective": ({"objectives": ("helpful",)}, "expects two or more different rewards, found helpful"),
    "twice": ({"objectives": ("helpful", "helpful")}, "expects two or more different rewards, found helpful, helpful"),
    "no column": ({"objectives": (*OBJECTIVES, "tone")}, "has no rewards of the preferred response for all of"),
    "no rejected": ({"target": TargetConfig(contrastive=True)}, "has no rewards of the rejected response"),
    "no file": ({"data": RowsConfig(train="none.jsonl")}, "`data.train`: expected a file ending in"),
    "no encoder": ({"encoder": TransformersEncoder(path="/no/folder")}, "expects a folder with a config.json"),
    "warm-up": ({"optimizer": AdapterOptimizerConfig(warmup_updates=600)}, "the warm-up takes 600 updates"),
    "recipe": ({"recipe": "nothing"}, "there is no shipped config `nothing`"),
}


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=list(CHANGES))
def test_contradictions(tmp_path, changes, message):
    assert message in told(adapter_run(tmp_path, **changes))


def test_an_objective_that_never_differs(tmp_path):
    """Rows that lack it do not count; a row of its own is no evidence."""
    rows = [{"prompt": f"p {i}", "rewards": {"helpful": i, "harmless": 0.5}} for i in range(40)]
    rows += [{"prompt": "q", "rewards": {"helpful": 1}}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = adapter_run(tmp_path, objectives=("helpful", "harmless"))
    assert "`harmless` is 0.5 in all 40 rows" in told(config)
    assert "no prompt can say how much it counts" in told(config)


def test_settings_of_large_networks_and_too_many_processes(tmp_path):
    config = adapter_run(tmp_path)
    assert "`training.compile` is on" in told(replace(config, training=replace(config.training, compile=True)))
    assert "64 processes share the 32 samples" in told(config, processes=64)
