"""A reward model as a folder: what transformers reads, and beside it what turns a score into a label. IO only.

    config.json, model.safetensors, tokenizer    AutoModelForSequenceClassification.from_pretrained(folder)
    reward_model.json                            heads, their scales, how texts become tokens
    gate.safetensors                             ArmoRM's gate, where there is one

Without `reward_model.json` a folder is somebody else's classifier: its heads are named by its `id2label`, in raw units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.rewards.scales import LabelScale
from preference.config.data import TokensConfig
from preference.models.locate import Source, locate, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from align.engine.adapters import Policy
    from preference.config.models import CausalLm
    from preference.reward_models.network import RewardModel

CARD = "reward_model.json"
FORMAT = 1
"""Of the card; a later reader can tell what it has."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reward model's scores mean.

    Attributes:
        kind: the method that made it.
        names: the heads.
        scales: of the heads that were trained on ratings.
        tokens: how texts became tokens.
        is_chat: whether they were conversations.
        gate: what the gate beside it needs to be rebuilt (Any: JSON); None = no gate.
    """

    kind: str
    names: tuple[str, ...]
    scales: Mapping[str, LabelScale]
    tokens: TokensConfig
    is_chat: bool
    gate: Mapping[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        data = {
            "format": FORMAT,
            "kind": self.kind,
            "names": list(self.names),
            "scales": {name: scale.to_json() for name, scale in self.scales.items()},
            "tokens": {item.name: getattr(self.tokens, item.name) for item in fields(TokensConfig)},
            "is_chat": self.is_chat,
            "gate": self.gate,
        }
        (folder / CARD).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card | None:
    """The card of a folder; None where there is none.

    Raises:
        AlignError: it cannot be read, or is of a later format.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise AlignError(
                f"{path} has format {data['format']}, this suite reads {FORMAT}.", "Update align-suite, or train again."
            )
        return Card(
            kind=str(data["kind"]),
            names=tuple(data["names"]),
            scales={name: LabelScale.of(scale) for name, scale in data["scales"].items()},
            tokens=TokensConfig(**data["tokens"]),
            is_chat=bool(data["is_chat"]),
            gate=data["gate"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AlignError(
            f"{path} cannot be read: {type(error).__name__}: {error}.", "Train or copy it again."
        ) from error


def load_reward_model(
    config: CausalLm, names: tuple[str, ...], *, seed: int | None, device: Any = "cpu"
) -> RewardModel:
    """A language model with fresh heads; a local reward model with the same heads goes on with its own.

    Args:
        config: the language model.
        names: of the heads.
        seed: of fresh heads; None = zeros.
        device: where it is to be (Any: a torch device or its name).

    Raises:
        ModelError: it cannot be loaded, or its family has no sequence classifier.
    """
    import torch

    from preference.models import load_causal_lm
    from preference.reward_models.network import HEAD, with_heads

    reward = with_heads(load_causal_lm(config, device), names, seed=seed)
    saved = _saved_head(locate(config.path), names, HEAD)
    if saved is not None:
        with torch.no_grad():
            getattr(reward.network, HEAD).weight.copy_(saved)
    return reward


def _saved_head(source: Source, names: tuple[str, ...], head: str) -> Tensor | None:
    """The head of a local classifier with these labels; None where it is another model."""
    settings = read_config(source)
    labels = {str(place): name for place, name in enumerate(names)}
    is_classifier = any(name.endswith("ForSequenceClassification") for name in settings.get("architectures") or ())
    if source.folder is None or not is_classifier or settings.get("id2label") != labels:
        return None
    from safetensors import safe_open

    for path in sorted(source.folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if f"{head}.weight" in file.keys():  # noqa: SIM118 - no mapping, has keys() only
                return file.get_tensor(f"{head}.weight")
    return None


def save_reward_model(model: RewardModel, folder: Path, policy: Policy, card: Card) -> Path:
    """Write classifier, tokenizer and card; adapters are folded into the weights. Inside `Policy.assembled`."""
    from preference.models.save import save_merged

    save_merged(model.language, folder, policy)
    model.language.tokenizer.save_pretrained(folder)
    card.write(folder)
    return folder
