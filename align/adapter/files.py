"""An adapter in a folder: weights and normaliser as safetensors, everything else as JSON. Nothing is unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from align.adapter.record import RECORD, WEIGHTS, AdapterRecord, find_adapter, read_record
from align.errors import AlignError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from align.shaping.adapter import PreferenceAdapter
    from align.shaping.normaliser import Normaliser

NORMALISER = "normaliser."
NETWORK = "adapter."


def save_adapter(folder: Path, weights: Mapping[str, Tensor], normaliser: Normaliser, record: AdapterRecord) -> Path:
    """Write an adapter; an older one in the folder is replaced.

    Args:
        folder: made if it is not there.
        weights: `PreferenceAdapter.state_dict()`.
        normaliser: what its targets were made with, for who makes further targets.
        record: what the adapter says about itself.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {NETWORK + name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    tensors |= normaliser.state_dict(NORMALISER)
    draft = folder / f".{WEIGHTS}.part"
    save_file(tensors, draft)
    os.replace(draft, folder / WEIGHTS)
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return folder


def load_adapter(path: str | Path) -> tuple[PreferenceAdapter, AdapterRecord]:
    """The adapter at a place, frozen, on the CPU, and what it says about itself.

    Args:
        path: its folder, or the run folder that trained it.

    Raises:
        AlignError: there is none, or its files are damaged or do not belong together.
    """
    from align.shaping.adapter import PreferenceAdapter

    record = read_record(path)
    adapter = PreferenceAdapter(record.embedding_size, len(record.objectives), record.hidden_size, record.temperature)
    tensors = _tensors(path, NETWORK)
    try:
        adapter.load_state_dict(tensors)
    except RuntimeError as error:
        raise AlignError(
            f"{find_adapter(path) / WEIGHTS} does not hold the adapter that {RECORD} describes: {error}",
            "Copy the folder whole, or train the adapter again.",
        ) from error
    return adapter.requires_grad_(False).eval(), record


def load_normaliser(path: str | Path) -> Normaliser:
    """What the adapter's targets were made with.

    Raises:
        AlignError: there is no adapter, or its files are damaged.
    """
    from align.shaping.normaliser import Normaliser

    method = str(read_record(path).target["normaliser"])
    return Normaliser.from_state(method, _tensors(path, NORMALISER), prefix="")


def _tensors(path: str | Path, prefix: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = find_adapter(path) / WEIGHTS
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise AlignError(f"{file} cannot be read: {error}.", "Copy the folder whole, or train it again.") from error
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
