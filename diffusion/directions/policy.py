"""A policy that is trained together with the embedding of its directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from align.engine.adapters import Policy
from diffusion.directions.embedding import DirectionEmbedding
from diffusion.directions.place import NAME, attach


class SteeredPolicy(Policy):
    """Adapters or all weights, and the embedding: one set of trained weights, for optimiser, copies and checkpoints.

    The reference is the network without adapters and without the embedding: exactly the base model.

    Attributes:
        embedding: it is a child of the network.

    Args:
        policy: of the network alone, not yet prepared.
        embedding: computes 0 before training.
        names: of the objectives; a checkpoint must agree on them.
    """

    def __init__(self, policy: Policy, embedding: DirectionEmbedding, names: Sequence[str]) -> None:
        module = policy.module
        embedding.to(next(module.parameters()).device).float().requires_grad_(True)
        attach(module, embedding)
        own = {f"{NAME}.{name}": weight for name, weight in embedding.named_parameters()}
        original = policy._original
        if original is not None:
            original = {**original, **{name: weight.detach().clone() for name, weight in own.items()}}
        kind = f"{', '.join(names)} in {embedding.frequencies} frequencies"
        super().__init__(
            module,
            {**policy.trainable_parameters(), **own},
            identity={**policy.identity, "directions": kind},
            original=original,
        )
        self.embedding = embedding

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """Inside, the network computes what it did before training, without gradient. Yields the module to call.

        Raises:
            AlignError: all weights are trained and no copy was kept.
        """
        with self.embedding.switched_off(), super().reference() as module:
            yield module


@contextmanager
def bare(policy: Policy) -> Iterator[None]:
    """Inside, the network has no embedding as a child: for libraries that write it whole."""
    children = policy.module._modules
    child = children.pop(NAME, None)
    try:
        yield
    finally:
        if child is not None:
            children[NAME] = child


def embedding_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a policy's weights those of the embedding, by their names in it."""
    prefix = f"{NAME}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
