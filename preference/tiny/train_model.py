"""Train the embedded language model: next-token loss on the answers of conversations, within a time budget.

    loss = - mean over answer tokens (end tokens included) of log p(token | everything before it)

Matrices inside the layers are trained by Muon (`muon`), everything else by AdamW. The learning rate follows the used
share of the budget: warm-up, plateau, linear decay to zero. The result is an average of the weights (EMA).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from preference.tiny import build, conversations
from preference.tiny.muon import Muon

EMA_DECAY = 0.995
WARM_UP = 0.03
DECAY_FROM = 0.5
POOL = 16
"""Batches that are drawn together and cut by length, so that little is padding."""

Log = Callable[[dict[str, object]], None]
Save = Callable[[dict[str, Tensor]], None]

TEXTS: dict[str, Callable[[random.Random], conversations.Conversation]] = {
    "truth": lambda rng: conversations.draw(rng, wrong_answers=False),
    "slips": lambda rng: conversations.draw(rng, wrong_answers=True),
}
"""Training texts of each stage."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a stage.

    Attributes:
        minutes: budget of processor time, which the learning rate follows; a busy machine does not shorten it.
        stage: which texts, a key of `TEXTS`.
        batch_size: conversations of a step.
        learning_rate: AdamW's.
        matrix_learning_rate: Muon's, in AdamW's scale.
        seed: of the texts.
        log_every: steps between rows of the log.
        save_every: steps between snapshots of the averaged weights.
    """

    minutes: float
    stage: str
    batch_size: int = 16
    learning_rate: float = 3e-3
    matrix_learning_rate: float = 6e-3
    seed: int = 0
    log_every: int = 25
    save_every: int = 50


def learning_rate_factor(progress: float) -> float:
    """Warm-up, plateau, linear decay to zero.

    Args:
        progress: used share of the budget, 0..1.
    """
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return min(1.0, max(0.0, (1.0 - progress) / (1.0 - DECAY_FROM)))


def batches(tokenizer: Any, plan: Plan) -> Iterator[Int[Tensor, "b t"]]:
    """Token ids of random conversations without end, filled up behind with the padding token."""
    rng = random.Random(plan.seed)
    while True:
        drawn = [TEXTS[plan.stage](rng) for _ in range(POOL * plan.batch_size)]
        texts = tokenizer.apply_chat_template(drawn, tokenize=False)
        rows = sorted(tokenizer(texts, add_special_tokens=False)["input_ids"], key=len)
        starts = list(range(0, len(rows), plan.batch_size))
        rng.shuffle(starts)
        for start in starts:
            batch = [torch.tensor(row) for row in rows[start : start + plan.batch_size]]
            yield nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=tokenizer.pad_token_id)


def answer_mask(
    ids: Int[Tensor, "b t"], roles: Int[Tensor, "r"], assistant_id: int, pad_id: int
) -> Bool[Tensor, "b t"]:
    """Tokens that the assistant writes: those whose last role token before them is the assistant's.

    Args:
        ids: conversations.
        roles: ids of all role tokens.
        assistant_id: that of the assistant.
        pad_id: of the padding.
    """
    is_role = torch.isin(ids, roles)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    last = torch.where(is_role, places, 0).cummax(dim=1).values
    speaks = ids.gather(1, last) == assistant_id
    return speaks & ~is_role & (ids != pad_id)


class Trainer:
    """Network, average, optimisers."""

    def __init__(self, tokenizer: Any, network: nn.Module, plan: Plan) -> None:
        self.plan, self.network = plan, network
        self.roles = torch.tensor(tokenizer.convert_tokens_to_ids([f"<|{role}|>" for role in build.ROLES]))
        self.assistant_id, self.pad_id = int(self.roles[-1]), tokenizer.pad_token_id
        self.ema = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        named = list(network.named_parameters())
        matrices = [weight for name, weight in named if ".layers." in name and weight.ndim == 2]
        others = [weight for name, weight in named if not (".layers." in name and weight.ndim == 2)]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=plan.matrix_learning_rate),
            torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.step = 0

    def loss(self, ids: Int[Tensor, "b t"]) -> Tensor:
        """Mean negative log-likelihood of the answer tokens, in nats. Padding stands behind, so no mask is needed."""
        wanted = answer_mask(ids, self.roles, self.assistant_id, self.pad_id)[:, 1:]
        model: Any = self.network  # Any: its parts are transformers' own
        hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state[wanted]
        return nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][wanted])

    def update(self, ids: Int[Tensor, "b t"], progress: float) -> dict[str, float]:
        """One step; returns loss and gradient norm."""
        loss = self.loss(ids)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * learning_rate_factor(progress)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        weights = [weight.detach() for weight in self.network.parameters()]
        torch._foreach_lerp_(list(self.ema.values()), weights, 1.0 - decay)
        self.step += 1
        return {"loss": loss.item(), "grad_norm": norm.item()}


def train(tokenizer: Any, network: nn.Module, plan: Plan, log: Log, save: Save) -> None:
    """Train until the time is used.

    Args:
        tokenizer: of `build.tokenizer`.
        network: of `build.network`; its weights are changed.
        plan: the stage.
        log: gets a row now and then.
        save: gets the averaged weights by name, now and then and at the end; a run may be ended early.
    """
    trainer = Trainer(tokenizer, network, plan)
    start = time.process_time()
    for ids in batches(tokenizer, plan):
        minutes = (time.process_time() - start) / 60
        if minutes >= plan.minutes:
            break
        measured = trainer.update(ids, minutes / plan.minutes)
        if trainer.step % plan.log_every == 0:
            log({"stage": plan.stage, "step": trainer.step, "minutes": minutes, **measured})
        if trainer.step % plan.save_every == 0:
            save(trainer.ema)
    log({"stage": plan.stage, "step": trainer.step, "minutes": plan.minutes, "finished": True})
    save(trainer.ema)
