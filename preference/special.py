"""What a tokenizer puts at the beginning and the end of texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Ids = list[int]


@dataclass(frozen=True)
class SpecialTokens:
    """Begin and end tokens of a tokenizer (Any: transformers' tokenizers have no common type here).

    A begin token that the tokenizer defines but does not put before plain text (GPT-2; SmolLM2, which has that of a
    turn there) is left to the template.
    """

    tokenizer: Any

    @cached_property
    def bos(self) -> int | None:
        """The begin token, or None."""
        return self.tokenizer.bos_token_id

    @cached_property
    def eos(self) -> int | None:
        """The end token, or None."""
        return self.tokenizer.eos_token_id

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts the begin token before plain text."""
        return self.bos is not None and self._probe[:1] == [self.bos]

    @cached_property
    def adds_eos(self) -> bool:
        """Whether the tokenizer puts the end token behind plain text."""
        return self.eos is not None and self._probe[-1:] == [self.eos]

    @cached_property
    def _probe(self) -> Ids:
        return self.encode(["a"], special=True)[0]

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Tokens that may end a turn: those that were added to the vocabulary of text."""
        return frozenset((*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder))

    def encode(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        """Ids of texts, with or without the tokens that the tokenizer adds by itself."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts), add_special_tokens=special, return_attention_mask=False, truncation=False, verbose=False
        )
        return [list(ids) for ids in found["input_ids"]]

    def begun(self, ids: Ids) -> Ids:
        """With exactly one begin token, if the tokenizer is one that adds it."""
        if not self.adds_bos:
            return ids
        first = next((place for place, token in enumerate(ids) if token != self.bos), len(ids))
        return [*([] if self.bos is None else [self.bos]), *ids[first:]]

    def without_added_end(self, ids: Ids) -> Ids:
        """Without the end token that the tokenizer has put behind a prompt."""
        return ids[:-1] if self.adds_eos and ids[-1:] == [self.eos] else ids

    def end_of(self, ids: Ids) -> int | None:
        """Place of the token that ends an answer: an added token with nothing but white space behind it; or None."""
        place = next((i for i in range(len(ids) - 1, -1, -1) if ids[i] in self._ends), None)
        if place is None or (place < len(ids) - 1 and self.tokenizer.decode(ids[place + 1 :]).strip()):
            return None
        return place

    def fingerprint(self) -> str:
        """Hash of vocabulary, special tokens and template."""
        tokenizer = self.tokenizer
        vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=True)
        settings = [vocabulary, tokenizer.chat_template, self.bos, self.eos, self.adds_bos, self.adds_eos]
        return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()
