"""Model families, one file each, behind the protocol of `base`. Importing this package loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion.config.models import (
    FluxModel,
    Model,
    QwenImageModel,
    SanaModel,
    Sd3Model,
    SdxlModel,
    StableDiffusionModel,
)

if TYPE_CHECKING:
    import torch

    from diffusion.models.base import DiffusionModel


def load_model(config: Model, device: torch.device | str = "cpu") -> DiffusionModel:
    """The model that a configuration names, frozen, on `device`.

    Raises:
        ModelError: the folder is missing, no diffusers folder, or of another pipeline class.
    """
    from diffusion.models.flux import Flux
    from diffusion.models.qwen_image import QwenImage
    from diffusion.models.sana import Sana
    from diffusion.models.sd3 import StableDiffusion3
    from diffusion.models.sdxl import StableDiffusionXL
    from diffusion.models.stable_diffusion import StableDiffusion

    loaders = {
        StableDiffusionModel: StableDiffusion.load,
        SdxlModel: StableDiffusionXL.load,
        Sd3Model: StableDiffusion3.load,
        FluxModel: Flux.load,
        SanaModel: Sana.load,
        QwenImageModel: QwenImage.load,
    }
    return loaders[type(config)](config, device)
