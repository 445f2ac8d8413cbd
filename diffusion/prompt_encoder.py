"""A text-to-image model's own text encoder as an encoder of prompts, and the adapter that weighs a run's prompts.

h(x) = the pooled vector of the text encoder, where the family has one (SD3, SDXL, FLUX: CLIP's);
otherwise the mean of its states over the tokens that its mask keeps
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.adapter.record import read_record
from align.adapter.use import PromptWeigher, weigher_of
from align.config.checks import reward_name
from align.config.shaping import AdapterWeights
from align.encoders.base import masked_mean, weights_digest
from align.encoders.config import ImageModelEncoder
from diffusion.config import DiffusionRun
from diffusion.models.base import Conditioning, DiffusionModel

if TYPE_CHECKING:
    from diffusion.config.models import Model


class ModelEncoder:
    """The text encoders of a loaded model; implements `align.encoders.base.TextEncoder`.

    Args:
        model: of any family.
    """

    def __init__(self, model: DiffusionModel) -> None:
        self.name = f"the text encoder of a {model.fingerprint()['pipeline']}"
        self._model = model

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """One vector per prompt, float32, on the CPU; the model encodes each text alone."""
        return prompt_vectors(self._model.encode(texts)).float().cpu()

    def fingerprint(self) -> str:
        """Family and the last weight of each text encoder: training the denoiser changes nothing."""
        pipeline: Any = getattr(self._model, "pipeline", None)  # Any: diffusers' classes share no type
        parts = {name: getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")}
        last = {name: list(part.parameters())[-1] for name, part in parts.items() if part is not None}
        return weights_digest(last.items(), self._model.fingerprint()["pipeline"])


def prompt_vectors(conditioning: Conditioning) -> Float[Tensor, "p d"]:
    """One vector per prompt of what a model is told about it."""
    tensors = conditioning.tensors
    if "pooled" in tensors:
        return tensors["pooled"]
    states = tensors["embeddings"]
    return masked_mean(states, tensors.get("mask", torch.ones(states.shape[:2], device=states.device)))


def load_prompt_encoder(config: Model, device: str = "cpu") -> ModelEncoder:
    """The text encoder of a model that is loaded for it.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from diffusion.models import load_model

    return ModelEncoder(load_model(config, device))


def weigher_for(config: DiffusionRun, model: DiffusionModel) -> PromptWeigher | None:
    """The adapter that `pipeline.weights` names, None where it names none. The model that is there serves as encoder.

    Raises:
        AlignError: no adapter there, or one of other objectives or of another encoder.
    """
    weights = config.pipeline.weights
    if not isinstance(weights, AdapterWeights):
        return None
    own = read_record(weights.path).encoder.get("kind") == ImageModelEncoder.kind
    names = [reward_name(reward) for reward in config.rewards if reward.weight != 0]
    return weigher_of(weights, names, encoder=ModelEncoder(model) if own else None, device=str(model.device))
