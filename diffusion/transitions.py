"""From a sampler's settings and a model's path to one step: the only place that knows which rule belongs to which.

Rollout and update go through the same call. Hand in `noise` to take the step, `prev_sample` to evaluate a stored one.

    | path      | deterministic | with noise                   |
    |-----------|---------------|------------------------------|
    | flow      | Euler         | flow_sde, dance_sde, cps     |
    | diffusion | DDIM, eta 0   | ddim                         |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from align.errors import AlignError
from diffusion.config import CpsSampler, DanceSdeSampler, DdimSampler, FlowSdeSampler, OdeSampler
from diffusion.paths import DdpmPath, FlowPath, Path, Time
from diffusion.samplers import cps_step, dance_sde_step, ddim_step, flow_sde_step, ode_step
from diffusion.step import Step


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A step of the schedule, the same for all rows or one for each.

    Attributes:
        t: time before the step.
        t_next: time after it, less noisy.
        t_second: second time of the schedule, which Flow-SDE needs where t is 1.
        noisy: 1 where the step draws noise, 0 where it is deterministic.
    """

    t: Time
    t_next: Time
    t_second: float
    noisy: Time = 1


Draw = dict[str, Any]
"""`noise` or `prev_sample`, and `reduce`."""
Rule = Callable[[Any, Any, Interval, Tensor, Tensor, Draw], Step]
"""(sampler settings, path, interval, latents, output, draw) -> step (Any: each rule has its own)."""


def _ode(sampler: OdeSampler, path: FlowPath, at: Interval, x: Tensor, output: Tensor, draw: Draw) -> Step:
    return ode_step(x, output, at.t, at.t_next)


def _flow_sde(sampler: FlowSdeSampler, path: FlowPath, at: Interval, x: Tensor, output: Tensor, draw: Draw) -> Step:
    level = sampler.noise_level * at.noisy
    return flow_sde_step(x, output, at.t, at.t_next, noise_level=level, t_second=at.t_second, **draw)


def _dance_sde(sampler: DanceSdeSampler, path: FlowPath, at: Interval, x: Tensor, output: Tensor, draw: Draw) -> Step:
    return dance_sde_step(x, output, at.t, at.t_next, noise_level=sampler.noise_level * at.noisy, **draw)


def _cps(sampler: CpsSampler, path: FlowPath, at: Interval, x: Tensor, output: Tensor, draw: Draw) -> Step:
    return cps_step(x, output, at.t, at.t_next, noise_level=sampler.noise_level * at.noisy, **draw)


def _ddim(eta: Time, path: DdpmPath, at: Interval, x: Tensor, output: Tensor, draw: Draw) -> Step:
    abar, abar_next = path.abar(at.t), path.abar(at.t_next)
    return ddim_step(x, output, abar, abar_next, prediction_type=path.prediction_type, eta=eta, **draw)


RULES: dict[tuple[type, type], Rule] = {
    (OdeSampler, FlowPath): _ode,
    (FlowSdeSampler, FlowPath): _flow_sde,
    (DanceSdeSampler, FlowPath): _dance_sde,
    (CpsSampler, FlowPath): _cps,
    (OdeSampler, DdpmPath): lambda sampler, *rest: _ddim(0.0, *rest),
    (DdimSampler, DdpmPath): lambda sampler, path, at, *rest: _ddim(sampler.eta * at.noisy, path, at, *rest),
}


def check_fit(sampler: object, path: Path) -> None:
    """Refuse a step rule that the model's path does not have.

    Raises:
        AlignError: names the samplers that fit.
    """
    if (type(sampler), type(path)) in RULES:
        return
    fitting = sorted(kind.kind for kind, other in RULES if other is type(path))
    if not any(kind is type(sampler) for kind, _ in RULES):
        raise TypeError(f"no step rule for {type(sampler).__name__}")
    what = "a flow model" if isinstance(path, FlowPath) else "a noise-predicting diffusion model"
    raise AlignError(
        f"the sampler `{sampler.kind}` does not fit {what}.",  # type: ignore[attr-defined]  # settings have a kind
        f"Set rollout.sampler.kind to one of {', '.join(fitting)}.",
    )


def transition(
    sampler: object,
    path: Path,
    at: Interval,
    x: Float[Tensor, "n ..."],
    output: Float[Tensor, "n ..."],
    *,
    noise: Float[Tensor, "n ..."] | None = None,
    prev_sample: Float[Tensor, "n ..."] | None = None,
    reduce: str = "mean",
) -> Step:
    """One step of a sampler.

    Args:
        sampler: settings of the step rule.
        path: of the model.
        at: times of the step.
        x: latents at its beginning.
        output: the network's (guided) output there.
        noise: standard normal, to take the step.
        prev_sample: latents at its end, to evaluate them.
        reduce: "mean" or "sum" of the log-density over the latent's elements.

    Raises:
        AlignError: the rule does not fit the path.
    """
    check_fit(sampler, path)
    draw = {"noise": noise, "prev_sample": prev_sample, "reduce": reduce}
    return RULES[type(sampler), type(path)](sampler, path, at, x, output, draw)
