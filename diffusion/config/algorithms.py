"""All methods. One dataclass each, with the settings that it uses and no others, in the file of its family."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from diffusion.config.chain import DanceGrpoConfig, DdpoConfig, FlowGrpoConfig, LoopConfig, ReinforceConfig
from diffusion.config.forward import (
    AwmConfig,
    DiffusionDpoConfig,
    NftConfig,
    OnlineDpoConfig,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)

Algorithm = Annotated[
    AwmConfig
    | NftConfig
    | OnlineDpoConfig
    | DiffusionDpoConfig
    | RwrConfig
    | SftBestConfig
    | SftConfig
    | ReinforceConfig
    | DdpoConfig
    | LoopConfig
    | FlowGrpoConfig
    | DanceGrpoConfig,
    Field(discriminator="kind"),
]
