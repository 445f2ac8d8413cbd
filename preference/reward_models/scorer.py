"""A reward model as a reward by name: `function: reward_model`, `options: {path: runs/my_run}`.

Prompts and answers become tokens by the code and the settings that they were trained with. Rewards that name the same
folder share one network, and one pass: an entry for each attribute costs no more than one.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError, did_you_mean
from align.rewards.network import Lazy, pick_device, pick_dtype, place_of
from align.rewards.options import one_of, whole
from align.rewards.outcome import Unscored
from preference.config.data import TokensConfig
from preference.reward_models.files import Card, read_card

if TYPE_CHECKING:
    from preference.reward_models.judge import Judge

GATED = "gated"
"""Name of the one score of all heads, where a model has a gate."""
MAX_LENGTH = 2048
"""Tokens of prompt and answer, for a model that does not say."""
JUDGES: weakref.WeakValueDictionary[tuple[str, ...], Any] = weakref.WeakValueDictionary()
"""Networks by folder, device and number format, for as long as a reward uses them."""
MAKING = threading.Lock()


class RewardModelScore:
    """Score of an answer by a reward model: one trained here, or any sequence classifier of transformers.

    In the unit of the ratings that it was trained on (`units: label`), or as the head gives it (`raw`). Bradley-Terry
    rewards are natural-log odds with an arbitrary zero.

    Args:
        path: run folder, folder of the weights, or hub id.
        attribute: head to read, such as `helpfulness`; `gated` is the score of all heads by the model's gate. None
            takes the only one, or the gate's.
        units: `label` or `raw`.
        device: `auto`, `cpu`, `cuda:1`, ...
        dtype: of the network: float32, float16 or bfloat16; the head is float32.
        batch_size: answers in one forward pass.
    """

    def __init__(
        self,
        path: str,
        attribute: str | None = None,
        units: str = "label",
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 16,
    ) -> None:
        whole("batch_size", batch_size)
        one_of("units", units, ("label", "raw"))
        self._place = weights_folder(place_of("path", path))
        self._attribute, self._units = attribute, units
        key = (self._place, str(pick_device(device)), str(pick_dtype(dtype)), str(batch_size))
        self._judge = _shared(key, self._place, device, dtype, batch_size)
        if Path(self._place).is_dir():
            chosen(attribute, *_heads(Path(self._place)))  # a wrong name is told before a run, not in its first step

    def __call__(self, *, prompts: Sequence[str], completions: Sequence[str]) -> list[float | Unscored]:
        """One score for each answer."""
        if not completions:
            return []
        judge = self._judge.judge()
        name = chosen(self._attribute, judge.card.names, judge.card.gate is not None)
        found = judge.scores(prompts, completions)
        scale = judge.card.scales.get(name) if self._units == "label" else None
        values = found.gated if name == GATED and found.gated is not None else found.heads[name]
        values = values if scale is None else [scale.to_label(value) for value in values]
        return [value if reason is None else Unscored(reason) for value, reason in zip(values, found.why, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a judge says of some answers.

    Attributes:
        heads: raw score of each answer by name of the head; NaN where unscored.
        gated: by the gate; None without.
        why: reason of each answer that is unscored, None elsewhere.
    """

    heads: dict[str, list[float]]
    gated: list[float] | None
    why: list[str | None]


class Shared:
    """A judge that is loaded when it is first wanted.

    Args:
        place: folder or hub id.
        device, dtype, batch_size: see `RewardModelScore`.
    """

    def __init__(self, place: str, device: str, dtype: str, batch_size: int) -> None:
        def make() -> Judge:
            from preference.reward_models.judge import load_judge

            return load_judge(place, device=pick_device(device), dtype=pick_dtype(dtype), batch_size=batch_size)

        self.judge = Lazy(make)


def _shared(key: tuple[str, ...], place: str, device: str, dtype: str, batch_size: int) -> Shared:
    with MAKING:
        made = JUDGES.get(key)
        if made is None:
            made = JUDGES[key] = Shared(place, device, dtype, batch_size)
        return made


def weights_folder(place: str) -> str:
    """The folder of the weights in a run folder; anything else as it is.

    Raises:
        AlignError: a run that has not been finished, or a folder without a model.
    """
    folder = Path(place)
    if not folder.is_dir():
        return place
    inside = folder / "weights"
    found = next((one for one in (folder, inside) if (one / "config.json").is_file()), None)
    if found is None:
        raise AlignError(
            f"option `path`: expected a reward model in {folder}, found no config.json there or in weights/.",
            "Give the folder of a finished run (`align train` goes on with one that was stopped).",
        )
    return str(found)


def _heads(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Names of the heads, and whether there is a gate; from small files."""
    card = read_card(folder)
    if card is not None:
        return card.names, card.gate is not None
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return labels_of(settings.get("id2label") or {}), False


def labels_of(id2label: Any) -> tuple[str, ...]:
    """Names of a classifier's outputs, in order (Any: transformers' mapping, with numbers or texts as keys)."""
    found = {int(place): str(name) for place, name in dict(id2label).items()}
    return tuple(found[place] for place in sorted(found))


def chosen(attribute: str | None, names: Sequence[str], has_gate: bool) -> str:
    """The head that an option means.

    Raises:
        AlignError: there is no such head, or several and none is named.
    """
    known = (*names, *((GATED,) if has_gate else ()))
    if attribute is None and has_gate:
        return GATED
    if attribute is None and len(names) == 1:
        return names[0]
    if attribute is None:
        raise AlignError(
            f"option `attribute` is missing: the reward model has {len(names)} heads ({', '.join(names)}).",
            f"Write `attribute: {names[0]}`, and an entry for each further one you want; they share one pass.",
        )
    if attribute not in known:
        raise AlignError(
            f"option `attribute` names no head of the reward model: {attribute!r}.{did_you_mean(attribute, known)}",
            f"It has {', '.join(known)}.",
        )
    return attribute


def card_of_stranger(names: Sequence[str], is_chat: bool, longest: int | None) -> Card:
    """What is assumed of a classifier that was not trained here: raw scores, its tokenizer's own chat template."""
    length = min(MAX_LENGTH, longest or MAX_LENGTH)
    tokens = TokensConfig(max_length=length, max_prompt_length=length - 1)
    return Card(kind="classifier", names=tuple(names), scales={}, tokens=tokens, is_chat=is_chat)


def scoring(tokens: TokensConfig) -> TokensConfig:
    """The settings of training, but a row that cannot be used is left out: it is unscored, and others are scored."""
    long_prompts = "skip" if tokens.long_prompts == "refuse" else tokens.long_prompts
    return replace(tokens, bad_rows="skip", long_prompts=long_prompts)
