"""Every on-line method under directions: what is told, what is scored, and that gradients reach the embedding."""

from dataclasses import replace

import pytest
import torch

from align.config.directions import Arc
from align.config.group_relative import Grpo
from align.config.pipeline import PipelineConfig
from align.config.shaping import Directional, DrawnDirection
from align.config.shared import RewardConfig
from align.shaping.directions import from_integers
from diffusion.config import (
    AwmConfig,
    DirectionsConfig,
    DiscreteTimes,
    EmbeddingCondition,
    FlowGrpoConfig,
    FlowSdeSampler,
    NftConfig,
    OnlineDpoConfig,
    PromptCondition,
    RolloutTimes,
    RwrConfig,
    SftBestConfig,
)
from diffusion.directions.ask import Asker
from diffusion.directions.policy import SteeredPolicy

from ..models.assembled import RUN, assemble
from ..models.miniature import PROMPTS

EMBEDDING = EmbeddingCondition(hidden=6, frequencies=1, dropout=0.0)
DRAWS = DiscreteTimes(draws=2)
METHODS = {
    "awm": (AwmConfig(times=DRAWS), RUN.rollout.sampler),
    "nft": (NftConfig(times=RolloutTimes(draws=2)), RUN.rollout.sampler),
    "rwr": (RwrConfig(times=DRAWS), RUN.rollout.sampler),
    "sft_best": (SftBestConfig(times=DRAWS, kl_beta=0.1), RUN.rollout.sampler),
    "online_dpo": (OnlineDpoConfig(), RUN.rollout.sampler),
    "flow_grpo": (FlowGrpoConfig(), FlowSdeSampler()),
}


def run(condition=EMBEDDING, method="awm"):
    algorithm, sampler = METHODS[method]
    return replace(
        RUN,
        rewards=(RewardConfig(function="brightness"), RewardConfig(function="contrast")),
        pipeline=PipelineConfig(
            weights=DrawnDirection(), combine=Directional(), base=Grpo(scale="group", unbiased=False)
        ),
        directions=DirectionsConfig(sample=Arc(low=-90, high=90), condition=condition),
        algorithm=algorithm,
        rollout=replace(RUN.rollout, sampler=sampler),
    )


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_the_embedding(method):
    """And the reference of the pull, or of the pair, is the base: at the start all differences to it are 0."""
    parts = assemble(run(method=method))
    batch = parts.awm.collect(1)
    parts.awm.prepare_update(0, batch)
    parts.policy.module.zero_grad()
    out = parts.awm.loss(batch.passes()[0] if hasattr(batch, "passes") else batch)
    out.loss.backward()
    assert isinstance(parts.policy, SteeredPolicy)
    gradient = parts.policy.embedding.second.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    assert float(out.metrics.get("kl", 0.0)) == 0


def test_scores_are_along_the_direction_that_the_rows_were_told():
    """Two groups of four. Rows of a group share a row of the conditioning; score = v . (brightness, contrast)."""
    config = run()
    asker = Asker.of(config)
    assert asker is not None
    batch = assemble(config).awm.collect(1)
    assert len(batch.conditioning) == 2
    for row, group in enumerate(batch.samples.group_ids.tolist()):
        v = from_integers(asker.direction(group))
        assert batch.conditioning["direction"][batch.prompt_rows[row]].tolist() == pytest.approx(v.tolist())
        expected = float(v @ batch.rewards.values[row].double())
        assert float(batch.signal.scores[row]) == pytest.approx(expected, abs=1e-6)
    labels = {name.split("/")[1] for name in batch.signal.stats if name.startswith("directions/")}
    assert labels <= {asker.label(vector) for vector in asker.shown}
    assert labels


def test_rewards_see_the_prompt_without_its_direction():
    config = run(PromptCondition(template="{brightness} {contrast}"), "sft_best")
    config = replace(config, algorithm=replace(config.algorithm, kl_beta=0.0))
    parts = assemble(config)
    read: list[str] = []
    encode = parts.model.encode
    parts.model.encode = lambda texts: read.extend(texts) or encode(texts)
    batch = parts.awm.collect(1)
    assert batch.samples is not None
    assert set(batch.samples.prompts) <= set(PROMPTS)
    asker = Asker.of(config)
    assert asker is not None
    groups = dict(zip(batch.samples.group_ids.tolist(), batch.samples.prompts, strict=True))
    expected = {asker.texts([prompt], asker.direction(group))[0] for group, prompt in groups.items()}
    assert set(read) == expected  # of the rollout, and once more of the best pictures
    assert len(read) == 2 * len(groups)


def test_a_step_has_other_directions_than_the_one_before():
    parts = assemble(run())
    first, third = (parts.awm.collect(step).conditioning["direction"] for step in (1, 3))
    assert not torch.equal(first, third)
