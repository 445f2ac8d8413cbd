"""Held-out pictures for an audit: scored twice, with what a reward may be about; and the tables that a run keeps."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from align.config.shared import RewardConfig
from align.engine.reward_tables import read_table, table_files
from align.errors import AlignError
from align.inspect.audit.rows import read_rows
from align.inspect.replay.run import reproduces
from align.inspect.replay.settings import ReplaySettings
from align.inspect.replay.sources import stored_steps
from align.rewards.scorer import Scorer
from diffusion import commands
from diffusion.audit import is_cached, scored_pictures, write_rows
from diffusion.config import EvaluationConfig, PromptsConfig, RolloutConfig
from diffusion.evaluate import evaluation_sampler
from diffusion.prompts import PromptSet

from .models.config import miniature_run
from .models.miniature import PROMPTS, miniature

HELDOUT = PromptSet(prompts=PROMPTS, columns={"class": ("one", "one", "placed", "size")})


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class Shaky(Scorer):
    """Every scoring of brightness is 0.25 higher than the one before."""

    calls = 0

    def score(self, samples):
        table = super().score(samples)
        table.values[:, 0] += 0.25 * self.calls
        self.calls += 1
        return table


def drawn(folder, scorer, cached=(), **options):
    model = miniature()
    settings = evaluation_sampler(EvaluationConfig(num_inference_steps=2), RolloutConfig(batch_size=8))
    found = scored_pictures(model, model.network, HELDOUT, scorer, settings, lambda stage: nullcontext(), **options)
    return write_rows(found, folder, cached)


def test_two_pictures_of_three_prompts(tmp_path):
    """Classes take turns: the first prompts of each class come first."""
    scorer = Shaky([RewardConfig(function=name) for name in ("brightness", "contrast")])
    path = drawn(tmp_path, scorer, ("contrast",), samples=2, prompts=3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["prompt"], row["class"], row["seed"]) for row in rows] == [
        (PROMPTS[place], name, seed) for place, name in ((0, "one"), (2, "placed"), (3, "size")) for seed in (0, 1)
    ]
    found = read_rows(path)
    assert found.group_ids.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(found.again[:, 0], found.values[:, 0] + 0.25)
    assert found.again[:, 1].isnan().all()  # its second answer would come from a cache
    torch.testing.assert_close(found.features["brightness"], found.values[:, 0], atol=1e-6, rtol=0)
    with Image.open(tmp_path / rows[5]["image"]) as picture:
        assert picture.size == (16, 16)


def test_which_rewards_answer_from_a_cache():
    assert is_cached(RewardConfig(function="http"))
    assert not is_cached(RewardConfig(function="http", options={"cache": False}))
    assert not is_cached(RewardConfig(function="brightness"))


def test_a_run_keeps_its_tables_and_can_be_replayed_and_audited(tmp_path):
    config = miniature_run(tmp_path)
    folder = commands.train(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    tables = [read_table(path) for path in table_files(folder)]
    assert [table.step for table in tables] == [1, 2]
    assert all(len(table) == 8 and table.table.names == ("brightness",) for table in tables)
    lines = (folder / "samples" / "step_000002.jsonl").read_text().splitlines()
    assert [json.loads(line)["advantage"] for line in lines] == tables[1].advantages.tolist()
    own = ReplaySettings(weights={"brightness": 1.0}, pipeline=config.pipeline)
    assert reproduces(stored_steps(folder).tables, own)[0]
    written = commands.draw_scored(config, samples=2, prompts=1, output=tmp_path / "audit")
    assert len(read_rows(written)) == 2


def test_without_held_out_prompts_there_is_nothing_to_draw(tmp_path):
    config = miniature_run(tmp_path, prompts=PromptsConfig(train="builtin:tiny/train", heldout=None))
    with pytest.raises(AlignError, match=r"`prompts.heldout` is null, so there is nothing to draw"):
        commands.draw_scored(config, samples=1, prompts=1, output=tmp_path / "audit")
