"""A saved config is itself runnable and loads to an equal object, from any folder."""

import json
import os
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from align.config.group_relative import DrGrpo, FlowGrpo, Grpo, Rloo
from align.config.load import adapter, load_config, save_config, to_plain
from align.config.pipeline import PipelineConfig
from align.config.shared import EmaConfig, LoraConfig, OptimizerConfig, OutputConfig, RewardConfig
from diffusion.config import (
    AwmConfig,
    DiffusionRun,
    DiscreteTimes,
    EvaluationConfig,
    FlowSdeSampler,
    LaggedPolicyConfig,
    LinearLag,
    LogitNormalTimes,
    OdeSampler,
    RolloutConfig,
    SaSolverSampler,
    Sd3Model,
    UniformTimes,
)

floats = st.floats(1e-12, 1e12)
names = st.text(min_size=1, max_size=12).filter(lambda text: ".py:" not in text)
options = st.dictionaries(names, st.none() | st.booleans() | st.integers(-9, 9) | floats | names, max_size=3)
rewards = st.lists(
    st.builds(RewardConfig, function=names, name=st.none() | names, weight=floats, options=options), max_size=3
).map(tuple)
optimizers = st.builds(OptimizerConfig, learning_rate=floats, eps=floats, max_grad_norm=st.none() | floats)
adapters = st.builds(LoraConfig, targets=st.sampled_from(["attention", "all_linear"]) | st.lists(names).map(tuple))
samplers = st.sampled_from([OdeSampler(), FlowSdeSampler(noise_level=0.3), SaSolverSampler(noise_from=0.1)])
times = st.sampled_from([DiscreteTimes(draws=2), UniformTimes(lowest=0.1), LogitNormalTimes(mean=-1.0)])
estimators = st.sampled_from([Grpo(scale="none"), DrGrpo(singleton="raw"), Rloo(), FlowGrpo(global_std=False)])


@given(
    seed=st.integers(0, 2**63 - 1),
    project=st.text(max_size=20),
    rewards=rewards,
    evaluated=rewards,
    optimizer=optimizers,
    lora=st.none() | adapters,
    ema=st.none() | st.builds(EmaConfig, decay=st.floats(0, 0.999)),
    sampler=samplers,
    times=times,
    base=estimators,
    lagged=st.sampled_from([None, LaggedPolicyConfig(schedule=LinearLag(max_decay=0.2))]),
)
def test_saved_and_loaded_is_equal(
    tmp_path_factory, seed, project, rewards, evaluated, optimizer, lora, ema, sampler, times, base, lagged
):
    run = DiffusionRun()
    run = replace(
        run,
        seed=seed,
        rewards=rewards,
        optimizer=optimizer,
        model=Sd3Model(lora=lora),
        evaluation=EvaluationConfig(rewards=evaluated),
        training=replace(run.training, ema=ema),
        output=OutputConfig(project=project),
        rollout=RolloutConfig(sampler=sampler),
        algorithm=AwmConfig(times=times, lagged=lagged),
        pipeline=PipelineConfig(base=base),
    )
    path = save_config(run, tmp_path_factory.mktemp("saved") / "config.yaml", command="align demo")
    assert load_config(path, check=False) == run


def test_relative_paths_survive_a_change_of_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prompts.txt").write_text("a red circle\n")
    (tmp_path / "data" / "run.yaml").write_text(
        "branch: diffusion\nprompts: {train: prompts.txt}\nrewards: [{function: 'r.py:f'}]\n"
    )
    first = load_config(tmp_path / "data" / "run.yaml", check=False)
    saved = save_config(first, tmp_path / "elsewhere.yaml")
    os.makedirs(tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    assert load_config(saved, check=False) == first
    assert first.prompts.train == str(tmp_path / "data" / "prompts.txt")
    assert first.rewards[0].function == f"{tmp_path / 'data' / 'r.py'}:f"


def test_the_command_is_in_the_head_of_the_file(tmp_path):
    text = save_config(DiffusionRun(), tmp_path / "c.yaml", command="align demo seed=3").read_text()
    assert text.startswith("# Made by: align demo seed=3\n# ")
    assert "mixed_precision: 'no'" in text  # quoted for readers of YAML 1.1


def test_every_default_is_valid():
    """The defaults in the dataclasses obey their own ranges."""
    assert adapter(DiffusionRun).validate_json(json.dumps(to_plain(DiffusionRun()))) == DiffusionRun()
