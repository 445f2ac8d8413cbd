"""The pages on several rewards: the computed example gives its table, and its settings load in both branches."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from align.config.pipeline import PipelineConfig
from align.config.shaping import Lsc, ReferenceConstant, ReferencePrompt
from preference.config.candidates import CandidatesConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "several_rewards.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Logical AND against weighted sum")[2].partition("\n## ")[0]
GROUPS = PAGE.partition("## User groups")[2].partition("\n## ")[0]


def numbers(text):
    return [float(found) for found in re.findall(r"[-+]?\d+\.\d+", text)]


def test_the_example_gives_the_table():
    (source,) = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    names: dict = {}
    exec(compile(source, "several_rewards.md", "exec"), names)
    rows = [numbers(line) for line in SECTION.splitlines() if line.startswith("| ") and numbers(line)]
    assert len(rows) == 4
    for column, (name, field) in enumerate(
        [(name, field) for name in ("weighted sum", "logical AND") for field in ("scores", "advantages")]
    ):
        found = getattr(names["found"][name], field).tolist()
        assert [row[column] for row in rows] == pytest.approx(found, abs=0.006), (name, field)


def test_a_reference_for_each_reward_is_written_in_a_file_of_either_branch():
    (text,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.S)
    pipeline = yaml.safe_load(text)["pipeline"]
    expected = (
        Lsc(rewards=("beauty",), reference=ReferencePrompt()),
        Lsc(rewards=("text",), reference=ReferenceConstant(value=0.8), scale=0.1),
    )
    assert TypeAdapter(PipelineConfig).validate_python(pipeline).transforms == expected
    candidates = TypeAdapter(CandidatesConfig).validate_python({"transforms": pipeline["transforms"]})
    assert candidates.shaping().transforms == expected


def test_settings_for_user_groups_load():
    (text,) = re.findall(r"```yaml\n(.*?)```", GROUPS, re.S)
    found = TypeAdapter(PipelineConfig).validate_python(yaml.safe_load(text)["pipeline"])
    assert found.inputs == {"user_groups": "user_group"}
    assert found.shapers[0].kind == "user_soft_min"
