"""A loaded reward model that scores texts: tokens as in training, answers of like length together, one pass for all."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.errors import AlignError
from align.rewards.gating import Gate, gated_score
from preference.data import DataReport, Texts
from preference.formats import TextRow, as_chat
from preference.models.quiet import quiet
from preference.reward_models.files import Card, read_card
from preference.reward_models.network import HEAD, head_scores, hidden_states, pad_right, states_at
from preference.reward_models.scorer import Scores, card_of_stranger, labels_of, scoring
from preference.tokenise import tokenise_responses
from preference.tokens import TokenResponses

GATE = "gate.safetensors"
"""Weights of the gate, and the matrix `transform`."""


class Judge:
    """A network, its tokenizer and its card.

    Attributes:
        card: what scores mean.

    Args:
        network: a sequence classifier, frozen, in evaluation mode.
        tokenizer: its tokenizer (Any: transformers' tokenizers have no common type here).
        card: heads, scales, how texts become tokens.
        batch_size: answers of a pass.
        gate: gate and its matrix T; None without.
    """

    def __init__(
        self, network: nn.Module, tokenizer: Any, card: Card, *, batch_size: int, gate: tuple[Gate, Tensor] | None
    ) -> None:
        self.card = card
        self._network, self._tokenizer, self._gate, self._size = network, tokenizer, gate, batch_size
        self._pad = next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)
        self._last: tuple[tuple[str, ...], tuple[str, ...], Scores] | None = None
        self._lock = threading.Lock()

    def scores(self, prompts: Sequence[str], completions: Sequence[str]) -> Scores:
        """Raw scores of all heads; the same question asked again is not computed again."""
        asked = (tuple(prompts), tuple(completions))
        with self._lock:
            if self._last is None or self._last[:2] != asked:
                self._last = (*asked, self._score(*asked))
            return self._last[2]

    def _score(self, prompts: Sequence[str], completions: Sequence[str]) -> Scores:
        columns = len(self.card.names) + (self._gate is not None)
        values = torch.full((len(prompts), columns), math.nan, dtype=torch.float64)
        data, problem = self._tokens(prompts, completions)
        if data is not None:
            lengths = [len(data.prompt_ids[i]) + len(data.response_ids[i]) for i in range(len(data))]
            for places in _alike(lengths, self._size):
                values[[data.rows[i] for i in places]] = self._pass(data.select(places)).double().cpu()
        names = self.card.names
        return Scores(
            heads={name: values[:, place].tolist() for place, name in enumerate(names)},
            gated=values[:, -1].tolist() if self._gate is not None else None,
            why=[problem if bad else None for bad in values[:, 0].isnan().tolist()],
        )

    def _tokens(self, prompts: Sequence[str], completions: Sequence[str]) -> tuple[TokenResponses | None, str]:
        plain = [TextRow(prompt=p, responses=(c,)) for p, c in zip(prompts, completions, strict=True)]
        rows = tuple(as_chat(row) if self.card.is_chat else row for row in plain)
        report = DataReport(source="answers", read=len(rows), used=len(rows))
        places = tuple(f"answer {i}" for i in range(len(rows)))
        texts = Texts(rows=rows, numbers=tuple(range(len(rows))), places=places, columns={}, report=report)
        try:
            return tokenise_responses(texts, self._tokenizer, scoring(self.card.tokens)), "could not be tokenised"
        except AlignError as error:  # no row is left
            return None, f"could not be tokenised: {error.message}"

    @torch.no_grad()
    def _pass(self, data: TokenResponses) -> Float[Tensor, "b c"]:
        sequences = [torch.cat(both) for both in zip(data.prompt_ids, data.response_ids, strict=True)]
        ids, last = pad_right(sequences, self._pad)
        device = next(self._network.parameters()).device
        ids, last = ids.to(device), last.to(device)
        if not isinstance(getattr(self._network, HEAD, None), nn.Linear):
            return self._of_encoder(ids, last)
        hidden = hidden_states(self._network, ids, last)
        heads = head_scores(self._network, states_at(hidden, last))
        if self._gate is None:
            return heads
        gate, transform = self._gate
        ends = torch.tensor([len(row) - 1 for row in data.prompt_ids], device=device)
        gates = gate(states_at(hidden, ends).float())
        return torch.cat([heads, gated_score(heads, gates, transform)[:, None]], dim=1)

    def _of_encoder(self, ids: Int[Tensor, "n t"], last: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
        """Classifiers that pool in their own way."""
        mask = (torch.arange(ids.shape[1], device=ids.device) <= last[:, None]).long()
        model: Any = self._network
        return model(input_ids=ids, attention_mask=mask).logits.float()


def _alike(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places in runs of `size`, answers of like length together: less padding."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def load_judge(place: str, *, device: torch.device, dtype: torch.dtype, batch_size: int) -> Judge:
    """Load a reward model; no code of the model runs.

    Args:
        place: folder or hub id.
        device: where it runs.
        dtype: of the network.
        batch_size: answers of a pass.

    Raises:
        AlignError: it is no sequence classifier.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            network: Any = AutoModelForSequenceClassification.from_pretrained(
                place, dtype=dtype, use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise AlignError(
            f"option `path`: {place} cannot be loaded as a sequence classifier: {' '.join(str(error).split())[:300]}",
            "Give a finished run of `branch: reward_model`, or a reward model of transformers as safetensors.",
        ) from error
    network = network.to(device).eval().requires_grad_(False)
    folder = Path(place)
    card = read_card(folder) if folder.is_dir() else None
    if card is None:
        longest = getattr(network.config.get_text_config(), "max_position_embeddings", None)
        card = card_of_stranger(labels_of(network.config.id2label), tokenizer.chat_template is not None, longest)
    gate = None if card.gate is None else read_gate(folder, card.gate, device)
    return Judge(network, tokenizer, card, batch_size=batch_size, gate=gate)


def read_gate(folder: Path, settings: Any, device: torch.device) -> tuple[Gate, Tensor]:
    """Gate and matrix T of a folder (Any: JSON)."""
    from safetensors.torch import load_file

    tensors = load_file(folder / GATE)
    transform = tensors.pop("transform")
    gate = Gate(**settings)
    gate.load_state_dict(tensors)
    return gate.to(device).eval().requires_grad_(False), transform.to(device)


def write_gate(folder: Path, gate: Gate, transform: Float[Tensor, "k k"]) -> None:
    """Write gate and matrix T."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in gate.state_dict().items()}
    save_file({**tensors, "transform": transform.float().contiguous()}, folder / GATE)
