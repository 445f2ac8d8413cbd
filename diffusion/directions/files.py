"""What a policy with directions leaves beside its weights: `direction.json`, and the embedding where it has one.

Read by `align generate`, and for a pipeline of diffusers by `diffusion.directions.stock`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from align.config.directions import Directions
from align.errors import AlignError
from diffusion.config import DiffusionRun
from diffusion.config.directions import Condition, EmbeddingCondition
from diffusion.directions.ask import Asker, default_template
from diffusion.directions.place import NAME as PART
from diffusion.directions.policy import SteeredPolicy, embedding_weights

if TYPE_CHECKING:
    from align.engine.adapters import Policy

NAME = "direction.json"
WEIGHTS = "direction_embedding.safetensors"
ADAPTERS_ONLY = ("comfyui", "kohya")
"""Formats of `align export` that hold adapters for other programs and nothing else."""


def write_directions(folder: Path, config: DiffusionRun, policy: Policy, dtype: torch.dtype = torch.float32) -> None:
    """Write objectives, trained directions and how the model is told; nothing where a run has no directions.

    Args:
        folder: of the weights.
        config: of the run.
        policy: with the weights to save in it, whole.
        dtype: of the embedding.
    """
    given, names = config.directions, config.objectives()
    if given is None:
        return
    condition = asdict(given.condition)
    if "template" in condition:
        condition["template"] = condition["template"] or default_template(names)
    stored = {"objectives": list(names), "directions": asdict(given.sample), "condition": condition}
    (folder / NAME).write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if isinstance(policy, SteeredPolicy):
        from safetensors.torch import save_file

        weights = embedding_weights(policy.state_dict())
        save_file({name: one.to("cpu", dtype).contiguous() for name, one in weights.items()}, folder / WEIGHTS)


def check_format(config: DiffusionRun, format: str) -> None:
    """Refuse a file for programs that could not tell the model a direction.

    Raises:
        AlignError: the direction goes through an embedding, which only our own code and diffusers can be given.
    """
    given = config.directions
    if given is not None and isinstance(given.condition, EmbeddingCondition) and format in ADAPTERS_ONLY:
        raise AlignError(
            f"this policy is told its direction through an embedding, and readers of {format} files have none.",
            "Export with `--format diffusers`, and draw with `diffusion.directions.stock`; or train with "
            "`directions.condition: {kind: prompt}`.",
        )


def read_directions(folder: Path) -> Asker:
    """Inverse of `write_directions`, as somebody who can ask for any direction.

    Raises:
        AlignError: these weights know no directions, or the file was not written by this suite.
    """
    path = folder / NAME
    if not path.is_file():
        raise AlignError(
            f"{folder} has no {NAME}: this model was not trained to follow directions.",
            "Give the `weights/` folder of a run with `directions`.",
        )
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    try:
        return Asker(
            names=tuple(stored["objectives"]),
            sample=TypeAdapter(Directions).validate_python(stored["directions"]),
            condition=TypeAdapter(Condition).validate_python(stored["condition"]),
            shown=(),
            seed=0,
        )
    except (KeyError, ValidationError) as error:
        raise AlignError(f"{path} is not read by this version: {error}", "Export the run again.") from error


def read_embedding(folder: Path) -> dict[str, Tensor]:
    """Weights of the embedding by their names in it.

    Raises:
        AlignError: there are none.
    """
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise AlignError(
            f"{folder} has no {WEIGHTS}: these weights were not trained together with an embedding of directions.",
            "Give the `weights/` folder of a run with `directions.condition: {kind: embedding}`.",
        )
    return load_file(path)


def load_embedding(folder: Path, policy: Policy) -> Mapping[str, Tensor]:
    """Put the embedding of a folder of weights into a policy that has one; returns what was there.

    Raises:
        AlignError: there is none, or one of another size.
    """
    if not isinstance(policy, SteeredPolicy):
        return {}
    found = {f"{PART}.{name}": weight for name, weight in read_embedding(folder).items()}
    ours = policy.state_dict()
    wanted = {name: tuple(ours[name].shape) for name in ours if name.startswith(f"{PART}.")}
    theirs = {name: tuple(weight.shape) for name, weight in found.items()}
    if wanted != theirs:
        raise AlignError(
            f"{folder / WEIGHTS} is an embedding of another size: {theirs}, expected {wanted}.",
            "Give the config that the run was trained with.",
        )
    policy.load_state_dict({**ours, **found})
    return found
