"""The control text that a trained policy understands, kept beside its weights: `direction.json`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from align.config.directions import Arc, Cap, Directions, Listed
from align.control import degrees_outside
from align.control import parse_direction as parse_direction  # also under its old place
from align.errors import AlignError
from preference.dpa.control import Control, Vector

NAME = "direction.json"


def write_control(folder: Path, control: Control, directions: Directions) -> Path:
    """Write objectives, words and trained directions beside the weights."""
    stored = {
        "objectives": list(control.names),
        "template": control.template,
        "placement": control.placement,
        "directions": asdict(directions),
    }
    path = folder / NAME
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_control(folder: Path) -> tuple[Control, Directions]:
    """Inverse of `write_control`; without the mix of rewards, which only training needs.

    Raises:
        AlignError: these weights know no directions.
    """
    path = folder / NAME
    if not path.is_file():
        raise AlignError(
            f"{folder} has no {NAME}: this model was not trained to follow directions.",
            "Give the `weights/` folder of a run of `branch: dpa`, or leave the direction out.",
        )
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names = tuple(stored["objectives"])
    control = Control(
        names=names,
        mixes=torch.eye(len(names), dtype=torch.float64),
        template=stored["template"],
        placement=stored["placement"],
    )
    settings = stored["directions"]
    kind = {"arc": Arc, "cap": Cap, "list": Listed}[settings["kind"]]
    return control, kind(**settings)


def outside(control: Control, directions: Directions, vector: Vector) -> float:
    """Degrees between a direction and the nearest one that training can have drawn; 0 inside. Beyond it the policy has
    never seen such a control.
    """
    return degrees_outside(directions, control.names, vector)
