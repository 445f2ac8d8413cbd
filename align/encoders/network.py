"""An encoder of transformers: tokenizer, network, pooling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.encoders.base import masked_mean, weights_digest
from align.errors import AlignError

logger = logging.getLogger(__name__)


def _mean(output: Any, mask: Tensor) -> Tensor:
    return masked_mean(output.last_hidden_state, mask)


def _pooled(output: Any, mask: Tensor) -> Tensor:
    for name in ("text_embeds", "pooler_output"):
        found = getattr(output, name, None)
        if found is not None:
            return found.float()
    raise AlignError(
        f"the encoder makes no vector of a whole text: {type(output).__name__} has no `pooler_output`.",
        "Set `pooling: mean`.",
    )


POOLING: Mapping[str, Callable[[Any, Tensor], Tensor]] = {"mean": _mean, "pooled": _pooled}
"""Name -> output of the network and mask -> one vector per text (Any: transformers' outputs have no common type)."""


class NetworkEncoder:
    """A frozen network of transformers as an encoder.

    Args:
        network: in evaluation mode, on its device.
        tokenizer: of transformers (Any: tokenizers have no common type here).
        name: for people.
        pooling: `mean` or `pooled`.
        max_tokens: longer texts lose their end, which is told once.
    """

    def __init__(
        self, network: nn.Module, tokenizer: Any, *, name: str, pooling: str = "mean", max_tokens: int = 256
    ) -> None:
        if pooling not in POOLING:
            raise ValueError(f"`pooling` must be one of {', '.join(POOLING)}, found {pooling!r}.")
        self.name = name
        self.network = network.requires_grad_(False).eval()
        self._tokenizer, self._pooling = tokenizer, pooling
        self._max_tokens = min(max_tokens, _longest(network))
        self._told = False

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """See `align.encoders.base.TextEncoder`. Equal texts go through the network once."""
        found = {text: self._one(text) for text in dict.fromkeys(texts)}
        if not found:
            raise ValueError("expected at least one text, found none.")
        return torch.stack([found[text] for text in texts])

    def fingerprint(self) -> str:
        """Hash of the weights, of the vocabulary, and of how texts are cut and pooled."""
        vocabulary = sorted(self._tokenizer.get_vocab().items())
        return weights_digest(self.network.named_parameters(), self._pooling, str(self._max_tokens), str(vocabulary))

    def _one(self, text: str) -> Float[Tensor, "d"]:
        device = next(self.network.parameters()).device
        coded = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        if not self._told and coded["input_ids"].shape[1] == self._max_tokens:
            self._told = True
            logger.warning("a text fills the %d tokens that %s reads; its end may be cut off", *self._limits())
        ids, mask = coded["input_ids"].to(device), coded["attention_mask"].to(device)
        output = self.network(input_ids=ids, attention_mask=mask)
        return POOLING[self._pooling](output, mask)[0].float().cpu()

    def _limits(self) -> tuple[int, str]:
        return self._max_tokens, self.name


def load_network(
    path: str,
    *,
    name: str,
    pooling: str = "mean",
    max_tokens: int = 256,
    revision: str | None = None,
    device: torch.device | str = "cpu",
) -> NetworkEncoder:
    """The encoder in a folder or of a hub id.

    Raises:
        AlignError: the files are missing, or transformers cannot use them.
    """
    from transformers import AutoModel, AutoTokenizer

    where = {} if revision is None else {"revision": revision}
    try:
        with _without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
            network: Any = AutoModel.from_pretrained(
                path, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, **where
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        text = " ".join(str(error).split())[:300]
        raise AlignError(
            f"the encoder {path!r} cannot be loaded: {type(error).__name__}: {text}",
            "Give a folder or hub id of an encoder with safetensors that transformers knows without code of its own.",
        ) from error
    if getattr(network.config, "is_encoder_decoder", False):
        network = network.get_encoder()
    return NetworkEncoder(network.to(device), tokenizer, name=name, pooling=pooling, max_tokens=max_tokens)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()


def _longest(network: nn.Module) -> int:
    """Tokens that the position embeddings allow. RoBERTa keeps two places for its padding index."""
    config = getattr(network, "config", None)
    places = getattr(config, "max_position_embeddings", None)
    if not isinstance(places, int) or places < 1:
        return 10**6
    padding = getattr(config, "pad_token_id", None) or 0
    return places - padding - 1 if "roberta" in str(getattr(config, "model_type", "")) else places
