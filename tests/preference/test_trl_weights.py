"""Prompts of TRL's GRPOTrainer weighed by a preference adapter: advantages by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from align.config.group_relative import DrGrpo
from align.config.pipeline import PipelineConfig
from align.config.shaping import AdapterWeights
from align.errors import AlignError
from preference.trl import attach

CONFIG = PipelineConfig(weights=AdapterWeights(path="adapter"), base=DrGrpo(), clip=None)
PROMPTS = ["cats", "cats", [{"role": "user", "content": "dogs"}], [{"role": "user", "content": "dogs"}]]


class Fake:
    """A trainer of one process: two prompts with two completions each, two rewards."""

    def __init__(self):
        self.accelerator = SimpleNamespace(process_index=0, num_processes=1)
        self.model = SimpleNamespace(training=True)
        self.num_generations = 2
        self.reward_func_names = ["good", "short"]
        self.reward_weights = torch.ones(2)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        return torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])

    def _generate_and_score_completions(self):
        self._calculate_rewards([], PROMPTS, [], [])
        return {"advantages": torch.zeros(4)}


class Weigher:
    """cats: 0.75 good; everything else: 0.1 good."""

    def by_name(self, prompts):
        good = torch.tensor([0.75 if prompt == "cats" else 0.1 for prompt in prompts])
        return {"short": 1 - good, "good": good}


def test_each_prompt_has_its_own_weights_by_hand():
    """Scores 0.75, 0.25 (mean 0.5) and 0.1, 0.9 (mean 0.5)."""
    trainer = Fake()
    signal = attach(trainer, CONFIG, weigher=Weigher())
    found = trainer._generate_and_score_completions()["advantages"]
    assert_close(found, torch.tensor([0.25, -0.25, -0.4, 0.4]))
    assert signal.last.stats["weights/good"] == pytest.approx(0.425)


def test_without_a_weigher_it_is_refused():
    with pytest.raises(AlignError, match="adapter needs `prompt_weights`"):
        attach(Fake(), CONFIG)
