"""Answers of a model to prompts, token by token: the likeliest one, or draws from the model's distribution.

A draw is keyed by what it is for, so that an answer depends neither on the batch nor on the number of processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.engine.random import seed_of
from align.objectives.units import precise

Key = tuple[int | str, ...]
FIRST = 1024
"""Tokens among which top_p is looked for before all are sorted."""


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How answers are made.

    Attributes:
        max_new_tokens: longest answer.
        temperature: logits are divided by it; 0 = the likeliest token.
        top_p: draw from the fewest tokens that hold this much probability.
        stop_ids: tokens that end an answer; they are part of it.
        pad_id: fills rows up.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop_ids: Sequence[int] = ()
    pad_id: int = 0


@torch.no_grad()
def answer(
    network: nn.Module, prompts: Sequence[Int[Tensor, "_"]], keys: Sequence[Key], settings: AnswerSettings
) -> list[Int[Tensor, "_"]]:
    """One answer to each prompt.

    Args:
        network: causal language model.
        prompts: token ids.
        keys: of the draws, one per prompt; not looked at with temperature 0.
        settings: lengths, temperature, ends.

    Returns:
        Token ids of the answers on the CPU, their end token included.
    """
    device = next(network.parameters()).device
    ids, mask = (part.to(device) for part in _left_padded(prompts, settings.pad_id))
    sources = [torch.Generator().manual_seed(seed_of(*key)) for key in keys]
    stops = torch.tensor(list(settings.stop_ids), dtype=torch.int64, device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    model: Any = network  # Any: what a call returns is transformers' own
    name, cache = _cache_name(network), None
    drawn, positions = [], (mask.cumsum(dim=1) - 1).clamp(min=0)
    with _at_rest(network):
        for _ in range(settings.max_new_tokens):
            found = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **{name: cache})
            cache = getattr(found, name)
            token = _next(found.logits[:, -1], sources, settings)
            drawn.append(torch.where(done, settings.pad_id, token))
            done |= torch.isin(token, stops)
            if bool(done.all()):
                break
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [_ended(row, settings.stop_ids) for row in torch.stack(drawn, dim=1).cpu()]


def nucleus(probabilities: Float[Tensor, "b v"], top_p: float) -> Float[Tensor, "b v"]:
    """The fewest entries that hold `top_p` of the probability, the likeliest first, as a distribution.

    References:
        Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751, section 3.1.
    """
    ordered, order = _likeliest(probabilities, top_p)
    before = ordered.cumsum(dim=-1) - ordered
    kept = torch.where(before < top_p, ordered, 0.0)
    kept = kept / kept.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, kept)


def _likeliest(probabilities: Float[Tensor, "b v"], top_p: float) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Values in falling order and their places: so many that each row holds `top_p`. Sorting a vocabulary is slow, and
    the first thousand nearly always do."""
    first = probabilities.topk(min(FIRST, probabilities.shape[-1]), dim=-1)
    if bool((first.values.sum(dim=-1) > top_p).all()):
        return first.values, first.indices
    return probabilities.sort(dim=-1, descending=True)


def _next(logits: Tensor, sources: Sequence[torch.Generator], settings: AnswerSettings) -> Int[Tensor, "b"]:
    """The next token of each row. Draws are made on the CPU, where a key means the same on every machine."""
    if settings.temperature == 0:
        return precise(logits).argmax(dim=-1)
    probabilities = (precise(logits).cpu() / settings.temperature).softmax(dim=-1)
    if settings.top_p < 1:
        probabilities = nucleus(probabilities, settings.top_p)
    rows = zip(probabilities, sources, strict=True)
    return torch.stack([torch.multinomial(row, 1, generator=source)[0] for row, source in rows]).to(logits.device)


def _cache_name(network: nn.Module) -> str:
    """What this version of transformers calls keys and values of earlier tokens."""
    known = inspect.signature(type(network).forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def _left_padded(prompts: Sequence[Tensor], pad_id: int) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _ended(row: Int[Tensor, "t"], stop_ids: Sequence[int]) -> Int[Tensor, "_"]:
    stops = torch.isin(row, torch.tensor(list(stop_ids), dtype=torch.int64)).nonzero().flatten()
    return row[: int(stops[0]) + 1] if len(stops) else row


@contextmanager
def _at_rest(network: nn.Module) -> Iterator[None]:
    """All layers in evaluation mode: with gradient checkpointing on, blocks in training mode have no cache."""
    modes = [(layer, layer.training) for layer in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for layer, training in modes:
            layer.training = training
