"""PRO's adapter as a method of the one loop: the KL of its weights from the wanted ones. Liu et al., arXiv:2511.10656.

    L = mean over prompts of KL(w*(x) || w(x))

What is known of the paper and what is ours: `align/shaping/adapter.py`. Ours here: held-out rows end the run when they
no longer get better, and the best weights that were seen are the ones that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from align.adapter.examples import Examples
from align.engine.epochs import epoch_rows, process_rows
from align.shaping.adapter import PreferenceAdapter, divergences
from align.types import LossOutput

if TYPE_CHECKING:
    from align.adapter.config import AdapterRun
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes

BEST = "best."
STREAM = "adapter_order"


class Pro:
    """The method, as the loop sees it (`align.engine.algorithm.Algorithm`), and its held-out rows.

    Args:
        config: the run's settings.
        train: rows to learn from.
        heldout: rows to judge by; none = neither early stopping nor a best.
        policy: the adapter, prepared.
        processes: who shares the rows.
        stop: called with the reason when the held-out rows have not got better for long enough.
    """

    def __init__(
        self,
        config: AdapterRun,
        train: Examples,
        heldout: Examples,
        *,
        policy: Policy,
        processes: Processes,
        stop: Callable[[str], None],
    ) -> None:
        self.best_kl, self.best_step, self._worse = math.inf, 0, 0
        self.stopped_early = False
        self._config, self._policy, self._processes, self._stop = config, policy, processes, stop
        self._train, self._heldout = train.to(processes.device), heldout.to(processes.device)
        self._best: dict[str, Tensor] = {}
        self._constant = train.targets.double().mean(dim=0).float().to(processes.device)

    def collect(self, step: int) -> Examples:
        """This process's rows of the step."""
        size = min(self._config.data.prompts_per_step, len(self._train))
        updates = self._config.training.updates_per_rollout
        rows = epoch_rows(len(self._train), size, self._config.seed, step - 1, STREAM)
        return self._train.select(rows[process_rows(size, updates, self._processes.rank, self._processes.world)])

    def prepare_update(self, update: int, rows: Examples) -> None:
        """Nothing."""

    def loss(self, micro: Examples) -> LossOutput:
        """Mean KL of the prompts."""
        log_weights = self._policy.through(_log_weights, micro.vectors, micro.available)
        loss = divergences(log_weights, micro.targets).mean()
        return LossOutput(loss=loss, count=len(micro))

    def after_step(self, step: int) -> Mapping[str, float]:
        """Nothing."""
        return {}

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out KL, and that of the best constant weights of the training rows; keeps the best, may end the run."""
        kl, constant = (float(values.double().mean()) for values in self.heldout_divergences())
        if kl < self.best_kl:
            self.best_kl, self.best_step, self._worse = kl, step, 0
            self._best = {name: weight.clone() for name, weight in self._policy.state_dict().items()}
        elif step > 0:
            self._worse += 1
            if self._worse >= self._config.stopping.patience:
                self.stopped_early = True
                self._stop(f"the held-out KL has not fallen since step {self.best_step}")
        return {"eval/kl": kl, "eval/constant_kl": constant, "eval/best_kl": self.best_kl}

    @torch.no_grad()
    def heldout_divergences(self) -> tuple[Tensor, Tensor]:
        """KL of each held-out row from the adapter's weights, and from the mean of the training targets."""
        rows = self._heldout
        adapter = cast("PreferenceAdapter", self._policy.module)
        own = divergences(adapter.log_weights(rows.vectors, rows.available), rows.targets)
        constant = self._constant.expand_as(rows.targets).masked_fill(~rows.available, 0.0)
        constant = constant / constant.sum(dim=1, keepdim=True)
        return own, divergences(constant.log(), rows.targets)

    def best_weights(self) -> Mapping[str, Tensor]:
        """The weights with the lowest held-out KL; the last ones where no held-out row was asked."""
        return self._best or self._policy.state_dict()

    def state_dict(self) -> Mapping[str, Tensor | int | float | str]:
        """The best so far, and for how long nothing was better."""
        best = {BEST + name: weight for name, weight in self._best.items()}
        known = {} if math.isinf(self.best_kl) else {"best_kl": self.best_kl}
        return {**known, "best_step": self.best_step, "worse": self._worse, **best}

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Inverse of `state_dict`."""
        numbers = {name: value for name, value in state.items() if isinstance(value, int | float)}
        self.best_kl, self.best_step = float(numbers.get("best_kl", math.inf)), int(numbers["best_step"])
        self._worse = int(numbers["worse"])
        self._best = {
            name.removeprefix(BEST): value
            for name, value in state.items()
            if name.startswith(BEST) and isinstance(value, Tensor)
        }


def _log_weights(adapter: PreferenceAdapter, vectors: Tensor, available: Tensor) -> Tensor:
    return adapter.log_weights(vectors, available)
