"""Contradictions that any branch can have."""

from hypothesis import given
from hypothesis import strategies as st

from align.config.checks import (
    check_device,
    check_groups,
    check_optimizer,
    check_output,
    check_precision,
    check_rewards,
    check_updates,
    nearest_divisors,
)
from align.config.group_relative import FlowGrpo
from align.config.pipeline import PipelineConfig
from align.config.shared import LoraConfig, OptimizerConfig, OutputConfig, RewardConfig, TrainingConfig


def texts(problems):
    return [str(problem) for problem in problems]


def test_rewards(tmp_path):
    good = RewardConfig(function="brightness")
    assert texts(check_rewards([good])) == []
    assert "there is no reward" in texts(check_rewards([]))[0]
    assert "every reward has weight 0" in texts(check_rewards([RewardConfig(function="contrast", weight=0.0)]))[0]
    (same,) = check_rewards([good, RewardConfig(function="package.module:brightness")])
    assert same.keys == ("rewards.0", "rewards.1")
    assert "2 rewards are called `brightness`" in str(same)
    assert texts(check_rewards([good, RewardConfig(function="m:brightness", name="other")])) == []
    (clash,) = check_rewards([good], [good])
    assert clash.keys == ("rewards.0", "evaluation.rewards.0")
    (missing,) = check_rewards([RewardConfig(function=f"{tmp_path}/r.py:f")])
    assert missing.keys == ("rewards.0.function",)
    (misspelt,) = check_rewards([RewardConfig(function="brightnes")])
    assert misspelt.keys == ("rewards.0.function",)
    assert "Did you mean `brightness`?" in str(misspelt)
    (tmp_path / "r.py").touch()
    assert texts(check_rewards([RewardConfig(function=f"{tmp_path}/r.py:f")])) == []


def test_groups():
    assert texts(check_groups(PipelineConfig(), 2)) == []
    assert "every advantage would be 0" in texts(check_groups(PipelineConfig(), 1))[0]
    assert texts(check_groups(PipelineConfig(base=FlowGrpo(singleton="raw")), 1)) == []


def test_updates_that_do_not_divide():
    """64 samples in 5 updates: divisors 4 and 8 of 64 are next to 5; 60 and 65 are the multiples of 5 next to 64."""
    (problem,) = check_updates(64, TrainingConfig(updates_per_rollout=5), 1)
    assert "64 samples a step cannot be cut into 5 equal optimiser updates" in problem.message
    assert "`training.updates_per_rollout=4` or `training.updates_per_rollout=8`" in problem.way_out
    assert "60 or 65" in problem.way_out
    assert texts(check_updates(64, TrainingConfig(updates_per_rollout=4), 16)) == []


def test_more_processes_than_samples_of_an_update():
    (problem,) = check_updates(8, TrainingConfig(updates_per_rollout=4), 3)
    assert "3 processes share the 2 samples" in problem.message
    assert "at most 2 processes, or at least 12 samples a step" in problem.way_out


def test_more_updates_than_samples():
    (problem,) = check_updates(4, TrainingConfig(updates_per_rollout=8), 1)
    assert "`training.updates_per_rollout=4`" in problem.way_out


@given(st.integers(1, 500), st.integers(1, 600))
def test_nearest_divisors(number, wanted):
    """They divide, and no divisor lies between them and the wanted number."""
    found = nearest_divisors(number, wanted)
    assert 1 <= len(found) <= 2
    for value in found:
        assert number % value == 0
        low, high = sorted((value, wanted))
        assert all(number % between for between in range(low + 1, high))
    assert (wanted in found) == (number % wanted == 0)


def test_warm_up():
    optimizer = OptimizerConfig(warmup_updates=20)
    assert texts(check_optimizer(optimizer, TrainingConfig(steps=11, updates_per_rollout=2))) == []
    (problem,) = check_optimizer(optimizer, TrainingConfig(steps=10, updates_per_rollout=2))
    assert "at most 19" in problem.way_out


def test_precision():
    lora = LoraConfig()
    assert texts(check_precision(TrainingConfig(mixed_precision="bf16"), "bfloat16", lora)) == []
    assert texts(check_precision(TrainingConfig(mixed_precision="fp16"), "float32", lora)) == []
    assert texts(check_precision(TrainingConfig(), "float16", None)) == []
    assert "computes in bf16" in texts(check_precision(TrainingConfig(mixed_precision="bf16"), "float16", lora))[0]
    assert "converts neither" in texts(check_precision(TrainingConfig(), "bfloat16", lora))[0]


def test_fp16_needs_an_accelerator():
    assert "fp16 needs an accelerator" in texts(check_device(TrainingConfig(mixed_precision="fp16"), "cpu"))[0]
    assert texts(check_device(TrainingConfig(mixed_precision="fp16"), "cuda")) == []
    assert texts(check_device(TrainingConfig(mixed_precision="bf16"), "cpu")) == []


def test_output():
    assert texts(check_output(OutputConfig(name="my_run"))) == []
    assert "names one twice" in texts(check_output(OutputConfig(trackers=("wandb", "wandb"))))[0]
    for name in ("a/b", "..", ""):
        assert "name of a folder" in texts(check_output(OutputConfig(name=name)))[0]
