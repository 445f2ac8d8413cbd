"""What a step can bring for estimators is built where it is needed, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from align.advantages import AdvantageInputs, available
from align.advantages.registry import find
from align.config.credit import ReferenceGain
from align.config.estimators import Canon, DdpoTracked, HapoTokenGroup, Opo, Remax
from align.config.group_relative import Grpo
from align.config.needs import needs_of
from align.config.pipeline import PipelineConfig
from align.config.trees import Tempo
from align.errors import AlignError
from diffusion.inputs import (
    GREEDY,
    ON_A_CHAIN,
    PROVIDERS,
    REFERENCE,
    StepContext,
    builders_for,
    further_rollouts,
    keeps_reference,
)

from .models.assembled import RUN


def context(**changes):
    """Two prompts of two samples; a further rollout is answered by its name."""
    defaults = {
        "step": 3,
        "prompt_index": torch.tensor([7, 9, 7, 9]),
        "group_ids": torch.tensor([27, 29, 27, 29]),
        "rescored": lambda wanted: wanted.name,
        "of_all_rows": lambda values: values,
    }
    return StepContext(**{**defaults, **changes})


def built(base, providers=PROVIDERS, **changes):
    builders = builders_for(needs_of(PipelineConfig(base=base)), providers)
    return {name: build(context(**changes)) for name, build in builders.items()}


def test_a_plain_estimator_needs_nothing():
    assert built(Grpo()) == {}


def test_lengths_of_pictures_are_alike():
    assert built(Opo())["lengths"].tolist() == [1, 1, 1, 1]
    assert list(built(HapoTokenGroup())) == ["lengths"]


def test_prompts_and_steps():
    found = built(DdpoTracked())
    assert list(found) == ["prompt_ids"]
    assert found["prompt_ids"].tolist() == [7, 9, 7, 9]
    assert built(Canon(split="random", schedule="cosine")) == {"step": 3}


def test_further_rollouts_are_asked_for_where_they_are_read():
    assert built(Remax()) == {"greedy_rewards": "greedy"}
    assert built(ReferenceGain()) == {"reference_rewards": "reference"}
    asked = []
    built(Opo(), rescored=asked.append)
    assert asked == []
    assert GREEDY.deterministic
    assert not GREEDY.reference
    assert REFERENCE.reference
    assert not REFERENCE.deterministic


def test_a_reward_saves_the_rollout():
    needs = needs_of(PipelineConfig(base=Remax(), inputs={"greedy_rewards": "stored"}))
    assert builders_for(needs, PROVIDERS) == {}


def test_what_nobody_brings_is_named_with_what_there_is():
    needs = needs_of(PipelineConfig(base=Canon(), shapers=(find("ucas").options_type(),)))
    with pytest.raises(AlignError) as error:
        builders_for(needs, PROVIDERS)
    message = str(error.value)
    assert "canon needs `metric`; ucas needs `mask`, `self_certainty`, `token_logits`" in message
    assert "brings: rewards, group_ids, prompt_ids, step, lengths, greedy_rewards, reference_rewards" in message
    assert "pipeline.inputs" in message


class Way:
    """Stands for a trajectory with two trained steps of four rows."""

    trained = (1, 2)
    log_probs = torch.arange(8.0).view(4, 2)


def test_a_method_on_the_chain_brings_its_steps():
    """Without shared noise every draw is its own; with it, the key after each trained step."""
    found = built(Tempo(), ON_A_CHAIN, trajectory=Way())
    assert found["mask"].tolist() == [[True, True]] * 4
    assert found["step_key"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    keys = torch.tensor([[0, 0, 5, 6], [1, 1, 5, 7], [2, 2, 8, 8], [3, 3, 9, 9]])
    assert built(Tempo(), ON_A_CHAIN, trajectory=Way(), keys=keys)["step_key"].tolist() == [
        [5, 6], [5, 7], [8, 8], [9, 9]
    ]  # fmt: skip
    assert built(Opo(), ON_A_CHAIN, trajectory=Way())["lengths"].tolist() == [2] * 4
    log_probs = ON_A_CHAIN["logprobs"](context(trajectory=Way(), of_all_rows=lambda values: values + 1))
    assert torch.equal(log_probs, Way.log_probs + 1)


def test_of_alternatives_the_first_that_can_be_had():
    """SALT reads a state, a token or a step; pictures have steps."""
    assert list(built(find("salt").options_type(), ON_A_CHAIN, trajectory=Way())) == ["mask", "step_key"]


def test_who_needs_the_weights_from_before_training():
    assert further_rollouts(PipelineConfig(base=ReferenceGain())) == (REFERENCE,)
    assert further_rollouts(PipelineConfig(base=Remax())) == (GREEDY,)
    stored = PipelineConfig(base=ReferenceGain(), inputs={"reference_rewards": "stored"})
    assert further_rollouts(stored) == further_rollouts(PipelineConfig()) == ()
    without = replace(RUN, algorithm=replace(RUN.algorithm, kl_beta=0.0))
    assert not keeps_reference(without)
    assert keeps_reference(replace(without, pipeline=PipelineConfig(base=ReferenceGain())))


def test_every_provider_is_a_field_that_estimators_may_read():
    weights = {"prompt_weights", "drawn_directions"}  # read by the weights of the pipeline, not by an estimator
    fields = set(ON_A_CHAIN) - weights
    assert fields <= set(AdvantageInputs.__dataclass_fields__)
    read = {name for kind in available() for name in find(kind).reads()} | {"step"}
    assert fields <= read
