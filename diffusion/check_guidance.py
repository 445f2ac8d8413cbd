"""Guidance that a model cannot follow, found from the settings in its folder. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from align.config.errors import Problem
from diffusion.config import GUIDANCE_AS_INPUT, DiffusionRun


def check_guidance(config: DiffusionRun) -> Iterator[Problem]:
    """A guidance scale for a network that takes guidance as an input, but has not been given that input (schnell).

    Of a hub id nothing is known before it is loaded; there the first call of the network finds it.

    Args:
        config: settings of the run.
    """
    if not isinstance(config.model, GUIDANCE_AS_INPUT) or takes_guidance(Path(config.model.path)) is not False:
        return
    scales = {
        "rollout.guidance_scale": config.rollout.guidance_scale,
        "evaluation.guidance_scale": config.evaluation.guidance_scale,
    }
    for key, scale in scales.items():
        if scale != 1:
            yield Problem(
                keys=(key, "model.path"),
                message=(
                    f"`{key}` is {scale:g}, but the network in {config.model.path} takes no guidance "
                    "(guidance_embeds is false, as in FLUX.1-schnell)."
                ),
                way_out=f"Set `{key}: 1`.",
            )


def takes_guidance(folder: Path) -> bool | None:
    """Whether the network in a model folder has guidance as an input; None where the folder does not say."""
    try:
        return bool(json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))["guidance_embeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
