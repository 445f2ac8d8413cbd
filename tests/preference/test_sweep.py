"""A sweep that trains two settings on a miniature, beside a policy with two directions; repeated, it trains none."""

import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

from align.cli.app import app
from align.config.load import save_config
from align.config.shared import LoraConfig, OutputConfig, RewardConfig
from preference import commands
from preference.config import (
    CausalLm,
    EvaluationConfig,
    GenerationConfig,
    PairsConfig,
    PreferenceRun,
    SimpoConfig,
    TextOptimizerConfig,
    TextTrainingConfig,
)
from preference.dpa import commands as dpa_commands
from preference.dpa.config import DpaConfig, DpaRun, Listed, PromptsConfig, SteeringConfig

from .tokenizers import model_folder

REWARDS = """
def vowels(completions, prompts, **_):
    assert all(prompt.startswith("say") for prompt in prompts), prompts
    return [sum(c in "aeiou" for c in text) / (len(text) + 1) for text in completions]


def length(completions, **_):
    return [float(len(text)) for text in completions]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Settings of a SimPO run as a file, and a finished run of DPA on the same held-out prompts."""
    root = tmp_path_factory.mktemp("sweep")
    model_folder(root / "model")
    (root / "rewards.py").write_text(REWARDS)
    for name, count in (("train", 8), ("heldout", 3)):
        answers = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
        prompts = [[{"role": "user", "content": f"say {name} {number}"}] for number in range(count)]
        rows = [{"prompt": prompt, **answers} for prompt in prompts]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "model": CausalLm(path=str(root / "model"), lora=LoraConfig(rank=2, alpha=4.0, targets="all_linear")),
        "training": TextTrainingConfig(steps=2, micro_batch_size=4),
        "output": OutputConfig(directory=str(root), trackers=(), images_every=0),
    }
    data = {"train": str(root / "train.jsonl"), "heldout": str(root / "heldout.jsonl"), "max_length": 200}
    rewards = tuple(RewardConfig(function=f"{root / 'rewards.py'}:{name}") for name in ("vowels", "length"))
    generate = GenerationConfig(max_new_tokens=4, limit=2)
    config = PreferenceRun(
        data=PairsConfig(**data, max_prompt_length=150, pairs_per_step=4),
        algorithm=SimpoConfig(),
        optimizer=TextOptimizerConfig(learning_rate=1e-3),
        evaluation=EvaluationConfig(generate=generate, rewards=rewards),
        **shared,
    )
    save_config(config, root / "simpo.yaml")
    steered = DpaRun(
        data=PromptsConfig(**data, max_prompt_length=150, answers_per_step=2),
        rewards=rewards,
        algorithm=DpaConfig(
            directions=Listed(directions=({"vowels": 1.0}, {"length": -1.0})),
            placement="prefix",
            rounds=1,
            samples=6,
            max_new_tokens=6,
        ),
        evaluation=SteeringConfig(count=2, generate=generate),
        **shared,
    )
    dpa_commands.train(replace(steered, output=replace(steered.output, name="dpa")))
    AcceleratorState._reset_state(reset_partial_state=True)
    return root


def sweep(folder):
    tries = [part for rate in ("0.01", "0.1") for part in ("--try", f"optimizer.learning_rate={rate}")]
    box = ["--reference", "vowels=-1,-length=-50", "--high", "vowels=1,-length=0"]
    arguments = [str(folder / "simpo.yaml"), f"steered={folder / 'dpa'}", *tries, "-O", "vowels,-length", *box]
    output = ["-o", str(folder / "out"), "--resamples", "100"]
    done = CliRunner().invoke(app, ["sweep", *arguments, *output], catch_exceptions=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert done.exit_code == 0, done.output
    return json.loads((folder / "out" / "sweep.json").read_text())


def test_two_settings_and_a_steered_policy(folder, monkeypatch):
    """Prompts of DPA are compared, and shown to rewards, without the text of their direction."""
    record = sweep(folder)
    assert [(one["name"], one["points"]) for one in record["systems"]] == [("simpo", 2), ("steered", 2)]
    assert [one["point"] for one in record["points"]] == [
        "optimizer.learning_rate=0.01",
        "optimizer.learning_rate=0.1",
        "vowels 100",
        "length -100",
    ]
    assert record["prompts"] == 2
    runs = sorted(path.name for path in (folder / "out" / "runs").iterdir())
    assert runs == ["simpo-optimizer.learning_rate=0.01", "simpo-optimizer.learning_rate=0.1"]
    rows = json.loads((folder / "out" / "runs" / runs[0] / "evaluations/step_000002.json").read_text())["rows"]
    lengths = [row["rewards"]["length"] for row in rows if "completion" in row]
    mean = sum(lengths) / len(lengths)
    assert record["points"][0]["means"]["-length"]["mean"] == pytest.approx(-mean)
    html = (folder / "out" / "sweep.html").read_text()
    assert "“say heldout 0”" in html
    assert "steered: length -100" in html
    monkeypatch.setattr(commands, "train", None)  # nothing is left to train
    assert sweep(folder) == record
