"""From settings to a policy that is told directions, and the model that tells it."""

from __future__ import annotations

from dataclasses import replace

from align.engine.adapters import Policy
from diffusion.config import DiffusionRun
from diffusion.config.directions import EmbeddingCondition
from diffusion.directions.embedding import DirectionEmbedding
from diffusion.directions.model import SteeredModel
from diffusion.directions.place import attached, time_embedding
from diffusion.directions.policy import SteeredPolicy
from diffusion.models.base import DiffusionModel


def with_embedding(config: DiffusionRun, policy: Policy) -> Policy:
    """The policy, trained together with an embedding of directions where the settings say so; before it is prepared.

    Raises:
        ModelError: a network that has no known place for it.
    """
    given = config.directions
    if given is None or not isinstance(given.condition, EmbeddingCondition):
        return policy
    _, width = time_embedding(policy.module)
    embedding = DirectionEmbedding(
        len(config.objectives()),
        width,
        hidden=given.condition.hidden,
        frequencies=given.condition.frequencies,
        seed=config.seed,
    )
    return SteeredPolicy(policy, embedding, config.objectives())


def steered(model: DiffusionModel) -> DiffusionModel:
    """The model, with prompts that can ask for directions where its network has an embedding of them."""
    embedding = attached(model.network)
    return model if embedding is None else SteeredModel(model=model, embedding=embedding)


def guided(model: DiffusionModel, scale: float) -> DiffusionModel:
    """The model with guidance over the direction; as it is where its network has no embedding of directions."""
    return replace(model, guidance=scale) if isinstance(model, SteeredModel) else model
