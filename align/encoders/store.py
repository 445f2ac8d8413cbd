"""Vectors of texts, kept by content and by the encoder that made them: in memory, and in a folder if one is given."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from align.engine.batching import even_cuts

if TYPE_CHECKING:
    from align.encoders.base import TextEncoder
    from align.engine.distributed import Processes


class StoredVectors:
    """An encoder with a memory.

    Args:
        encoder: makes vectors.
        folder: keeps them for later runs, one file per encoder; None = in memory only.
        processes: share the new texts; the main process writes. None = a single one.
    """

    def __init__(self, encoder: TextEncoder, folder: Path | None = None, processes: Processes | None = None) -> None:
        self._encoder, self._processes = encoder, processes
        self._path = None if folder is None else folder / f"{encoder.fingerprint()}.safetensors"
        self._known: dict[str, Tensor] = {}
        if self._path is not None and self._path.is_file():
            self._known = _read(self._path)

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """One vector per text; the encoder sees new texts only. A collective if there are several processes."""
        keys = {text: _key(text) for text in dict.fromkeys(texts)}
        new = [text for text, key in keys.items() if key not in self._known]
        if new:
            vectors = self._encoded(new)
            self._known |= {keys[text]: vector for text, vector in zip(new, vectors, strict=True)}
            if self._path is not None and (self._processes is None or self._processes.is_main):
                _write(self._path, self._known)
        return torch.stack([self._known[keys[text]] for text in texts])

    def _encoded(self, texts: list[str]) -> Float[Tensor, "n d"]:
        processes = self._processes
        if processes is None or processes.world == 1:
            return self._encoder(texts)
        own = even_cuts(len(texts), processes.world)[processes.rank]
        rows = texts[own.start : own.stop] or texts[:1]  # its size must be known to gather nothing
        return processes.gather_rows(self._encoder(rows)[: len(own)])


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        keys = json.loads((file.metadata() or {}).get("keys", "[]"))
        vectors = file.get_tensor("vectors")
    return dict(zip(keys, vectors, strict=True))


def _write(path: Path, known: dict[str, Tensor]) -> None:
    """In one go: a run that is killed meanwhile leaves the older file."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.part")
    save_file({"vectors": torch.stack(list(known.values()))}, draft, metadata={"keys": json.dumps(list(known))})
    os.replace(draft, path)
