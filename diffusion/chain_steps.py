"""Which steps of a rollout get noise and which of them are trained: a pure function of settings, seed and step.

The same for all rows of a training step, on all processes. Counting is torch-free, so that a config is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from diffusion.config import AllSteps, RandomSteps, RandomWindow, SlidingWindow

_ROUNDING = 1e-9
"""0.29 * 100 is 28.999...: the product of two exact decimals must not lose a step."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The steps of one rollout.

    Attributes:
        noisy: whether step j draws noise; where not it is the deterministic step.
        trained: steps whose log-probability the loss reads, ascending; all of them are noisy.
    """

    noisy: tuple[bool, ...]
    trained: tuple[int, ...]


def fraction_of(steps: int, share: float) -> int:
    """int(n * share), safe against the rounding of decimals."""
    return int(steps * share + _ROUNDING)


@singledispatch
def trained_count(settings: Any, steps: int) -> int:
    """How many of n steps are trained (`Any`: the members of `Steps`).

    Raises:
        ValueError: none, or a window that does not fit.
    """
    raise TypeError(f"no choice of steps for {type(settings).__name__}")


@singledispatch
def latest_trained(settings: Any, steps: int) -> int:
    """The last of n steps that is ever trained (`Any`: the members of `Steps`).

    Raises:
        ValueError: none is, or a window that does not fit.
    """
    return window_places(settings, steps)[-1] + settings.size - 1


@singledispatch
def step_plan(settings: Any, steps: int, seed: int, step: int) -> StepPlan:
    """The plan of a training step.

    Args:
        settings: a member of `Steps`.
        steps: network steps n of a rollout.
        seed: of the run.
        step: training step, from 1.

    Raises:
        ValueError: no step would be trained, or a window that does not fit.
    """
    raise TypeError(f"no choice of steps for {type(settings).__name__}")


@trained_count.register
def _(settings: AllSteps, steps: int) -> int:
    return _some(fraction_of(steps, settings.share), f"a share of {settings.share:g} of {steps} steps")


@latest_trained.register
def _(settings: AllSteps, steps: int) -> int:
    return trained_count(settings, steps) - 1


@step_plan.register
def _(settings: AllSteps, steps: int, seed: int, step: int) -> StepPlan:
    return StepPlan(noisy=(True,) * steps, trained=tuple(range(trained_count(settings, steps))))


@trained_count.register
def _(settings: RandomSteps, steps: int) -> int:
    what = f"a share of {settings.share:g} of {steps - 1} steps (the last one is not noisy)"
    return _some(fraction_of(steps - 1, settings.share), what)


@latest_trained.register
def _(settings: RandomSteps, steps: int) -> int:
    return steps - 2 if trained_count(settings, steps) else -1


@step_plan.register
def _(settings: RandomSteps, steps: int, seed: int, step: int) -> StepPlan:
    order = _permutation(steps - 1, seed, step)
    trained = sorted(order[: trained_count(settings, steps)])
    return StepPlan(noisy=(True,) * (steps - 1) + (False,), trained=tuple(trained))


@trained_count.register
def _(settings: RandomWindow | SlidingWindow, steps: int) -> int:
    window_places(settings, steps)
    return settings.size


@step_plan.register
def _(settings: RandomWindow, steps: int, seed: int, step: int) -> StepPlan:
    places = window_places(settings, steps)
    return _window(places[_permutation(len(places), seed, step)[0]], settings.size, steps)


@step_plan.register
def _(settings: SlidingWindow, steps: int, seed: int, step: int) -> StepPlan:
    places = window_places(settings, steps)[:: settings.stride]
    return _window(places[(step - 1) // settings.every % len(places)], settings.size, steps)


def window_places(settings: RandomWindow | SlidingWindow, steps: int) -> range:
    """First steps at which a window can lie.

    Raises:
        ValueError: the window is longer than its range.
    """
    first, end = fraction_of(steps, settings.earliest), fraction_of(steps, settings.latest)
    if end - first < settings.size:
        raise ValueError(
            f"a window of {settings.size} steps does not fit between steps {first} and {end} of {steps} "
            f"(earliest={settings.earliest:g}, latest={settings.latest:g})"
        )
    return range(first, end - settings.size + 1)


def _window(first: int, size: int, steps: int) -> StepPlan:
    trained = tuple(range(first, first + size))
    return StepPlan(noisy=tuple(j in trained for j in range(steps)), trained=trained)


def _permutation(size: int, seed: int, step: int) -> list[int]:
    """Keyed by seed and training step alone."""
    import torch

    from align.engine.random import generator

    return torch.randperm(size, generator=generator(seed, "trained_steps", step)).tolist()


def _some(count: int, what: str) -> int:
    if count < 1:
        raise ValueError(f"{what} is no step at all: raise the share, or rollout.num_inference_steps")
    return count
