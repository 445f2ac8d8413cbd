"""Checkpoints on disk: written whole or not at all, checked when read, nothing unpickled.

    checkpoints/step_000050/
        manifest.json         step, identity of the model, metrics, size and hash of every other file
        numbers.json          the scalars of every part: {part: {name: number or text}}
        weights.safetensors   the tensors of every part: weights, optimizer, ema, algorithm, random_00000 ...

A checkpoint is written into a hidden folder beside its place, flushed to the disk and then renamed, so a folder
without a leading dot is complete unless the disk has damaged it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torch import Tensor

from align.engine.folder import step_name, step_number
from align.errors import AlignError

log = logging.getLogger(__name__)

State = Mapping[str, Tensor | int | float | str]
_FORMAT = 1
_MANIFEST, _NUMBERS, _TENSORS = "manifest.json", "numbers.json", ".safetensors"
_BLOCK = 1 << 22


class DamagedCheckpointError(AlignError):
    """A checkpoint folder that is incomplete or was changed after it was written."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: steps that were done.
        parts: part -> flat state of tensors and scalars.
        identity: texts about the model that must agree when it is loaded.
        metrics: metrics of that step, for choosing the best.
    """

    step: int
    parts: Mapping[str, State]
    identity: Mapping[str, str]
    metrics: Mapping[str, float]


def write(folder: Path, checkpoint: Checkpoint, late: Iterable[tuple[str, State]] = ()) -> Path:
    """Write `<folder>/step_XXXXXX` atomically; one that is there already is replaced.

    Args:
        folder: folder of the checkpoints.
        checkpoint: what to write.
        late: further parts, made and written one after the other, so that one at a time is held in memory.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind and older checkpoints are untouched.
    """
    final = folder / step_name(checkpoint.step)
    hidden = folder / f".{final.name}.tmp"
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        _write_parts(hidden, chain(checkpoint.parts.items(), late))
        manifest = {
            "format": _FORMAT,
            "step": checkpoint.step,
            "identity": dict(checkpoint.identity),
            "metrics": {name: value if math.isfinite(value) else None for name, value in checkpoint.metrics.items()},
            "files": {path.name: _fingerprint(path) for path in sorted(hidden.iterdir())},
        }
        (hidden / _MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False))
        make_readable(hidden, like=hidden / _MANIFEST)
        for path in [*hidden.iterdir(), hidden]:
            _flush(path)
        _move(hidden, final)
        _flush(folder)
    except OSError:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return final


def read(path: Path) -> Checkpoint:
    """Read a checkpoint and check every file of it.

    Raises:
        DamagedCheckpointError: a file is missing, cut off or changed; names it, and an older checkpoint that is whole.
    """
    from safetensors.torch import load_file

    found = damage(path)
    if found:
        raise _damaged(path, found)
    manifest = json.loads((path / _MANIFEST).read_text())
    parts: dict[str, dict[str, Tensor | int | float | str]] = json.loads((path / _NUMBERS).read_text())
    for name in manifest["files"]:
        if name.endswith(_TENSORS):
            parts.setdefault(name.removesuffix(_TENSORS), {}).update(load_file(path / name))
    return Checkpoint(
        step=manifest["step"],
        parts=parts,
        identity=manifest["identity"],
        metrics={name: math.nan if value is None else value for name, value in manifest["metrics"].items()},
    )


def damage(path: Path) -> list[str]:
    """What is wrong with a checkpoint folder, one sentence per file; empty if it is whole."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        files = dict(manifest["files"])
    except FileNotFoundError:
        return [f"{_MANIFEST} is missing"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{_MANIFEST} cannot be read"]
    if manifest.get("format") != _FORMAT:
        return [f"{_MANIFEST} has format {manifest.get('format')}, this version reads format {_FORMAT}"]
    return [problem for name, expected in files.items() if (problem := _file_damage(path / name, expected))]


def listed(folder: Path) -> list[Path]:
    """Checkpoint folders by step, oldest first; whether they are whole is not looked at."""
    found = [path for path in folder.glob("step_*") if path.is_dir() and step_number(path.name) is not None]
    return sorted(found, key=lambda path: step_number(path.name) or 0)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, None if there is none; damaged ones are passed over with a warning."""
    for path in reversed(listed(folder)):
        found = damage(path)
        if not found:
            return path
        log.warning("checkpoint %s is damaged (%s); trying the one before", path, "; ".join(found))
    return None


def remove_stale(folder: Path) -> None:
    """Remove what a run that was killed while saving has left behind."""
    for path in folder.glob(".step_*"):
        final = folder / path.name.removeprefix(".").removesuffix(".old")
        if path.name.endswith(".old") and not final.exists():
            path.rename(final)  # killed between the two renames of a replacement: the old one is still good
        else:
            shutil.rmtree(path, ignore_errors=True)


def set_aside(folder: Path, newer_than: int) -> None:
    """Rename checkpoints beyond a step to `damaged_...`, so that a run going on from there does not count them."""
    for path in listed(folder):
        if (step_number(path.name) or 0) > newer_than:
            target = folder / f"damaged_{path.name}"
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)


def prune(folder: Path, *, keep_last: int, keep_best: int, metric: str) -> None:
    """Keep the newest `keep_last` checkpoints (at least one) and the `keep_best` of highest `metric`."""
    everything = listed(folder)
    ranked = [(score, path) for path in everything if not math.isnan(score := _score(path, metric))]
    best = [path for _, path in sorted(ranked, key=lambda entry: (entry[0], entry[1].name), reverse=True)[:keep_best]]
    kept = {*everything[-max(keep_last, 1) :], *best}
    for path in everything:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def differences(checkpoint: Checkpoint, identity: Mapping[str, str], weights: Mapping[str, Tensor]) -> list[str]:
    """Where a checkpoint's model is another one than ours, one sentence each; empty if they agree."""
    saved = {name: value for name, value in checkpoint.parts.get("weights", {}).items() if isinstance(value, Tensor)}
    found = [
        f"{key} is {checkpoint.identity.get(key)!r} in the checkpoint and {identity.get(key)!r} here"
        for key in sorted(checkpoint.identity.keys() | identity.keys())
        if checkpoint.identity.get(key) != identity.get(key)
    ]
    for title, names in (("lacks", weights.keys() - saved.keys()), ("has besides", saved.keys() - weights.keys())):
        if names:
            found.append(f"the checkpoint {title} {len(names)} weights, such as {sorted(names)[0]}")
    shapes = [name for name in sorted(saved.keys() & weights.keys()) if saved[name].shape != weights[name].shape]
    if shapes:
        ours, theirs = list(weights[shapes[0]].shape), list(saved[shapes[0]].shape)
        found.append(f"{len(shapes)} weights differ in shape, such as {shapes[0]}: {theirs} there, {ours} here")
    return found


def make_readable(folder: Path, like: Path) -> None:
    """Give the files of a folder the access rights of `like`, a file that was opened as usual.

    safetensors writes files that only their owner can read; a colleague's umask decides about all others.
    """
    mode = like.stat().st_mode & 0o777
    for path in folder.rglob("*.safetensors"):
        path.chmod(mode)


def _write_parts(folder: Path, parts: Iterable[tuple[str, State]]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    numbers = {}
    for part, state in parts:
        tensors = _plain({name: value for name, value in state.items() if isinstance(value, Tensor)})
        numbers[part] = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
        if tensors:
            try:
                save_file(tensors, folder / f"{part}{_TENSORS}")
            except SafetensorError as error:  # the library hides the operating system's error in its own
                raise OSError(f"{part}{_TENSORS}: {error}") from error
    (folder / _NUMBERS).write_text(json.dumps(numbers))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the processor, each whole in a storage of its own: safetensors refuses shared and strided memory.

    Those that are so already are not copied: an optimiser's state is twice its model.
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or storage.data_ptr() in taken:
            plain = plain.clone()
        taken.add(plain.untyped_storage().data_ptr())
        found[name] = plain
    return found


def _fingerprint(path: Path) -> dict[str, int | str]:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}


def _file_damage(path: Path, expected: Mapping[str, int | str]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != expected["bytes"]:
        return f"{path.name} has {size} bytes instead of {expected['bytes']}"
    return None if _fingerprint(path) == expected else f"{path.name} has another content than was written"


def _damaged(path: Path, found: list[str]) -> DamagedCheckpointError:
    older = [other for other in reversed(listed(path.parent)) if other.name < path.name and not damage(other)]
    way_out = f"The checkpoint {older[0]} is whole: use that one." if older else "No older checkpoint is whole."
    return DamagedCheckpointError(f"checkpoint {path} is truncated or damaged: {'; '.join(found)}.", way_out)


def _score(path: Path, metric: str) -> float:
    try:
        value = json.loads((path / _MANIFEST).read_text())["metrics"].get(metric)
    except (OSError, ValueError, KeyError):
        return math.nan
    return math.nan if value is None else float(value)


def _move(hidden: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    os.replace(hidden, final)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
