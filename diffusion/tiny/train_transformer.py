"""Train the transformer and both text encoders of the embedded model by flow matching.

With a latent x0, noise e ~ N(0, 1) and a time t in (0, 1), t = 1 being noise,

    x_t = (1 - t) x0 + t e,        loss = mean (v(x_t, 1000 t, caption) - (e - x0))^2,        logit(t) ~ N(0, 1).

One caption in ten is empty, so that classifier-free guidance works. The learning rate follows the share of the time
budget that is used: warm-up, constant, linear decay to zero over the last part.

**Zero tokens.** The stock pipeline appends m = 256 zero vectors to the context where the T5 tokens would be; rollouts use
m = 0. A quarter of the batches train the case m = 256, at the price of m = 1: equal tokens stay equal through every layer
(the context has no positions), so attention to m of them is attention to one whose logit is raised by log m.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from diffusion.tiny import build
from diffusion.tiny.train_autoencoder import Log

STOCK_ZERO_TOKENS = 256
CAPTION_DROPOUT = 0.1
ZERO_TOKEN_SHARE = 0.25
EMA_DECAY = 0.999
WARM_UP = 0.02
DECAY_FROM = 0.6


class RepeatLastKey(TorchFunctionMode):
    """Inside this context, attention counts the last key `times` times: its logit is raised by log(times).

    The raise enters as one more feature of queries (1) and keys (log(times) for the last, else 0), not as a mask: with a
    mask, the backward pass of attention on a CPU takes several times longer.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.raise_by = math.log(times)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 -- torch's signature
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        width = query.shape[-1]
        extra = torch.zeros(key.shape[-2], 1, dtype=key.dtype)
        extra[-1] = self.raise_by * math.sqrt(width)
        query = F.pad(query, (0, 1), value=1.0)
        key = torch.cat([key, extra.expand(*key.shape[:-1], 1)], dim=-1)
        return func(query, key, F.pad(value, (0, 1)), scale=1 / math.sqrt(width))[..., :width]


class Model(nn.Module):
    """Transformer and text encoders as one module, with the pipeline's way of making a context."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.transformer: SD3Transformer2DModel = build.transformer()
        self.text_encoder: CLIPTextModelWithProjection = build.text_encoder(tokenizer)
        self.text_encoder_2: CLIPTextModelWithProjection = build.text_encoder(tokenizer)

    def encode(self, ids: Int[Tensor, "n s"]) -> tuple[Float[Tensor, "n s d"], Float[Tensor, "n p"]]:
        """Context tokens and pooled vector, as `StableDiffusion3Pipeline.encode_prompt` makes them."""
        outputs = [encoder(ids, output_hidden_states=True) for encoder in (self.text_encoder, self.text_encoder_2)]
        context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return context, torch.cat([output.text_embeds for output in outputs], dim=-1)

    def forward(
        self, noisy: Float[Tensor, "n c h w"], t: Float[Tensor, "n"], ids: Int[Tensor, "n s"], zero_tokens: int = 0
    ) -> Float[Tensor, "n c h w"]:
        """Velocity at time t in [0, 1]."""
        context, pooled = self.encode(ids)
        if zero_tokens:
            context = F.pad(context, (0, 0, 0, 1))
        with RepeatLastKey(zero_tokens) if zero_tokens else nullcontext():
            return self.transformer(noisy, context, pooled, 1000.0 * t, return_dict=False)[0]


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of the transformer's attention and feed-forward layers, for Muon; everything else, for AdamW."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside = "transformer_blocks" in name and (".attn." in name or ".ff" in name)
        (matrices if inside and parameter.ndim == 2 else others).append(parameter)
    return matrices, others


def learning_rate_factor(progress: float) -> float:
    """Warm-up, plateau, linear decay to zero; `progress` is the used share of the budget, 0..1."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return min(1.0, max(0.0, (1.0 - progress) / (1.0 - DECAY_FROM)))


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """ema <- d ema + (1 - d) weights, with d = min(0.999, (1 + step) / (10 + step)) so that the start is forgotten."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    averages, weights = list(ema.values()), [parameter.detach() for parameter in model.parameters()]
    torch._foreach_lerp_(averages, weights, 1.0 - decay)


@dataclass
class Plan:
    """Settings of the stage."""

    minutes: float
    batch_size: int
    learning_rate: float
    matrix_learning_rate: float
    snapshot_minutes: float = 5.0
    seed: int = 0


def flow_matching_loss(
    model: Model,
    clean: Float[Tensor, "n c h w"],
    ids: Int[Tensor, "n s"],
    empty_ids: Int[Tensor, "s"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """The loss of the module's docstring on one batch, all randomness from `generator`."""
    n = len(clean)
    t = torch.sigmoid(torch.randn(n, generator=generator))
    noise = torch.randn(clean.shape, generator=generator)
    dropped = torch.rand(n, generator=generator) < CAPTION_DROPOUT
    ids = torch.where(dropped[:, None], empty_ids, ids)
    zero_tokens = STOCK_ZERO_TOKENS if torch.rand((), generator=generator) < ZERO_TOKEN_SHARE else 0
    weight = t.view(n, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model((1 - weight) * clean + weight * noise, t, ids, zero_tokens)
    return F.mse_loss(velocity.float(), noise - clean)


class Trainer:
    """Model, EMA, optimisers, generator and clock: what a checkpoint holds."""

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
        self.base_rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.step, self.seconds = 0, 0.0

    def update(self, clean: Tensor, ids: Tensor, empty_ids: Tensor) -> tuple[float, float]:
        """One step; returns loss and gradient norm."""
        rows = torch.randint(len(clean), (self.plan.batch_size,), generator=self.generator)
        loss = flow_matching_loss(self.model, clean[rows].float(), ids[rows].long(), empty_ids, self.generator)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = learning_rate_factor(self.seconds / (60 * self.plan.minutes))
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, base in zip(groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        for optimizer in self.optimizers:
            optimizer.step()
        update_ema(self.ema, self.model, self.step)
        self.step += 1
        return loss.item(), norm.item()

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


def train(
    clean: Float[Tensor, "n c h w"], captions: Sequence[str], tokenizer: CLIPTokenizer, *, folder: Path, plan: Plan, log: Log
) -> None:
    """Train until the time budget is used; checkpoint every few minutes to `folder/transformer.pt`."""
    trainer, path = Trainer(tokenizer, plan), folder / "transformer.pt"
    if path.exists():
        trainer.load_state_dict(torch.load(path, weights_only=True))
    ids = _token_ids(tokenizer, captions)
    empty_ids = _token_ids(tokenizer, [""])[0].long()
    saved = last = time.monotonic()
    losses: list[float] = []
    while trainer.seconds < 60 * plan.minutes:
        loss, norm = trainer.update(clean, ids, empty_ids)
        losses.append(loss)
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        if trainer.step % 50 == 0:
            row = {"stage": "transformer", "step": trainer.step, "minutes": trainer.seconds / 60}
            log({**row, "loss": sum(losses) / len(losses), "grad_norm": norm})
            losses = []
        if now - saved > 60 * plan.snapshot_minutes:
            save(trainer, path)
            saved = now
    save(trainer, path)


def _token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Int[Tensor, "n s"]:
    unique = sorted(set(captions))
    rows = tokenizer(unique, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(torch.int16)
    where = {text: k for k, text in enumerate(unique)}
    return rows[torch.tensor([where[text] for text in captions])]


@contextmanager
def averaged(model: Model, ema: dict[str, Tensor]) -> Iterator[Model]:
    """The model with its averaged weights, for as long as the context lasts."""
    own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.load_state_dict(ema, strict=False)
    yield model
    model.load_state_dict(own, strict=False)
