"""TRL: the only file that imports it. Our signal inside its GRPOTrainer, and its trainers as oracles of our tests.

    from preference.trl import attach
    trainer = GRPOTrainer(model, reward_funcs=[...], args=..., train_dataset=...)
    attach(trainer, preset("gdpo").pipeline)          # align.presets, or any PipelineConfig
    trainer.train()

TRL turns the rewards of all processes' completions, one column per reward function, into advantages within one method
of 500 lines. `attach` lets that method run, keeps the table that it makes on the way, and puts the pipeline's
advantages in the place of TRL's: transforms, weights, combination and estimator are ours, everything else is TRL's.
Rewards are TRL's own functions; those of `align.rewards` have the same signature.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.adapter.rows import prompt_text
from align.config.pipeline import PipelineConfig
from align.errors import AlignError
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable, Signal

if TYPE_CHECKING:
    from align.adapter.use import PromptWeigher

OLDEST = (1, 16)
"""The first version whose trainers look as this file expects; what it relies on is looked for in later ones, too."""

RELIES_ON = (
    "_calculate_rewards",
    "_generate_and_score_completions",
    "num_generations",
    "reward_func_names",
    "reward_weights",
    "accelerator",
)
"""Names of a GRPOTrainer that `attach` uses."""


def check_version() -> None:
    """Refuse a TRL that is too old.

    Raises:
        AlignError: says which version is there and which is needed.
    """
    needed = ".".join(map(str, OLDEST))
    try:
        found = version("trl")
    except PackageNotFoundError as error:
        raise AlignError("TRL is not installed.", f"pip install 'trl>={needed}'") from error
    numbers = tuple(int(part) if part.isdigit() else 0 for part in found.split(".")[:2])
    if numbers < OLDEST:
        raise AlignError(f"TRL {found} is installed, {needed} or later is needed.", f"pip install 'trl>={needed}'")


def dpo_trainer() -> tuple[type[Any], type[Any]]:
    """TRL's DPOTrainer and its settings."""
    check_version()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from trl import DPOConfig, DPOTrainer

    return DPOTrainer, DPOConfig


def cpo_trainer() -> tuple[type[Any], type[Any]]:
    """TRL's CPOTrainer, whose `loss_type: simpo` is SimPO, and its settings; experimental there."""
    check_version()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo import CPOConfig, CPOTrainer

    return CPOTrainer, CPOConfig


def grpo_trainer() -> tuple[type[Any], type[Any]]:
    """TRL's GRPOTrainer and its settings."""
    check_version()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer, GRPOConfig


class GrpoSignal:
    """A pipeline inside a GRPOTrainer; made by `attach`.

    Attributes:
        pipeline: rewards to advantages; its running statistics move on in training only.
        last: the last signal, over all processes' completions; None before the first.

    Args:
        trainer: of `grpo_trainer`, or a subclass (Any: TRL's classes).
        pipeline: what its advantages are made by.
        weigher: weighs prompts, where the pipeline's weights are an adapter's.
    """

    def __init__(self, trainer: Any, pipeline: SignalPipeline, weigher: PromptWeigher | None = None) -> None:
        self.pipeline = pipeline
        self._weigher, self._prompts = weigher, list[str]()
        self.last: Signal | None = None
        self._trainer = trainer
        self._table: Tensor | None = None
        self._rewards, self._generate = trainer._calculate_rewards, trainer._generate_and_score_completions
        trainer._calculate_rewards, trainer._generate_and_score_completions = self._remember, self._replace

    def state_dict(self) -> Mapping[str, Any]:
        """What the next step's signal depends on (running statistics, schedules). TRL's checkpoints do not hold it."""
        return self.pipeline.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.pipeline.load_state_dict(state)

    def detach(self) -> None:
        """Give the trainer its own advantages back."""
        self._trainer._calculate_rewards, self._trainer._generate_and_score_completions = self._rewards, self._generate

    def _remember(self, *args: Any, **kwargs: Any) -> Tensor:
        table = self._rewards(*args, **kwargs)
        self._table = table.detach().float().cpu()
        if self._weigher is not None:
            given = kwargs["prompts"] if "prompts" in kwargs else args[1]  # inputs, prompts, completions, ...
            self._prompts = [prompt_text(prompt) or "" for prompt in given]
        return table

    def _replace(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._table = None
        output = self._generate(*args, **kwargs)
        own = output.get("advantages")
        if self._table is None or not isinstance(own, Tensor):
            raise AlignError(
                "this version of TRL makes advantages in another way: no table of rewards or no `advantages` was seen.",
                f"Use TRL {OLDEST[0]}.{OLDEST[1]}, or train without `attach`.",
            )
        training = bool(self._trainer.model.training)
        self.last = self._signal(self._table, training)
        start = self._trainer.accelerator.process_index * len(own)
        mine = self.last.advantages[start : start + len(own)]
        if len(mine) != len(own):
            raise AlignError(
                f"TRL has {len(own)} completions on this process, and rewards of {len(self._table)} in all.",
                f"Use TRL {OLDEST[0]}.{OLDEST[1]}, or train without `attach`.",
            )
        self._log(training)
        return {**output, "advantages": mine.to(own.device, own.dtype)}

    def _signal(self, table: Tensor, training: bool) -> Signal:
        trainer = self._trainer
        size = trainer.num_generations if training else getattr(trainer, "num_generations_eval", 1)
        rewards = RewardTable(
            names=tuple(trainer.reward_func_names), values=table, weights=trainer.reward_weights.float().cpu()
        )
        inputs: dict[str, Any] = {} if self._weigher is None else {"prompt_weights": self._weighed(self._weigher)}
        return self.pipeline(rewards, torch.arange(len(table)) // size, update=training, **inputs)

    def _weighed(self, weigher: PromptWeigher) -> Mapping[str, Tensor]:
        """Reward -> weight of the prompt of each completion of all processes; a collective."""
        if getattr(self._trainer.accelerator, "num_processes", 1) == 1:
            return weigher.by_name(self._prompts)
        from accelerate.utils import gather_object

        return weigher.by_name(gather_object(self._prompts))

    def _log(self, training: bool) -> None:
        """The pipeline's numbers beside TRL's, and its advantages in TRL's table of completions."""
        assert self.last is not None  # it has just been made
        metrics: Any = getattr(self._trainer, "_metrics", None)
        if metrics is not None:
            for name, value in self.last.stats.items():
                metrics["train" if training else "eval"][f"signal/{name}"].append(float(value))
        shown: Any = getattr(self._trainer, "_logs", {}).get("advantages")
        if shown is not None and len(shown) >= len(self.last.advantages):
            for _ in range(len(self.last.advantages)):
                shown.pop()
            shown.extend(self.last.advantages.tolist())


def attach(
    trainer: Any, pipeline: SignalPipeline | PipelineConfig, *, weigher: PromptWeigher | None = None
) -> GrpoSignal:
    """Let a pipeline make the advantages of a GRPOTrainer, from now on.

    Every process has to call it. TRL's `scale_rewards`, `multi_objective_aggregation` have no effect any more; its
    reward weights are the table's.

    Args:
        trainer: a GRPOTrainer, before `train` (Any: TRL's classes).
        pipeline: transforms, weights, combination, estimator.
        weigher: for `weights: {kind: adapter}`: `PromptWeigher.load(path)`; its objectives are names of TRL's rewards.

    Raises:
        AlignError: TRL is too old or has changed, or the pipeline needs more than rewards.
    """
    check_version()
    missing = [name for name in RELIES_ON if not hasattr(trainer, name)]
    if missing:
        raise AlignError(
            f"{type(trainer).__name__} has no {', '.join(missing)}: it is no GRPOTrainer, or one of another version.",
            f"Give a GRPOTrainer of TRL {OLDEST[0]}.{OLDEST[1]}.",
        )
    made = SignalPipeline(pipeline) if isinstance(pipeline, PipelineConfig) else pipeline
    try:
        made.check_collected(() if weigher is None else ("prompt_weights",))
    except ValueError as error:
        raise AlignError(
            f"inside TRL a pipeline sees rewards and groups, nothing else: {error}", "Choose another estimator."
        ) from error
    return GrpoSignal(trainer, made, weigher)
