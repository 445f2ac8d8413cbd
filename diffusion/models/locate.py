"""Where a model's files are, checked before anything heavy is imported. Torch-free."""

from __future__ import annotations

import json
import re
from pathlib import Path

from align.errors import AlignError

T5_TOKENS = 256
"""Tokens (zero vectors, where there is no T5) that the stock pipeline appends to the context."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class ModelError(AlignError):
    """A model that cannot be used."""


def locate(path: str, pipeline_class: str) -> str:
    """Turn `model.path` into what `from_pretrained` takes, and check a local folder's class.

    Args:
        path: a diffusers folder, a hub id (`owner/name`), or `builtin:tiny`.
        pipeline_class: the diffusers pipeline class that the folder must hold.

    Returns:
        The absolute folder, or the hub id unchanged (nothing is downloaded here).

    Raises:
        ModelError: folder missing, not a diffusers folder, another pipeline class, unknown built-in.
    """
    if path.startswith("builtin:"):
        return _check(_builtin(path), path, pipeline_class)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _check(folder.resolve(), path, pipeline_class)
    if folder.exists():
        raise ModelError(
            f"model.path {path!r} is a file; expected a diffusers folder with a model_index.json.",
            way_out="Convert a single-file checkpoint first: diffusers' from_single_file(...).save_pretrained(folder).",
        )
    if _HUB_ID.fullmatch(path):
        return path
    raise ModelError(
        f"model.path {path!r}: there is no such folder (looked in {Path.cwd()}), and it is no hub id `owner/name`.",
        way_out="Give an existing diffusers folder, a hub id, or `builtin:tiny`.",
    )


def t5_tokens(path: str, given: int | None) -> int:
    """Length of the T5 part of the context: `model.max_sequence_length`, or what the model would do by itself.

    That is the stock pipeline's 256, with or without a T5; the embedded model has been trained without that part, too.
    """
    if given is not None:
        return given
    return 0 if path.startswith("builtin:") else T5_TOKENS


def _builtin(path: str) -> Path:
    from diffusion.tiny import model_path

    if path != "builtin:tiny":
        raise ModelError(
            f"model.path {path!r}: there is no such embedded model.", way_out="The one that exists is `builtin:tiny`."
        )
    return model_path()


def _check(folder: Path, path: str, pipeline_class: str) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"model.path {path!r} is no diffusers folder: it has no model_index.json.",
            way_out="Give the folder that save_pretrained wrote, the one that holds transformer/, vae/, scheduler/ ...",
        )
    try:
        found = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"{index} cannot be read: expected a JSON object, found something else ({error}).",
            way_out="Fetch or save the folder again.",
        ) from error
    if found != pipeline_class:
        raise ModelError(
            f"model.path {path!r} holds a {found}; `model.kind` wants a {pipeline_class}.",
            way_out="Give a folder of that class, or choose the `model.kind` of this family.",
        )
    return str(folder)
