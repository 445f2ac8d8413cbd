"""Contradictions that a run of any branch can have. Each function yields problems; a branch chains what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from align.config import shipped
from align.config.errors import Problem
from align.config.pipeline import PipelineConfig
from align.config.shared import LoraConfig, OptimizerConfig, OutputConfig, RewardConfig, TrainingConfig
from align.errors import did_you_mean
from align.rewards.find import BUILT_IN


def reward_name(reward: RewardConfig) -> str:
    """Name of a reward in metrics and tables: its own, or that of its function."""
    return reward.name or reward.function.rpartition(":")[2]


def check_recipe(recipe: str | None) -> Iterator[Problem]:
    """A shipped config that does not exist."""
    if recipe is not None and shipped.find(recipe) is None:
        way_out = f"Leave it out, or name one of {', '.join(shipped.names())}."
        yield Problem(keys=("recipe",), message=f"there is no shipped config `{recipe}`.", way_out=way_out)


def check_rewards(rewards: Sequence[RewardConfig], evaluated: Sequence[RewardConfig] = ()) -> Iterator[Problem]:
    """No reward, none with weight, two of one name, a file that is not there, an unknown built-in name."""
    if not rewards:
        yield Problem(
            keys=("rewards",),
            message="there is no reward, so there is nothing to learn from.",
            way_out="Add one, for example `rewards: [{function: brightness}]`, or `my_rewards.py:my_function`.",
        )
    elif not any(reward.weight for reward in rewards):
        yield Problem(
            keys=tuple(f"rewards.{i}.weight" for i in range(len(rewards))),
            message="every reward has weight 0, so nothing is trained on (weight 0 makes a reward a metric).",
            way_out="Give at least one reward a weight other than 0.",
        )
    named = [(f"rewards.{i}", reward) for i, reward in enumerate(rewards)]
    named += [(f"evaluation.rewards.{i}", reward) for i, reward in enumerate(evaluated)]
    counts = Counter(reward_name(reward) for _, reward in named)
    for name in (name for name, count in counts.items() if count > 1):
        keys = tuple(key for key, reward in named if reward_name(reward) == name)
        message = f"{counts[name]} rewards are called `{name}` ({', '.join(keys)}); metrics could not tell them apart."
        yield Problem(keys=keys, message=message, way_out="Give each its own `name:`; keep one if they are the same.")
    for key, reward in named:
        file, _, _ = reward.function.rpartition(":")
        if file.endswith(".py") and not Path(file).is_file():
            message = f"`{key}.function` expects a file {file}, found none."
            yield Problem(
                keys=(f"{key}.function",), message=message, way_out="Relative paths start at the config's folder."
            )
        if ":" not in reward.function and reward.function not in BUILT_IN:
            message = f"no built-in reward `{reward.function}`.{did_you_mean(reward.function, BUILT_IN)}"
            way_out = f"Built in: {', '.join(BUILT_IN)}. For your own write `my_rewards.py:function`."
            yield Problem(keys=(f"{key}.function",), message=message, way_out=way_out)


def check_groups(pipeline: PipelineConfig, group_size: int) -> Iterator[Problem]:
    """An estimator that compares the samples of a prompt needs two of them."""
    singleton = getattr(pipeline.base, "singleton", None)  # none: compares with no other sample
    if group_size < 2 and singleton in ("zero", "error"):
        yield Problem(
            keys=("rollout.group_size", "pipeline.base.singleton"),
            message=(
                f"`rollout.group_size` is {group_size}, but `{pipeline.base.kind}` compares the samples of a prompt "
                "with each other; every advantage would be 0."
            ),
            way_out="Set `rollout.group_size` to 2 or more; `pipeline.base.singleton: raw` trains on the bare rewards.",
        )


def check_updates(samples: int, training: TrainingConfig, processes: int) -> Iterator[Problem]:
    """The samples of a step must divide over its optimiser updates, and each process needs one in each update."""
    updates = training.updates_per_rollout
    keys = ("training.updates_per_rollout", "rollout.prompts_per_step", "rollout.group_size")
    if samples % updates:
        possible = nearest_divisors(samples, updates)
        choices = " or ".join(f"`training.updates_per_rollout={value}`" for value in possible)
        more = (
            f", or make the samples of a step a multiple of {updates} (nearest: {_nearest_multiples(samples, updates)})"
        )
        yield Problem(
            keys=keys,
            message=f"{samples} samples a step cannot be cut into {updates} equal optimiser updates.",
            way_out=f"Set {choices}{more}.",
        )
    elif samples // updates < processes:
        each = samples // updates
        yield Problem(
            keys=keys,
            message=(
                f"{processes} processes share the {each} samples of an optimiser update ({samples} samples / {updates} "
                "updates): some would have none."
            ),
            way_out=(
                f"Use at most {each} processes, or at least {processes * updates} samples a step "
                "(`rollout.prompts_per_step` times `rollout.group_size`), or fewer `training.updates_per_rollout`."
            ),
        )


def check_optimizer(optimizer: OptimizerConfig, training: TrainingConfig) -> Iterator[Problem]:
    """A warm-up that never ends."""
    if training.epochs is not None:  # asked again once the rows are counted
        return
    updates = training.steps * training.updates_per_rollout
    if optimizer.warmup_updates >= updates and optimizer.warmup_updates:
        yield Problem(
            keys=("optimizer.warmup_updates", "training.steps", "training.updates_per_rollout"),
            message=(
                f"the warm-up takes {optimizer.warmup_updates} updates, but the run has {updates}: "
                "the learning rate would never be reached."
            ),
            way_out=f"Set `optimizer.warmup_updates` to at most {updates - 1}, or train for more steps.",
        )


def check_precision(training: TrainingConfig, dtype: str, lora: LoraConfig | None) -> Iterator[Problem]:
    """Number formats that do not go together."""
    keys = ("training.mixed_precision", "model.dtype")
    half = {"float16": "fp16", "bfloat16": "bf16"}.get(dtype)
    if half is None or training.mixed_precision == half:
        return
    if training.mixed_precision != "no":
        message = f"the frozen weights are {dtype} while the network computes in {training.mixed_precision}."
        way_out = f"Set `training.mixed_precision: {half}`, or another `model.dtype`; float32 goes with all."
        yield Problem(keys=keys, message=message, way_out=way_out)
    elif lora is not None:
        message = f"the frozen weights are {dtype}, the adapters float32, and `mixed_precision: no` converts neither."
        yield Problem(
            keys=keys, message=message, way_out=f"Set `training.mixed_precision: {half}`, or `model.dtype: float32`."
        )


def check_device(training: TrainingConfig, device: str) -> Iterator[Problem]:
    """Asked by a run once it knows its device and before it loads a model.

    Args:
        training: its settings.
        device: `"cpu"`, `"cuda"`, ...
    """
    if device == "cpu" and training.mixed_precision == "fp16":
        yield Problem(
            keys=("training.mixed_precision",),
            message="fp16 needs an accelerator; this process runs on the CPU.",
            way_out="Set `training.mixed_precision=no` (or `bf16`), or run on a GPU.",
        )


def check_output(output: OutputConfig) -> Iterator[Problem]:
    """Trackers named twice, a run name that is a path."""
    if len(set(output.trackers)) < len(output.trackers):
        message = f"`output.trackers` names one twice: {', '.join(output.trackers)}."
        yield Problem(keys=("output.trackers",), message=message, way_out="Name each once.")
    if output.name is not None and (output.name in ("", ".", "..") or Path(output.name).name != output.name):
        message = f"`output.name` expects the name of a folder, found {output.name!r}."
        yield Problem(keys=("output.name",), message=message, way_out="Put the path into `output.directory`.")


def nearest_divisors(number: int, wanted: int) -> list[int]:
    """The divisors of `number` next to `wanted`, below and above, the nearer first."""
    divisors = [value for value in range(1, number + 1) if number % value == 0]
    near = [
        max((d for d in divisors if d <= wanted), default=None),
        min((d for d in divisors if d >= wanted), default=None),
    ]
    return sorted({value for value in near if value is not None}, key=lambda value: abs(value - wanted))


def _nearest_multiples(number: int, of: int) -> str:
    below, above = number // of * of, -(-number // of) * of
    return " or ".join(str(value) for value in sorted({below, above} - {0}))
