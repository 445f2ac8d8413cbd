"""Presets: they validate, run, print as YAML, and give the numbers of their sources."""

import json
import math
import subprocess
import sys

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from align import presets
from align.config.load import to_plain
from align.config.pipeline import PipelineConfig
from align.errors import AlignError
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable

IDS = torch.tensor([0, 0, 0, 1, 1, 1])
SCORES = torch.tensor([1.0, 2.0, 6.0, 4.0, 4.0, 1.0])


def signal(name):
    table = RewardTable(names=("a",), values=SCORES.unsqueeze(1), weights=torch.tensor([1.0]))
    return SignalPipeline(presets.preset(name).pipeline)(table, IDS)


@pytest.mark.parametrize("name", presets.names())
def test_runs_and_reads_back(name):
    chosen = presets.preset(name)
    assert chosen.source
    assert signal(name).advantages.isfinite().all()
    again = yaml.safe_load(presets.to_yaml(chosen))["pipeline"]
    assert again == to_plain(chosen.pipeline)
    assert TypeAdapter(PipelineConfig).validate_json(json.dumps(again)) == chosen.pipeline


def test_numbers_by_hand():
    """Group 0: 1 2 6, mean 3, deviations -2 -1 3 (squares 14: std sqrt 7 with n - 1, sqrt(14/3) with n).

    Group 1: 4 4 1, mean 3, deviations 1 1 -2. All six: mean 3, squares 14 + 6 = 20, std sqrt(20 / 6) with n.
    """
    deviation = torch.tensor([-2.0, -1.0, 3.0, 1.0, 1.0, -2.0])
    unbiased = torch.tensor([math.sqrt(7)] * 3 + [math.sqrt(3)] * 3)
    population = torch.tensor([math.sqrt(14 / 3)] * 3 + [math.sqrt(2)] * 3)
    expected = {
        "grpo": deviation / (unbiased + 1e-4),
        "dr_grpo": deviation,
        "rloo": 1.5 * deviation,
        "flow_grpo": deviation / (math.sqrt(20 / 6) + 1e-4),
        "awm": deviation / (math.sqrt(20 / 6) + 1e-4),
        "flow_grpo_group_std": deviation / (population + 1e-4),
        "flow_factory": deviation / population,
        "verl_omni": deviation / (unbiased + 1e-4),
    }
    for name, advantages in expected.items():
        torch.testing.assert_close(signal(name).advantages, advantages, rtol=1e-5, atol=1e-6)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(AlignError, match=r"no preset `flow_grp`\. Did you mean `flow_grpo`"):
        presets.preset("flow_grp")


def test_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "align.presets", "gdpo"], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.startswith("# gdpo: Liu et al., arXiv:2601.05242")
    assert yaml.safe_load(done.stdout)["pipeline"]["combine"]["missing"] == "skip"


def test_needs_no_torch():
    code = "import sys, align.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
