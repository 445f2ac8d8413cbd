"""The engine of all methods that learn from the steps of a denoising chain. A method adds its objective.

    rollout:   x_T -> x_(T-1) -> ... -> x_0,   x_(j+1) ~ N(mean(x_j), std_j^2 I),  one reward for x_0
    update:    for each trained step j, recompute log p(x_(j+1) | x_j) and add its loss; each step is one pass

The rollout keeps the states around the trained steps (`diffusion.trajectory`). The first update of a step finds the
weights that drew the samples, so there the old log-probability *is* the current one and the ratio is exactly 1,
whatever batch sizes do to the last digits; later updates compare with the log-probability that was stored. How far
the two are apart in the first update is logged as `log_prob_mismatch`.

The loss of an update is the mean over its rows and their trained steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.engine.batching import even_cuts
from align.types import LossOutput
from diffusion.chain_batch import ChainBatch, Piece, piece_of
from diffusion.chain_steps import step_plan
from diffusion.collect import Collector, DiffusionBatch
from diffusion.config import BranchingConfig
from diffusion.losses.chain import clipped_objective, ratio_metrics
from diffusion.method_state import State, joined_state, part_of_state
from diffusion.models.base import DiffusionModel
from diffusion.rollout import Recording
from diffusion.step import Step
from diffusion.transitions import check_fit, transition

if TYPE_CHECKING:
    from align.engine.adapters import Policy


@dataclass(frozen=True, kw_only=True)
class Old:
    """The policy that drew the samples, at the steps of a piece; constants."""

    log_probs: Float[Tensor, "m"]
    mean: Float[Tensor, "m c h w"]


@dataclass(frozen=True, kw_only=True)
class PolicyTerm:
    """A method's loss of each row of a piece, with gradient, and what it logs."""

    loss: Float[Tensor, "m"]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def clipped_term(
    log_ratio: Float[Tensor, "m"], advantages: Float[Tensor, "m"], clip_range: float, objective: str = "ppo_min"
) -> PolicyTerm:
    """The term of all methods with a clipped ratio; see `diffusion.losses.chain.clipped_objective`."""
    loss = clipped_objective(log_ratio, advantages, clip_range, objective)
    return PolicyTerm(loss=loss, metrics=ratio_metrics(log_ratio.detach(), clip_range))


class ChainMethod(ABC):
    """A method as the loop sees it (`align.engine.algorithm.Algorithm`); `policy_term` is the method.

    Args:
        collector: makes the samples of a step.
        model: the model family.
        policy: the trained network.
        timer: `timer(stage)` is a context manager.

    Raises:
        AlignError: a sampler that does not fit the model.
    """

    def __init__(self, collector: Collector, *, model: DiffusionModel, policy: Policy, timer: Callable) -> None:
        config = collector.config
        self.config: Any = config.algorithm  # each method's own settings
        self._run, self._collector, self._model, self._policy, self._timer = config, collector, model, policy, timer
        self._sampler = config.rollout.sampler
        check_fit(self._sampler, model.path)
        self._update = 0
        self._first_trained = 0

    # --- what a method says -------------------------------------------------------------------------------------------

    @abstractmethod
    def policy_term(self, now: Step, old: Old, piece: Piece) -> PolicyTerm:
        """Loss of each row.

        Args:
            now: the steps under the current weights, with gradient.
            old: the same under the weights that drew them.
            piece: where, and with which advantages.
        """

    def pull(self, output: Tensor, now: Step, piece: Piece) -> PolicyTerm | None:
        """A further term of each row, under the network's output there; None where there is none."""
        return None

    def reads_means(self) -> bool:
        """Whether the method compares the transitions' means with those of the policy that drew the samples."""
        return False

    def branching(self) -> BranchingConfig | None:
        """How rollouts of a prompt share noise; None = they do not."""
        return None

    # --- the protocol -------------------------------------------------------------------------------------------------

    def collect(self, step: int) -> ChainBatch:
        """Roll out with the trained steps kept, score and compare."""
        self._update = 0
        settings = self.config
        plan = step_plan(settings.steps, self._run.rollout.num_inference_steps, self._run.seed, step)
        self._first_trained = plan.trained[0]
        recording = Recording(
            plan=plan,
            dtype=getattr(torch, settings.storage_dtype),
            reduce=settings.log_prob,
            keep_means=self.reads_means() and self._run.training.updates_per_rollout > 1,
            branching=self.branching(),
        )
        batch = self._collector(step, self._policy.module, recording)
        fields = {name: getattr(batch, name) for name in DiffusionBatch.__dataclass_fields__}
        places = tuple(range(len(plan.trained)))
        chain = ChainBatch(
            **fields,
            places=places,
            steps_per_pass=settings.steps_per_pass,
            idle=torch.zeros(len(batch), dtype=torch.bool),
        )
        return self._with_idle_rows(chain) if settings.skip_zero_advantages else chain

    def prepare_update(self, update: int, rows: ChainBatch) -> None:
        """Remember whether the weights still are those that drew the samples."""
        self._update = update

    def loss(self, micro: ChainBatch) -> LossOutput:
        """Mean over the rows and steps of one pass."""
        count = micro.unit_count()
        if bool(micro.idle.all()):
            return LossOutput(
                loss=torch.zeros((), device=self._model.device, requires_grad=True),
                count=count,
                metrics={"policy_loss": 0.0},
            )
        piece = piece_of(micro, self._model.device, edges_once=self._counts_edges_once())
        output = self._predict(self._policy.network, piece)
        now = self._transition(piece, output)
        term = self.policy_term(now, self._old(now, piece), piece)
        policy_loss = (piece.weight * term.loss).mean()
        metrics: dict[str, float | Tensor] = {"policy_loss": policy_loss.detach(), **term.metrics}
        if self._update == 0:
            metrics["log_prob_mismatch"] = (now.log_prob.detach() - piece.log_probs).abs().mean()
        pull = self.pull(output, now, piece)
        if pull is None:
            return LossOutput(loss=policy_loss, count=count, metrics=metrics)
        return LossOutput(loss=policy_loss + pull.loss.mean(), count=count, metrics={**metrics, **pull.metrics})

    def after_step(self, step: int) -> Mapping[str, float]:
        """Where the trained steps began."""
        return {"first_trained_step": float(self._first_trained)}

    def state_dict(self) -> State:
        """The statistics of the reward pipeline."""
        return joined_state(pipeline=self._collector.pipeline.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`."""
        self._collector.pipeline.load_state_dict(part_of_state(state, "pipeline"))

    # --- one pass -----------------------------------------------------------------------------------------------------

    def _counts_edges_once(self) -> bool:
        branching = self.branching()
        return branching is not None and branching.edges == "once"

    def _predict(self, network: nn.Module, piece: Piece) -> Tensor:
        """The network's output under the rollout's guidance: the guided transition is the policy."""
        times = torch.as_tensor(piece.at.t, dtype=torch.float32).to(piece.x.device)
        return self._model.predict(
            network,
            piece.x,
            times,
            piece.conditioning,
            self._run.rollout.guidance_scale,
            detach_unconditional=self.config.detach_unconditional,
        )

    def _transition(self, piece: Piece, output: Tensor) -> Step:
        reduce = self.config.log_prob
        path = self._model.path
        return transition(self._sampler, path, piece.at, piece.x, output, prev_sample=piece.x_next, reduce=reduce)

    def _old(self, now: Step, piece: Piece) -> Old:
        if self._update == 0:
            return Old(log_probs=now.log_prob.detach(), mean=now.mean.detach())
        return Old(log_probs=piece.log_probs, mean=now.mean.detach() if piece.means is None else piece.means)

    # --- rows without a signal ----------------------------------------------------------------------------------------

    def _with_idle_rows(self, batch: ChainBatch) -> ChainBatch:
        """Rows of advantage 0 go to the front of their update; whole micro-batches of them are left out.

        As many on every process, so that all run the same number of passes; the last micro-batch of an update always
        runs, because gradients travel between processes with it. A collective.
        """
        size, training = self._run.training.micro_batch_size, self._run.training
        active = (batch.signal.advantages != 0).reshape(len(batch), -1).any(dim=1).cpu()
        cuts = even_cuts(len(batch), training.updates_per_rollout)
        order = torch.cat([cut.start + active[cut.start : cut.stop].int().argsort(stable=True) for cut in cuts])
        own = [min(int((~active[cut.start : cut.stop]).sum()), len(cut) - 1) // size for cut in cuts]
        everywhere = self._collector.processes.gather_objects(own)
        idle = torch.zeros(len(batch), dtype=torch.bool)
        for cut, counts in zip(cuts, zip(*everywhere, strict=True), strict=True):
            idle[cut.start : cut.start + min(counts) * size] = True
        return replace(batch.select(order), idle=idle)
