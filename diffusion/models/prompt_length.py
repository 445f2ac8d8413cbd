"""Prompts that are longer than a model reads, found with its tokenizers alone before any weights are loaded.

A family may have several text encoders of different lengths: CLIP stops after 77 tokens where T5 goes on. A prompt is
too long where its end reaches none of them: that part of the text could not change the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from diffusion.config.models import FluxModel, QwenImageModel, SanaModel, Sd3Model, SdxlModel
from diffusion.models.locate import ModelError, locate, t5_tokens

if TYPE_CHECKING:
    from diffusion.config import Model

SHOWN = 5
"""Rows that a message names; the rest is counted."""
QWEN_TEMPLATE_END = 5
"""Tokens behind the prompt in Qwen-Image's chat template."""


@singledispatch
def prompt_limits(model: Any) -> dict[str, int | None]:
    """Tokenizers of a family that read a prompt, by the pipeline's component, and the most tokens that each takes.

    Tokens are those that the tokenizer makes of the prompt alone, marks of begin and end included. None is the
    tokenizer's own limit (`Any`: the members of `Model`).
    """
    return {"tokenizer": None}


@prompt_limits.register
def _(model: SdxlModel) -> dict[str, int | None]:
    return {"tokenizer": None, "tokenizer_2": None}


@prompt_limits.register
def _(model: Sd3Model) -> dict[str, int | None]:
    t5 = t5_tokens(model.path, model.max_sequence_length)
    return {"tokenizer": None, "tokenizer_2": None, **({"tokenizer_3": t5} if t5 else {})}


@prompt_limits.register
def _(model: FluxModel) -> dict[str, int | None]:
    return {"tokenizer": None, "tokenizer_2": model.max_sequence_length}


@prompt_limits.register
def _(model: SanaModel) -> dict[str, int | None]:
    # Behind the instruction a prompt has no mark of beginning, but its place is taken.
    return {"tokenizer": model.max_sequence_length - (1 if model.instruction else 0)}


@prompt_limits.register
def _(model: QwenImageModel) -> dict[str, int | None]:
    return {"tokenizer": model.max_sequence_length - QWEN_TEMPLATE_END}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A prompt that is too long.

    Attributes:
        row: its position among the prompts, from 0.
        tokens: how many it has, by the tokenizer that takes most.
        limit: how many that one takes.
    """

    row: int
    tokens: int
    limit: int


def cut_prompts(lengths: Mapping[str, Sequence[int]], limits: Mapping[str, int]) -> list[Cut]:
    """The prompts that every tokenizer cuts.

    Args:
        lengths: tokens of each prompt, for each tokenizer.
        limits: the most tokens that each tokenizer takes.
    """
    most = max(limits, key=lambda name: limits[name])
    return [
        Cut(row=row, tokens=tokens, limit=limits[most])
        for row, tokens in enumerate(lengths[most])
        if all(lengths[name][row] > limit for name, limit in limits.items())
    ]


def check_prompt_lengths(model: Model, prompts: Mapping[str, Sequence[str]]) -> list[str]:
    """Refuse prompts that are too long, or say how many are cut off, as `model.long_prompts` has it.

    Args:
        model: settings of the model; its tokenizers are loaded, nothing else.
        prompts: the texts of each source; the source's name is for messages.

    Returns:
        A sentence for each source that has such prompts.

    Raises:
        ModelError: there are some and `long_prompts` is `refuse`, or the tokenizers cannot be loaded.
    """
    tokenizers = load_tokenizers(model)
    given = prompt_limits(model)
    limits = {name: given[name] or tokenizer.model_max_length for name, tokenizer in tokenizers.items()}
    found: list[str] = []
    for source, texts in prompts.items():
        lengths = {name: count_tokens(tokenizer, texts) for name, tokenizer in tokenizers.items()}
        if limits and (cut := cut_prompts(lengths, limits)):
            found.append(_sentence(source, len(texts), cut))
    if found and model.long_prompts == "refuse":
        raise ModelError(
            " ".join(found),
            way_out="Shorten them, or set `model.long_prompts: truncate` to go on without the ends of these texts.",
        )
    return found


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:  # Any: transformers' tokenizers
    """Tokens of each text, none cut off."""
    rows = tokenizer(list(texts), truncation=False, verbose=False).input_ids if texts else []
    return [len(row) for row in rows]


def load_tokenizers(model: Model) -> dict[str, Any]:
    """The tokenizers of a model by component; those that its folder marks as absent are left out.

    Raises:
        ModelError: a folder or hub id that cannot be read.
    """
    import transformers
    from diffusers import DiffusionPipeline

    from diffusion.checks import PIPELINES

    source = locate(model.path, PIPELINES[model.kind])
    try:
        index: Any = DiffusionPipeline.load_config(source, revision=model.revision)  # JSON values
        classes = {name: index[name][1] for name in prompt_limits(model) if index.get(name, (None, None))[0]}
        return {
            name: getattr(transformers, cls).from_pretrained(source, subfolder=name, revision=model.revision)
            for name, cls in classes.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the tokenizers of model.path {model.path!r} could not be loaded: {error}",
            way_out="Check the name, your access rights and the connection, or give a local diffusers folder.",
        ) from error


def _sentence(source: str, prompts: int, cut: Sequence[Cut]) -> str:
    rows = ", ".join(f"row {item.row + 1} ({item.tokens} tokens)" for item in cut[:SHOWN])
    more = f" and {len(cut) - SHOWN} more" if len(cut) > SHOWN else ""
    return (
        f"{source}: {len(cut)} of {prompts} prompts are longer than the {cut[0].limit} tokens that the model reads: "
        f"{rows}{more}. The end of these texts cannot reach the picture."
    )
