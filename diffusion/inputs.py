"""What a step of pictures can bring for estimators, beside rewards and groups: field of `AdvantageInputs` -> builder.

A collector asks its pipeline what it needs and builds exactly that, so that further rollouts are made only where an
estimator reads them:

    builders = builders_for(pipeline.needs(), providers_for(config))
    inputs = {name: build(context) for name, build in builders.items()}

Torch-free at import: the checks before a run read the names in these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from align.config.needs import Need, explain, needs_of, unmet
from align.config.pipeline import PipelineConfig
from align.errors import AlignError
from diffusion.config import ChainConfig, DiffusionRun
from diffusion.needs import reads_reference

if TYPE_CHECKING:
    from torch import Tensor

    from align.types import RewardTable
    from diffusion.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class FurtherRollout:
    """Pictures that nobody trains on: their rewards are a baseline.

    Attributes:
        name: keys their noise. It is never the noise of a sample: a baseline that depends on what the sample drew
            biases the gradient, and the reference on the same noise would cancel it altogether before training.
        reference: drawn by the policy from before training instead of by the present one.
        deterministic: one picture per prompt by the ODE, all samples of the prompt share its reward; otherwise one
            per sample, by the rollout's own step rule.
    """

    name: str
    reference: bool = False
    deterministic: bool = False


GREEDY = FurtherRollout(name="greedy", deterministic=True)
"""The nearest thing to a greedy answer: no noise but the initial one, which is drawn anew in each step."""
REFERENCE = FurtherRollout(name="reference", reference=True)
"""What the policy from before training draws for the same prompt."""
FURTHER: Mapping[str, FurtherRollout] = {"greedy_rewards": GREEDY, "reference_rewards": REFERENCE}
"""Field of `AdvantageInputs` -> the rollout whose rewards it is."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What builders may look at. Rows are those of all processes, in global order.

    Attributes:
        step: number of the step, from 1.
        prompt_index: number of each row's prompt in the data set, int64.
        group_ids: of each row, int64.
        rescored: rewards of a further rollout, one row per row of the step; a collective.
        of_all_rows: gathers a tensor with one row per sample of this process; a collective.
        trajectory: trained steps of this process's samples, where a method learns from them.
        keys: which rows share noise after each step, None where none do.
        implied: rewards of the pictures that the states imply, before the first trained step and after each, one row
            per row of the step; a collective.
        prompt_weights: reward -> weight of each row's prompt, where an adapter weighs prompts.
        drawn_directions: objective -> its component of each row's direction, where the run has directions.
    """

    step: int
    prompt_index: Tensor
    group_ids: Tensor
    rescored: Callable[[FurtherRollout], RewardTable]
    of_all_rows: Callable[[Tensor], Tensor]
    trajectory: Trajectory | None = None
    keys: Tensor | None = None
    implied: Callable[[], tuple[RewardTable, ...]] | None = None
    prompt_weights: Callable[[], Mapping[str, Tensor]] | None = None
    drawn_directions: Callable[[], Mapping[str, Tensor]] | None = None

    @property
    def trained(self) -> tuple[int, ...]:
        """Numbers of the trained steps of the way; one position where only the picture counts."""
        return (0,) if self.trajectory is None else tuple(self.trajectory.trained)


Builder: TypeAlias = Callable[[StepContext], Any]  # each field of `AdvantageInputs` has its own type


def _lengths(context: StepContext) -> Tensor:
    """All alike: a picture has as many positions as there are trained steps."""
    return context.prompt_index.new_full(context.prompt_index.shape, len(context.trained))


def _step_key(context: StepContext) -> Tensor:
    """Id of the noise draw of each trained step: equal where rows share the noise of the steps so far."""
    import torch

    number = torch.arange(len(context.prompt_index))
    columns = [number if context.keys is None else context.keys[:, j + 1] for j in context.trained]
    return torch.stack(columns, dim=1)


def _mask(context: StepContext) -> Tensor:
    """Every trained step of every picture."""
    return context.prompt_index.new_ones((len(context.prompt_index), len(context.trained))).bool()


def _logprobs(context: StepContext) -> Tensor:
    """Log-density of each trained step under the policy that took it."""
    if context.trajectory is None:
        raise TypeError("only a method that learns from the steps of the way has their log-probabilities")
    return context.of_all_rows(context.trajectory.log_probs.cpu())


def _done_reward_seq(context: StepContext) -> tuple[RewardTable, ...]:
    """Rewards on the way; the pipeline shapes each table like the rewards and puts them side by side."""
    if context.implied is None:
        raise TypeError("only a method that learns from the steps of the way has pictures on it")
    return context.implied()


def _prompt_weights(context: StepContext) -> Mapping[str, Tensor]:
    """Every process weighs the prompts of all rows by itself: nothing travels."""
    if context.prompt_weights is None:
        raise TypeError("no adapter was loaded to weigh the prompts")
    return context.prompt_weights()


def _drawn_directions(context: StepContext) -> Mapping[str, Tensor]:
    """Every process draws the directions of all rows by itself: nothing travels."""
    if context.drawn_directions is None:
        raise TypeError("this run has no directions to draw from")
    return context.drawn_directions()


PROVIDERS: Mapping[str, Builder] = {
    "prompt_ids": lambda context: context.prompt_index,
    "step": lambda context: context.step,
    "lengths": _lengths,
    "greedy_rewards": lambda context: context.rescored(GREEDY),
    "reference_rewards": lambda context: context.rescored(REFERENCE),
    "prompt_weights": _prompt_weights,
    "drawn_directions": _drawn_directions,
}
"""For every method."""
ON_A_CHAIN: Mapping[str, Builder] = {
    **PROVIDERS,
    "mask": _mask,
    "step_key": _step_key,
    "logprobs": _logprobs,
    "done_reward_seq": _done_reward_seq,
}
"""For methods that learn from the steps of the way and have an advantage for each."""


def providers_for(config: DiffusionRun) -> Mapping[str, Builder]:
    """What the steps of this run can bring."""
    return ON_A_CHAIN if isinstance(config.algorithm, ChainConfig) else PROVIDERS


def builders_for(needs: Iterable[Need], providers: Mapping[str, Builder]) -> dict[str, Builder]:
    """The builder of each needed field; of alternatives, the first that can be had.

    Args:
        needs: of a pipeline (`SignalPipeline.needs`).
        providers: what a step can bring.

    Raises:
        AlignError: nobody brings a field; names it, the estimator, and what there is.
    """
    needs = tuple(needs)
    missing = unmet(needs, providers)
    if missing:
        message, way_out = explain(missing, providers)
        raise AlignError(f"`pipeline`: {message}", way_out)
    found = (next((name for name in need.fields if name in providers), None) for need in needs)
    return {name: providers[name] for name in found if name is not None}


def further_rollouts(pipeline: PipelineConfig) -> tuple[FurtherRollout, ...]:
    """What is drawn beside the samples because an estimator compares with it."""
    fields = {name for need in needs_of(pipeline) for name in need.fields}
    return tuple(wanted for name, wanted in FURTHER.items() if name in fields)


def scores_the_way(pipeline: PipelineConfig) -> bool:
    """Whether an estimator reads the rewards of the pictures that the states on the way imply."""
    return any("done_reward_seq" in need.fields for need in needs_of(pipeline))


def keeps_reference(config: DiffusionRun) -> bool:
    """Whether the method or an estimator reads the weights from before training."""
    return reads_reference(config.algorithm) or REFERENCE in further_rollouts(config.pipeline)
