"""Pictures along a direction that is chosen now: `align generate RUN --direction shapes=0.8,brevity=0.6`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from align.control import TOLERANCE, Vector, degrees_outside, parse_direction, vector_of
from align.errors import AlignError
from diffusion.config import DiffusionRun
from diffusion.config.directions import EmbeddingCondition
from diffusion.directions.ask import Asker
from diffusion.models.base import Conditioning, DiffusionModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One direction for all prompts.

    Attributes:
        asker: how the model is told.
        vector: the direction; None = none.
    """

    asker: Asker
    vector: Vector | None

    @property
    def label(self) -> str:
        """As people read it."""
        return "none" if self.vector is None else self.asker.label(self.vector)

    def encode(self, model: DiffusionModel, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt."""
        return self.asker.encode(model, prompts, [self.vector] * len(prompts))


def asked_direction(config: DiffusionRun, direction: str | None) -> Asked | None:
    """What to ask a model for; a warning where training never drew such a direction.

    Without a direction a policy that was also trained without one draws without; any other is asked for one.

    Args:
        config: of the run.
        direction: what was typed.

    Returns:
        None where the run has no directions and none is asked for.

    Raises:
        AlignError: a direction for a run without, none for a run that needs one, an unknown objective, length 0.
    """
    asker = Asker.of(config)
    if asker is None:
        if direction is None:
            return None
        raise AlignError(
            "this run was not trained to follow directions.",
            "Leave `--direction` out, or give a run with `directions`.",
        )
    if direction is None:
        condition = asker.condition
        if isinstance(condition, EmbeddingCondition) and condition.dropout > 0:
            return Asked(asker=asker, vector=None)
        raise AlignError(
            "this policy draws along a direction, and none is given.",
            f"Add `--direction {asker.names[0]}=1`; its objectives are {', '.join(asker.names)}.",
        )
    vector = vector_of(parse_direction(direction), asker.names)
    beyond = degrees_outside(asker.sample, asker.names, vector)
    if beyond > TOLERANCE:
        log.warning(
            "%s is %.0f degrees beyond the directions that were trained: the policy has never seen such a control",
            asker.label(vector),
            beyond,
        )
    return Asked(asker=asker, vector=vector)
