"""What `align export` does for text-to-image models: load the weights of a run and write them in one format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from align.engine.saving import find_checkpoint, load_weights
from align.errors import AlignError
from diffusion.assemble import make_policy
from diffusion.config import DiffusionRun
from diffusion.directions.files import check_format, load_embedding, write_directions
from diffusion.directions.policy import bare
from diffusion.export.files import FORMATS
from diffusion.models import load_model
from diffusion.models.lora import is_lora_folder, load_lora

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(
    config: DiffusionRun,
    *,
    source: Path,
    format: str | None = None,
    output: Path,
    dtype: str = "float32",
    averaged: bool = True,
) -> Path:
    """Write trained weights for another program.

    Args:
        config: the run's settings.
        source: checkpoint, run folder or folder of exported LoRA weights.
        format: a key of `diffusion.export.files.FORMATS`; None = `diffusers`.
        output: folder; it must not hold anything yet.
        dtype: of the written weights; an alpha stays float32.
        averaged: take the moving average where the checkpoint has one.

    Returns:
        The file, or the folder of a merged pipeline.

    Raises:
        AlignError: unknown format or dtype, no weights at `source`, a folder with something in it, a format that the
            family does not have, or one whose readers cannot be told a direction.
    """
    format = format or "diffusers"
    for name, value, known in (("format", format, FORMATS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise AlignError(f"there is no export {name} {value!r}.", f"Choose one of {', '.join(known)}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise AlignError(
            f"{output} is there already and not an empty folder.", "Give another --output; nothing is overwritten."
        )
    check_format(config, format)
    weights = source if is_lora_folder(source) else find_checkpoint(source)
    # The sum of a merge is taken in float32, whatever the run computed in.
    config = replace(config, model=replace(config.model, dtype="float32"))
    model = load_model(config.model)
    policy = make_policy(config, model)
    if is_lora_folder(weights):
        load_lora(weights, policy)
        load_embedding(weights, policy)
    else:
        load_weights(weights, policy, averaged=averaged)
    output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), bare(policy):
        written = FORMATS[format](model, policy, output, DTYPES[dtype])
    write_directions(output, config, policy, DTYPES[dtype])
    return written
