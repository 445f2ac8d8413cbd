"""Linear heads on CLIP's picture embeddings as rewards, as LAION's aesthetic head is; `fit_clip_head` fits your own.

    score_k = w_k . f(image) / |f(image)| + b_k

A folder holds `head.safetensors` (weight [k, d], bias [k]) and `head.json` (the CLIP, the attributes, their scales).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from align.errors import AlignError, did_you_mean
from align.rewards.clip import lazy_clip
from align.rewards.network import Lazy, place_of, read_weights
from align.rewards.options import one_of
from align.rewards.scales import LabelScale

CARD, WEIGHTS = "head.json", "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class HeadCard:
    """What a folder of heads holds beside its weights.

    Attributes:
        model: folder or hub id of the CLIP of transformers.
        scales: of each attribute, in the order of the rows of the weight.
    """

    model: str
    scales: Mapping[str, LabelScale]

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes."""
        return tuple(self.scales)


def write_head(folder: Path, card: HeadCard, weight: Float[Tensor, "k d"], bias: Float[Tensor, "k"]) -> Path:
    """Write both files."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    data = {"model": card.model, "attributes": {name: scale.to_json() for name, scale in card.scales.items()}}
    (folder / CARD).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file({"weight": weight.float().contiguous(), "bias": bias.float().contiguous()}, folder / WEIGHTS)
    return folder


def read_head_card(folder: Path) -> HeadCard:
    """The card of a folder.

    Raises:
        AlignError: there is none, or it cannot be read.
    """
    path = folder / CARD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        scales = {name: LabelScale.of(scale) for name, scale in data["attributes"].items()}
        return HeadCard(model=str(data["model"]), scales=scales)
    except FileNotFoundError:
        raise AlignError(
            f"option `head`: expected {CARD} in {folder}, found none.",
            "Give the folder that `python -m align.rewards.fit_clip_head` wrote.",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise AlignError(f"option `head`: {path} cannot be read ({told}).", "Fit the head again.") from error


class ClipHead:
    """Rating of a picture by a linear head on CLIP's embedding, in the unit of the ratings. The prompt plays no part.

    Args:
        head: folder of `fit_clip_head`.
        attribute: which rating; None takes the only one.
        units: `label`, or `raw` for the training unit in [0, 1].
        model: folder or hub id of the CLIP; None is the one that the head was fitted on.
        device: `auto`, `cpu`, `cuda:1`, ...
        dtype: of the CLIP network: float32, float16 or bfloat16.
        batch_size: pictures in one forward pass.

    References:
        Schuhmann et al., "LAION-5B: An open large-scale dataset for training next generation image-text models",
        arXiv:2210.08402 (an aesthetic head of this kind).
    """

    def __init__(
        self,
        head: str,
        attribute: str | None = None,
        units: str = "label",
        model: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        one_of("units", units, ("label", "raw"))
        folder = Path(place_of("head", head))
        card = read_head_card(folder)
        self._name = _chosen(attribute, card.names)
        self._row = card.names.index(self._name)
        self._scale = card.scales[self._name] if units == "label" else None
        place = card.model if model is None else model
        self.clip = lazy_clip(place, place, device, dtype, batch_size)
        self._weights = Lazy(lambda: read_weights(folder / WEIGHTS))

    def __call__(self, *, images: Sequence[Image]) -> list[float]:
        """One score per picture."""
        if not images:
            return []
        weights = self._weights()
        weight, bias = weights["weight"][self._row].double(), weights["bias"][self._row].double()
        embedded = self.clip().embed_images(images).double()
        if embedded.shape[1] != len(weight):
            raise AlignError(
                f"the head reads {len(weight)} features, the CLIP network gives {embedded.shape[1]}.",
                "Give the CLIP that the head was fitted on in `model`, or leave it out.",
            )
        scores = embedded @ weight + bias
        return (scores if self._scale is None else self._scale.to_label(scores)).tolist()


def _chosen(attribute: str | None, names: Sequence[str]) -> str:
    if attribute is None and len(names) == 1:
        return names[0]
    if attribute is None or attribute not in names:
        found = "is missing" if attribute is None else f"is {attribute!r}"
        raise AlignError(
            f"option `attribute` {found}; the head rates {', '.join(names)}.{did_you_mean(str(attribute), names)}",
            f"Write for example `attribute: {names[0]}`.",
        )
    return attribute
