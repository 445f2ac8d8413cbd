"""The control text that a trained policy understands, kept beside its weights: `direction.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from align.errors import AlignError
from align.shaping.directions import angle_between, from_integers, from_names
from preference.dpa.config import Arc, Cap, Directions, Listed
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


def parse_direction(text: str) -> dict[str, float]:
    """`relevance=0.8,brevity=0.6` -> components.

    Raises:
        AlignError: it is written otherwise.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (name.strip() and equals and math.isfinite(value)):
            raise AlignError(
                f"a direction is written `relevance=0.8,brevity=0.6`, found {text!r}.",
                "Give each objective a finite number.",
            )
        found[name.strip()] = value
    return found


def outside(control: Control, directions: Directions, vector: Vector) -> float:
    """Degrees between a direction and the nearest one that training can have drawn; 0 inside. Beyond it the policy has
    never seen such a control.
    """
    asked = from_integers(vector)
    match directions:
        case Cap():
            main = from_names(directions.middle(control.names), control.names)
            return max(0.0, angle_between(asked, main) - directions.degrees)
        case Arc():
            angle = math.degrees(math.atan2(float(asked[1]), float(asked[0])))
            nearest = min(max(angle, directions.low), directions.high)
            return abs(angle - nearest)
        case Listed():
            return min(angle_between(asked, from_integers(control.vector(one))) for one in directions.directions)
