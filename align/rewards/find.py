"""From the text that names a reward to the object it names. Torch-free.

Three ways to name one: a built-in (`jpeg_compressibility`), an import path (`package.module:function`), or a file
(`my_rewards.py:function`) next to the config or in the working directory.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from align.errors import AlignError, did_you_mean

IMAGE = (
    "jpeg_size",
    "jpeg_compressibility",
    "jpeg_incompressibility",
    "brightness",
    "contrast",
    "sharpness",
    "colourfulness",
)
BUILT_IN = {
    **{name: f"align.rewards.image:{name}" for name in IMAGE},
    "clip_score": "align.rewards.clip:ClipScore",
    "pick_score": "align.rewards.pick:PickScore",
    "hps_v2": "align.rewards.hps:HpsV2",
    "hps_v21": "align.rewards.hps:HpsV21",
    "aesthetic": "align.rewards.aesthetic:AestheticScore",
    "clip_head": "align.rewards.clip_head:ClipHead",
    "ocr": "align.rewards.ocr:OcrScore",
    "http": "align.rewards.http:HttpScore",
    "text_length": "align.rewards.text:TextLength",
    "length_target": "align.rewards.text:LengthTarget",
    "brevity": "align.rewards.text:Brevity",
    "repetition": "align.rewards.text:repetition",
    "distinct": "align.rewards.text:distinct",
    "regex_match": "align.rewards.text:RegexMatch",
    "sentiment": "align.rewards.sentiment:Sentiment",
    "readability": "align.rewards.readability:Readability",
    "similarity": "align.rewards.similarity:Similarity",
    # Named, not imported: what a reward model reads is the language branch's business.
    "reward_model": "preference.reward_models.scorer:RewardModelScore",
}
"""Name -> place. `python -m align.rewards.table` lists them with what they measure."""


class RewardError(AlignError):
    """A reward cannot be used as configured."""


def find_function(label: str, search_dir: Path | None = None) -> Any:
    """The object that a reward's `function` names (Any: the caller checks that it can be called).

    Args:
        label: built-in name, `package.module:function`, or `path/file.py:function`.
        search_dir: where files are looked for first; then in the working directory.

    Raises:
        RewardError: there is no such built-in, file, module or attribute, or the module fails when it is loaded.
    """
    place, colon, attribute = BUILT_IN.get(label, label).rpartition(":")
    if not colon:
        raise RewardError(
            f"no built-in reward `{label}`.{did_you_mean(label, BUILT_IN)} Built in: {', '.join(BUILT_IN)}.",
            "For your own write `my_rewards.py:function` or `package.module:function`.",
        )
    if not place or not attribute:
        raise RewardError(
            f"reward `{label}` names no function.", "Write `my_rewards.py:function` or `package.module:function`."
        )
    module = _load_file(label, place, search_dir) if _is_path(place) else _import(label, place)
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise RewardError(
            f"`{place}` has no `{attribute}`.{did_you_mean(attribute, public)} "
            f"It has: {', '.join(public) or 'no function'}.",
            "Correct the name behind the colon.",
        ) from None


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _load_file(label: str, place: str, search_dir: Path | None) -> ModuleType:
    folders = dict.fromkeys(folder.resolve() for folder in (search_dir, Path.cwd()) if folder is not None)
    candidates = [folder / Path(place).expanduser() for folder in folders]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        looked = ", ".join(str(candidate) for candidate in dict.fromkeys(candidates))
        raise RewardError(
            f"reward `{label}`: no file {looked}.", "Correct the path; it is relative to the config's folder."
        )
    # The name is that of the file's place, so that two files called rewards.py do not replace each other.
    # The date is in it, so that an edited file is read again.
    stamp = f"{path}:{path.stat().st_mtime_ns}".encode()
    name = f"align_user_rewards_{hashlib.blake2b(stamp, digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RewardError(f"reward `{label}`: {path} is not a Python file.", "Its name must end in `.py`.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RewardError(
            f"reward `{label}`: {path} fails when it is loaded: {told(error)}.", "Repair the file."
        ) from error
    return module


def _import(label: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        hint = (
            "Install it."
            if not place.startswith(missing)
            else f"Correct the name, or write `{place}.py:...` for a file."
        )
        raise RewardError(f"reward `{label}`: there is no module `{missing}`.", hint) from None
    except Exception as error:
        raise RewardError(
            f"reward `{label}`: importing `{place}` fails: {told(error)}.", "Repair the module."
        ) from error


def told(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"
