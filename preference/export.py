"""What `align export` does for language models: the weights of a run as a stock folder of transformers or peft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from align.engine.adapters import Policy
from align.engine.saving import find_checkpoint, load_weights
from align.errors import AlignError
from preference.config import PreferenceRun
from preference.models import load_causal_lm
from preference.models.language_model import LanguageModel
from preference.models.save import save_merged

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _merged(model: LanguageModel, policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    save_merged(model, folder, policy, dtype)
    model.tokenizer.save_pretrained(folder)


def _adapter(model: LanguageModel, policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    if not hasattr(policy.module, "peft_config"):
        raise AlignError("all weights were trained, so there is no adapter.", "Choose the format `merged`.")
    if dtype is not torch.float32:
        raise AlignError("adapters are written in float32, as they were trained.", "Leave `--dtype` out.")
    model.save(folder, policy)


FORMATS: Mapping[str, Callable[[LanguageModel, Policy, Path, torch.dtype], None]] = {
    "merged": _merged,
    "adapter": _adapter,
}
"""Format -> what writes it: the whole model, with adapters folded in; or the adapter alone, as peft reads it."""


def export(
    config: PreferenceRun,
    *,
    source: Path,
    format: str | None = None,
    output: Path,
    dtype: str = "float32",
    averaged: bool = True,
) -> Path:
    """Write weights for another program, with the tokenizer and its chat template beside them.

    Args:
        config: the run's settings.
        source: checkpoint or run folder; a config's path or name writes the base model (a GGUF file becomes a folder).
        format: `merged` (the default), for `AutoModelForCausalLM`; `adapter`, for `PeftModel`.
        output: folder; it must not hold anything yet.
        dtype: of the written weights.
        averaged: take the moving average where the checkpoint has one.

    Raises:
        AlignError: unknown format or dtype, no weights at `source`, a folder with something in it, no adapter.
    """
    format = format or "merged"
    for name, value, known in (("format", format, FORMATS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise AlignError(f"there is no export {name} {value!r}.", f"Choose one of {', '.join(known)}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise AlignError(
            f"{output} is there already and not an empty folder.", "Give another --output; nothing is overwritten."
        )
    weights = find_checkpoint(source) if source.is_dir() else None
    # The sum of a merge is taken in float32, whatever the run computed in.
    model = load_causal_lm(replace(config.model, dtype="float32"))
    lora = config.model.lora if weights is not None else None
    policy = model.policy(lora, seed=config.seed)
    if weights is not None:
        load_weights(weights, policy, averaged=averaged)
    FORMATS[format](model, policy, output, DTYPES[dtype])
    return output
