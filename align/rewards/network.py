"""What scorers with a network share: where it runs, how its weights are found and read, and that it is loaded once.

Weights are safetensors, or pickles read with `weights_only=True`; nothing in a file is executed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from align.errors import AlignError
from align.rewards.options import one_of

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Lazy(Generic[T]):
    """A thing that is made when it is first wanted, once, whichever thread wants it.

    Args:
        make: makes it. If it raises, the next call tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """The thing."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


def pick_device(name: str) -> torch.device:
    """The device of an option: `auto` is this process's accelerator where there is one, else the CPU.

    The local rank decides, not torch's current device: that belongs to a thread, and rewards run in one of their own.

    Raises:
        AlignError: torch does not know it, or it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise AlignError(
            f"option `device` expects a device of torch, found {name!r}.",
            "Write `auto`, `cpu`, `cuda` or for example `cuda:1`.",
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise AlignError(
            f"option `device` is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices.",
            "Write `auto` or `cpu`.",
        )
    return device


def pick_dtype(name: str) -> torch.dtype:
    """The number format of an option.

    Raises:
        AlignError: another than float32, float16, bfloat16.
    """
    one_of("dtype", name, tuple(DTYPES))
    return DTYPES[name]


def place_of(option: str, text: str, ending: tuple[str, ...] = ()) -> str:
    """A folder or file that exists, made absolute, or the id of a repository on the hub, as it is.

    Args:
        option: its name, for the message.
        text: the option's value.
        ending: endings that only a file has, such as `.safetensors`.

    Raises:
        AlignError: it can only be a path, and nothing is there.
    """
    path = Path(text).expanduser()
    if text and path.exists():
        return str(path.resolve())
    if not text or path.is_absolute() or text.startswith(("./", "../", "~")) or any(map(text.endswith, ending)):
        raise AlignError(
            f"option `{option}` expects a file or folder at {path}, found none.",
            "Correct the path (relative ones start at the working directory), or give the id of a hub repository.",
        )
    return text


def hub_file(place: str, filename: str) -> Path:
    """A file of weights: the place itself, a file in that folder, or downloaded from that hub repository.

    Raises:
        AlignError: the folder does not hold the file.
    """
    path = Path(place)
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / filename).is_file():
            found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
            raise AlignError(f"expected {filename} in {path}, found {found}.", "Give the path of the file itself.")
        return path / filename
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(place, filename))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        AlignError: it is not readable, holds more than tensors, or none.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise AlignError(
            f"{path} cannot be read as weights ({type(error).__name__}).",
            "It must be safetensors, or a pickle that holds nothing but tensors.",
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise AlignError(f"{path} holds a {type(content).__name__}, not named tensors.", "Give a state dict.")
    weights = {str(name).removeprefix("module."): value for name, value in content.items() if torch.is_tensor(value)}
    if not weights:
        raise AlignError(f"{path} holds no tensor.", "Give a state dict.")
    return weights


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover n rows; the last one may be shorter."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
