"""Which loss of the DPO family understands which option, for checks that must not import torch.

The table that computes is `preference.losses.LOSSES`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LossKind = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
]
"""Names of all losses of `preference.losses.dpo`."""


@dataclass(frozen=True, kw_only=True)
class Knows:
    """What a loss understands; see `preference.losses.pair.Entry`."""

    smoothing: bool = False
    divergence: bool = False
    lengths: Literal["ignored", "optional", "required"] = "ignored"
    per_pair: bool = True


LOSS_OPTIONS: Mapping[str, Knows] = {
    "hinge": Knows(divergence=True),
    "ipo": Knows(divergence=True, lengths="optional"),
    "sppo_hard": Knows(),
    "apo_zero": Knows(),
    "apo_down": Knows(),
    "sigmoid": Knows(smoothing=True, divergence=True),
    "sigmoid_norm": Knows(smoothing=True, lengths="required"),
    "robust": Knows(smoothing=True, divergence=True),
    "exo_pair": Knows(smoothing=True, divergence=True),
    "nca_pair": Knows(),
    "bco_pair": Knows(),
    "discopop": Knows(divergence=True),
    "aot": Knows(smoothing=True, per_pair=False),
    "aot_unpaired": Knows(smoothing=True, per_pair=False),
}
"""Every loss, in the order of `LOSSES`, so that messages list them alike."""
