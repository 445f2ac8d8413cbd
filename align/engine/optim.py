"""AdamW, its learning-rate schedule, clipping, and the guard against gradients that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from align.config.shared import OptimizerConfig
from align.engine.sharding import spread, whole
from align.errors import AlignError

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Share of the peak learning rate when the share `done` of the updates after the warm-up is over."""

FUSED = ("cpu", "cuda", "xpu", "mps")
"""Devices on which one pass over the memory does the whole update: on a CPU about a tenth of the time."""
_SKIPS_IN_A_ROW = 5
_SKIPS_IN_A_ROW_FP16 = 25  # the loss scale starts at 2^16 and halves at each skip: finding it is no failure
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Scaler(Protocol):
    """What we use of torch's GradScaler (Any: its state, which only it reads)."""

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None: ...

    def step(self, optimizer: torch.optim.Optimizer) -> object: ...

    def update(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What one update did.

    Attributes:
        grad_norm: L2 norm of the gradient before clipping.
        learning_rate: the rate that was applied.
        applied: False if the gradient was not finite and the update was left out.
    """

    grad_norm: float
    learning_rate: float
    applied: bool


def schedule_factor(schedule: str, update: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at update `update` = 0 .. total - 1.

    The warm-up rises as (update + 1) / (warmup + 1), so the first update already moves and update `warmup` has the
    peak; after it the schedule runs from 1 towards 0 over the remaining updates.
    """
    if update < warmup:
        return (update + 1) / (warmup + 1)
    return SCHEDULES[schedule](min((update - warmup) / max(total - warmup, 1), 1.0))


class Optimizer:
    """AdamW over named weights.

    Attributes:
        updates: how many updates there have been, those left out included.

    Args:
        weights: trained weights by stable name, float32.
        config: settings.
        total_updates: length of the schedule.
        scaler: loss scaling of fp16, or None.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        config: OptimizerConfig,
        *,
        total_updates: int,
        scaler: Scaler | None = None,
    ) -> None:
        self.updates = 0
        self._names = list(weights)
        self._weights = list(weights.values())
        self._config = config
        self._total = total_updates
        self._scaler = scaler
        self._skips_in_a_row = 0
        self._adamw = torch.optim.AdamW(
            self._weights,
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=all(weight.device.type in FUSED for weight in self._weights) or None,
        )
        # Made now, not at the first update: a run that does not fit fails before its first step, and on a CPU they do
        # not settle in the gaps between that step's activations, where they would break up the memory for good.
        zeros = {place: _no_moments(weight) for place, weight in enumerate(self._weights)}
        self._adamw.load_state_dict({"state": zeros, "param_groups": self._adamw.state_dict()["param_groups"]})

    def step(self) -> UpdateReport:
        """Clip, update, and clear the gradients. All processes hold the same gradients, so they decide alike.

        Raises:
            AlignError: no gradient has been finite for several updates.
        """
        config = self._config
        factor = schedule_factor(config.schedule, self.updates, config.warmup_updates, self._total)
        rate = config.learning_rate * factor
        for group in self._adamw.param_groups:
            group["lr"] = rate
        if self._scaler is not None:
            self._scaler.unscale_(self._adamw)
        norm = clip_gradients(self._weights, config.max_grad_norm)
        applied = math.isfinite(norm)
        if self._scaler is not None:
            self._scaler.step(self._adamw)  # leaves the update out by itself where a gradient is not finite
            self._scaler.update()
        elif applied:
            self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self.updates += 1
        self._count_skips(applied, norm)
        return UpdateReport(grad_norm=norm, learning_rate=rate, applied=applied)

    def _count_skips(self, applied: bool, norm: float) -> None:
        self._skips_in_a_row = 0 if applied else self._skips_in_a_row + 1
        limit = _SKIPS_IN_A_ROW if self._scaler is None else _SKIPS_IN_A_ROW_FP16
        if self._skips_in_a_row >= limit:
            raise AlignError(
                f"the gradient was not finite (norm {norm}) in {limit} updates in a row; training cannot go on.",
                "Lower optimizer.learning_rate, train with training.mixed_precision=bf16 or no, and look at rewards "
                "and loss of the last steps in metrics.jsonl. The last checkpoint holds weights from before.",
            )

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """Moments as `exp_avg/<weight>` ... (spread where the weights are), counters and loss scale as numbers."""
        state: dict[str, Tensor | int | float] = {"updates": self.updates, "skips_in_a_row": self._skips_in_a_row}
        for name, weight in zip(self._names, self._weights, strict=True):
            for key, value in self._adamw.state.get(weight, {}).items():
                state[f"{key}/{name}"] = value
        if self._scaler is not None:
            state |= {f"scaler/{key}": value for key, value in self._scaler.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor | int | float]) -> None:
        """Inverse of `state_dict`; moments may be whole or spread."""
        self.updates = int(state["updates"])
        self._skips_in_a_row = int(state["skips_in_a_row"])
        moments: dict[int, dict[str, Tensor | int | float]] = {}
        for place, (name, weight) in enumerate(zip(self._names, self._weights, strict=True)):
            found = {key: state[f"{key}/{name}"] for key in _MOMENTS if f"{key}/{name}" in state}
            if found:
                moments[place] = {key: _like(value, weight) for key, value in found.items()}
        groups = self._adamw.state_dict()["param_groups"]
        self._adamw.load_state_dict({"state": moments, "param_groups": groups})
        prefix = "scaler/"
        scaling = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if self._scaler is not None and scaling:
            self._scaler.load_state_dict(scaling)


def clip_gradients(weights: list[nn.Parameter], largest: float | None) -> float:
    """Scale all gradients so that their common L2 norm is at most `largest` (None: any). Returns the norm before.

    A collective where gradients are spread over processes; the norm is of all of them.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not gradients:
        return 0.0
    norm = whole(nn.utils.get_total_norm(gradients))
    if largest is not None:
        nn.utils.clip_grads_with_norm_(weights, largest, norm)
    return float(norm)


def _no_moments(weight: nn.Parameter) -> dict[str, Tensor]:
    """AdamW's state before its first update."""
    return {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}


def _like(value: Tensor | int | float, weight: Tensor) -> Tensor | int | float:
    """A moment as the weight is spread; the count of steps is a scalar and stays."""
    return spread(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value
