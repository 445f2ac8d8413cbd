"""A miniature, its prompts and rewards, and the settings of short runs of DPA on it."""

import json

from align.config.directions import Arc
from align.config.shared import LoraConfig, OutputConfig, RewardConfig
from preference.config import CausalLm, GenerationConfig, TextCheckpointConfig, TextOptimizerConfig, TextTrainingConfig
from preference.dpa.config import DpaConfig, DpaRun, PromptsConfig, SteeringConfig

from ..tokenizers import model_folder

REWARDS = """
def vowels(completions, **_):
    return [sum(c in "aeiou" for c in text) / (len(text) + 1) for text in completions]


def length(completions, **_):
    return [float(len(text)) for text in completions]
"""


def write_inputs(root):
    """Model, rewards and prompts in a folder."""
    model_folder(root / "model")
    (root / "rewards.py").write_text(REWARDS)
    for name, count in (("train", 12), ("heldout", 3)):
        rows = [{"prompt": [{"role": "user", "content": f"{name} {number}"}]} for number in range(count)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config_of(folder, **algorithm):
    usual = {"rounds": 2, "prompts_per_round": 8, "samples": 3, "max_new_tokens": 6, "directions": Arc()}
    return DpaRun(
        model=CausalLm(path=str(folder / "model"), lora=LoraConfig(rank=2, alpha=4.0, targets="all_linear")),
        data=PromptsConfig(
            train=str(folder / "train.jsonl"),
            heldout=str(folder / "heldout.jsonl"),
            max_length=256,
            max_prompt_length=200,
            answers_per_step=4,
        ),
        rewards=tuple(RewardConfig(function=f"{folder / 'rewards.py'}:{name}") for name in ("vowels", "length")),
        algorithm=DpaConfig(**{**usual, **algorithm}),
        optimizer=TextOptimizerConfig(learning_rate=1e-2),
        training=TextTrainingConfig(steps=4, micro_batch_size=4),
        evaluation=SteeringConfig(count=3, generate=GenerationConfig(max_new_tokens=4, limit=2)),
        checkpoint=TextCheckpointConfig(every=1, keep_last=9),
        output=OutputConfig(directory=str(folder / "runs"), trackers=(), images_every=0),
    )
