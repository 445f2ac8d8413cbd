"""Train the transformer and both text encoders of the embedded model (loss: `flow_matching`).

Matrices inside attention and feed-forward layers are trained by Muon, everything else by AdamW. The learning rate
follows the used share of a *time* budget: warm-up, plateau, linear decay to zero. What is exported is an average of the
weights (EMA).

References:
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diffusion.tiny.flow_matching import Model, flow_matching_loss
from diffusion.tiny.train_autoencoder import Log

EMA_DECAY = 0.999
WARM_UP = 0.02
DECAY_FROM = 0.6


@dataclass(frozen=True)
class Plan:
    """Settings of the stage.

    Attributes:
        minutes: time budget, which the learning rate follows; it counts over all calls that resume each other.
        batch_size: pictures per step.
        learning_rate: AdamW's.
        matrix_learning_rate: Muon's, in AdamW's scale.
        stop: minutes of the budget after which a call ends early.
        snapshot_minutes: between checkpoints.
    """

    minutes: float
    batch_size: int
    learning_rate: float
    matrix_learning_rate: float
    stop: float = float("inf")
    snapshot_minutes: float = 5.0
    seed: int = 0


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of the transformer's attention and feed-forward layers, for Muon; everything else, for AdamW."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside = "transformer_blocks" in name and (".attn." in name or ".ff" in name)
        (matrices if inside and parameter.ndim == 2 else others).append(parameter)
    return matrices, others


def learning_rate_factor(progress: float) -> float:
    """Warm-up, plateau, linear decay to zero.

    Args:
        progress: used share of the budget, 0..1.
    """
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return min(1.0, max(0.0, (1.0 - progress) / (1.0 - DECAY_FROM)))


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """ema <- d ema + (1 - d) weights, in place; d = min(0.999, (1 + step) / (10 + step)), so the start is forgotten."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    weights = [parameter.detach() for parameter in model.parameters()]
    torch._foreach_lerp_(list(ema.values()), weights, 1.0 - decay)


class Trainer:
    """Model, average, optimisers, generator and clock: what a checkpoint holds."""

    def __init__(self, tokenizer: CLIPTokenizer, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.model, self.plan = Model(tokenizer), plan
        self.ema = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        matrices, others = parameter_groups(self.model)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=plan.matrix_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4
            ),
            torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.base_rates = [group["lr"] for group in self._groups()]
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.step, self.seconds = 0, 0.0

    def _groups(self) -> list[dict]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def update(
        self, clean: Float[Tensor, "m c h w"], ids: Int[Tensor, "m s"], empty_ids: Int[Tensor, "s"]
    ) -> dict[str, float]:
        """One step on a random batch of the cached latents; returns loss and gradient norm."""
        rows = torch.randint(len(clean), (self.plan.batch_size,), generator=self.generator)
        loss = flow_matching_loss(self.model, clean[rows].float(), ids[rows].long(), empty_ids, self.generator)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = learning_rate_factor(self.seconds / (60 * self.plan.minutes))
        for group, base in zip(self._groups(), self.base_rates, strict=True):
            group["lr"] = base * factor
        for optimizer in self.optimizers:
            optimizer.step()
        update_ema(self.ema, self.model, self.step)
        self.step += 1
        return {"loss": loss.item(), "grad_norm": norm.item()}

    def state_dict(self) -> dict[str, object]:
        """Everything a resumed run needs; tensors, numbers and dictionaries only, so it loads with weights_only."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where a checkpoint stopped; the time already used counts."""
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.step, self.seconds = state["step"], state["seconds"]


def save(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint under another name first, so that a kill never leaves half a file."""
    partial = path.with_suffix(".partial")
    torch.save(trainer.state_dict(), partial)
    partial.replace(path)


def token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Int[Tensor, "n s"]:
    """Padded ids as the pipeline makes them, int16 to keep the cache small."""
    unique = sorted(set(captions))
    rows = tokenizer(unique, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(torch.int16)
    where = {text: k for k, text in enumerate(unique)}
    return rows[torch.tensor([where[text] for text in captions])]


def train(
    clean: Float[Tensor, "m c h w"],
    captions: Sequence[str],
    tokenizer: CLIPTokenizer,
    *,
    folder: Path,
    plan: Plan,
    log: Log,
    log_every: int = 50,
) -> Trainer:
    """Train until the time budget is used or `plan.stop` is reached.

    A checkpoint `folder/transformer.pt` is written every few minutes and at the end, and is where the next call starts.

    Args:
        clean: normalised latents.
        captions: one per latent.
        folder: where a checkpoint is looked for and written.
    """
    trainer, path = Trainer(tokenizer, plan), folder / "transformer.pt"
    if path.exists():
        trainer.load_state_dict(torch.load(path, weights_only=True))
    ids = token_ids(tokenizer, captions)
    empty_ids = token_ids(tokenizer, [""])[0].long()
    saved = last = time.monotonic()
    while trainer.seconds < 60 * min(plan.minutes, plan.stop):
        measured = trainer.update(clean, ids, empty_ids)
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        if trainer.step % log_every == 0:
            log({"stage": "transformer", "step": trainer.step, "minutes": trainer.seconds / 60, **measured})
        if now - saved > 60 * plan.snapshot_minutes:
            save(trainer, path)
            saved = now
    save(trainer, path)
    return trainer
