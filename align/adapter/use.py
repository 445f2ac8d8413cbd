"""Prompts -> weights, by a trained adapter: in training, for pairs, and at deployment.

from align.adapter.use import PromptWeigher
weigher = PromptWeigher.load("runs/pro_adapter-001")
weigher.weights_for(["Is it safe to mix bleach and vinegar?"])      # [1, k], rows sum to 1
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.adapter.files import load_adapter
from align.adapter.record import AdapterRecord, find_adapter
from align.config.shaping import AdapterWeights

if TYPE_CHECKING:
    from align.encoders.base import TextEncoder
    from align.shaping.adapter import PreferenceAdapter


class PromptWeigher:
    """An adapter behind its encoder. Equal prompts are weighed once; a prompt's weights depend on its text alone.

    Attributes:
        record: what the adapter says about itself; `record.objectives` are the columns.

    Args:
        adapter: frozen.
        record: its own.
        encoder: gives the vectors that it was taught with.
        where: its folder, for messages.
    """

    def __init__(self, adapter: PreferenceAdapter, record: AdapterRecord, encoder: TextEncoder, where: Path) -> None:
        record.check_encoder(encoder.fingerprint(), encoder.name, where)
        self.record = record
        self._adapter, self._encoder = adapter, encoder
        self._known: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        objectives: Sequence[str] | None = None,
        encoder: TextEncoder | None = None,
        device: str = "cpu",
    ) -> PromptWeigher:
        """The adapter at a place.

        Args:
            path: its folder, or the run folder that trained it.
            objectives: what it must have been trained for, in any order; None = whatever it was.
            encoder: one that is loaded already; None loads the adapter's own.
            device: of the encoder that is loaded.

        Raises:
            AlignError: there is no adapter, it is of other objectives, or of another encoder.
        """
        adapter, record = load_adapter(path)
        where = find_adapter(path)
        if objectives is not None:
            record.check_objectives(objectives, where)
        return cls(adapter, record, encoder or _own_encoder(record, device), where)

    @torch.no_grad()
    def weights_for(self, prompts: Sequence[str]) -> Float[Tensor, "n k"]:
        """Weights of each prompt in the order of `record.objectives`, float32, on the CPU; rows sum to 1."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._known:  # one by one: the last bit must not depend on the neighbours
                self._known[prompt] = self._adapter(self._encoder([prompt]))[0]
        return torch.stack([self._known[prompt] for prompt in prompts])

    def by_name(self, prompts: Sequence[str]) -> dict[str, Float[Tensor, "n"]]:
        """Objective -> its weight for each prompt: `prompt_weights` of a `SignalPipeline`."""
        return dict(zip(self.record.objectives, self.weights_for(prompts).unbind(dim=1), strict=True))


def weigher_of(weights: Any, objectives: Sequence[str], **options: Any) -> PromptWeigher | None:
    """The adapter that `pipeline.weights` names, None where it names none.

    Args:
        weights: a member of `align.config.shaping.Weights` (Any: each source has its own settings).
        objectives: names of the rewards that have a weight other than 0.
        options: `encoder` and `device` of `PromptWeigher.load` (Any: see there).

    Raises:
        AlignError: no adapter there, or one of other objectives or of another encoder.
    """
    if not isinstance(weights, AdapterWeights):
        return None
    return PromptWeigher.load(weights.path, objectives=objectives, **options)


def _own_encoder(record: AdapterRecord, device: str) -> TextEncoder:
    from pydantic import TypeAdapter, ValidationError

    from align.encoders.config import Encoder
    from align.encoders.load import load_encoder
    from align.errors import AlignError

    try:
        config = TypeAdapter(Encoder).validate_python(dict(record.encoder))
    except ValidationError as error:
        raise AlignError(
            f"the adapter names an encoder that this suite does not know: {dict(record.encoder)}.",
            "Train the adapter again.",
        ) from error
    return load_encoder(config, device)
