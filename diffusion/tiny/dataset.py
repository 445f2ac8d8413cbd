"""Data drawn from the world: pictures and captions for the base model, prompts for reinforcement learning.

The base model is trained on *all* captions. The split into train and held-out captions is for what comes after:
reinforcement learning trains on the prompts of `prompts/train.jsonl` and is evaluated on `prompts/heldout.jsonl`.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from diffusion.tiny import slips, world

# Share of each class among the training pictures.
CLASS_SHARES = {"one": 0.08, "placed": 0.13, "count": 0.13, "two": 0.17, "relation": 0.2, "size": 0.13, "three": 0.16}

# Rows of the prompt files. Training leans on the classes that the base model gets wrong.
TRAIN_ROWS = {"one": 10, "placed": 40, "count": 20, "two": 120, "relation": 180, "size": 110, "three": 120}
HELD_OUT_ROWS = {"one": 16, "placed": 16, "count": 16, "two": 16, "relation": 16, "size": 16, "three": 16}
ROWS = {"train": TRAIN_ROWS, "heldout": HELD_OUT_ROWS}


def prompt_rows(split: str) -> list[dict[str, str]]:
    """Rows `{"prompt", "class"}` of a prompt file, in a shuffled, fixed order.

    Each class gives the wanted number of captions, spread evenly over what it has on that side of the split, and all
    of them where it has fewer.

    Args:
        split: "train" or "heldout".
    """
    rows = []
    for kind, wanted in ROWS[split].items():
        every = [text for text in world.captions(kind) if world.held_out(text) == (split == "heldout")]
        count = min(wanted, len(every))
        rows += [{"prompt": every[k * len(every) // count], "class": kind} for k in range(count)]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[k] for k in order]


def draw(count: int, *, seed: int, wrong_captions: bool = False) -> tuple[UInt8[Tensor, "n h w c"], list[str]]:
    """`count` random pictures and their captions. The base model sees every caption, held-out ones included.

    Args:
        seed: the same seed gives the same pictures.
        wrong_captions: let a share of the pictures show a near miss of their caption (see `slips`).
    """
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(CLASS_SHARES), size=count, p=_normalised(CLASS_SHARES.values()))
    pictures = np.empty((count, world.SIDE, world.SIDE, 3), dtype=np.uint8)
    captions = []
    for row, kind in enumerate(kinds):
        choices = world.specs(str(kind))
        spec = choices[rng.integers(len(choices))]
        pictures[row] = np.asarray(world.render(slips.shown(spec, rng) if wrong_captions else spec, rng))
        captions.append(world.caption(spec))
    return torch.from_numpy(pictures), captions


def _normalised(shares: Iterable[float]) -> np.ndarray:
    values = np.array(list(shares))
    return values / values.sum()
