"""States of the global random generators of a process. Our own draws are keyed; this is for everybody else's code."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from align.engine.random import seed_of

State = dict[str, Tensor | int | float | str]


def seed_everything(seed: int, rank: int) -> None:
    """Seed Python, NumPy and torch, differently on each process."""
    number = seed_of(seed, "global", rank)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def capture() -> State:
    """States of all generators as tensors and numbers."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: State = {
        "python_version": version,
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy_kind": str(name),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_position": int(position),
        "numpy_has_gauss": int(has_gauss),
        "numpy_gauss": float(cached),
        "torch": torch.get_rng_state(),
    }
    if gauss is not None:
        state["python_gauss"] = float(gauss)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: Mapping[str, Tensor | int | float | str]) -> None:
    """Inverse of `capture`. A CUDA state is left out where there is no CUDA."""
    words = _tensor(state["python"]).tolist()
    random.setstate((state["python_version"], tuple(words), state.get("python_gauss")))
    np.random.set_state(
        (
            str(state["numpy_kind"]),
            _tensor(state["numpy"]).numpy().astype(np.uint32),
            int(state["numpy_position"]),
            int(state["numpy_has_gauss"]),
            float(state["numpy_gauss"]),
        )
    )
    torch.set_rng_state(_tensor(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))


def _tensor(value: Tensor | int | float | str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor in a random state, found {type(value).__name__}")
    return value
