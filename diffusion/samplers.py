"""One function for each step rule of a sampler, and the log-probability of the step it took.

    x_next = mean + std * noise,    log_prob = log N(x_next; mean, std^2 I)

Every rule takes the latents and the network's output, goes from time `t` to `t_next` (t = 1 is noise; t_next < t)
and returns a `Step`. Hand in `noise` to sample a step, `prev_sample` to evaluate a stored one; a deterministic
step needs neither. All arithmetic is float32 at least, whatever the network ran in: log-ratios live at 1e-5.

**`std` is the standard deviation of the transition**, that is with sqrt(-dt) already in it. **`log_prob` is the
mean over the latent's elements** unless `reduce="sum"`: a clip range of 1e-4 means a mean (the D-th root of the
true ratio for D elements). A deterministic step has no density; its log_prob is 0, so that its ratio is 1, never NaN.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.paths import Time, clean_from_velocity, ddpm_clean_and_noise, noise_from_velocity, per_row
from diffusion.step import Step, gaussian_step, reduction, rows, taken_step, wide


def _prepared(x: Tensor, velocity: Tensor, t: Time, t_next: Time) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents and velocity in float32 at least; one float64 time a row."""
    x, velocity, t, t_next = wide(x), wide(velocity), rows(t, x), rows(t_next, x)
    if not bool(((t_next < t) & (t <= 1) & (t_next >= 0)).all()):
        raise ValueError(
            "expected 0 <= t_next < t <= 1 (time 1 is noise, 0 is clean; not multiplied by 1000), "
            f"found t={t.tolist()}, t_next={t_next.tolist()}"
        )
    return x, velocity, t, t_next


def _reverse_sde_mean(x: Tensor, v: Tensor, t: Tensor, dt: Tensor, diffusion: Tensor) -> Float[Tensor, "n ..."]:
    """Euler-Maruyama mean of dx = (v - g^2/2 * score) dt + g dw, whose marginals are those of the ODE for every g.

        mean = x + (v + g^2 / (2 t) * eps) dt,    score = -eps / t

    g = 0 is the ODE's Euler step, exactly.
    """
    push = per_row(diffusion**2 / (2 * t), x) * noise_from_velocity(x, v, t)
    return x + (v + push) * per_row(dt, x)


def ode_step(x: Float[Tensor, "n ..."], velocity: Float[Tensor, "n ..."], t: Time, t_next: Time) -> Step:
    """Euler step of the probability-flow ODE: x + (t_next - t) v. Deterministic.

    Args:
        x: latents at t.
        velocity: the network's (guided) velocity there.
        t: time of each row, in (0, 1].
        t_next: time after the step, in [0, t).
    """
    x, v, t, t_next = _prepared(x, velocity, t, t_next)
    return gaussian_step(x + v * per_row(t_next - t, x), torch.zeros_like(t), None, None, "mean")


def flow_sde_step(
    x: Float[Tensor, "n ..."],
    velocity: Float[Tensor, "n ..."],
    t: Time,
    t_next: Time,
    *,
    noise_level: Time = 0.7,
    t_second: float | None = None,
    noise: Float[Tensor, "n ..."] | None = None,
    prev_sample: Float[Tensor, "n ..."] | None = None,
    reduce: str = "mean",
) -> Step:
    """Flow-GRPO's SDE step: marginals of the ODE, with noise.

        g = a sqrt(t / (1 - t)),    mean = x (1 + g^2/(2 t) dt) + v (1 + g^2 (1 - t)/(2 t)) dt,    std = g sqrt(-dt)

    At t = 1 exactly, 1 - t under the root takes the schedule's second time instead of t.

    Args:
        x: latents at t.
        velocity: the network's (guided) velocity there.
        t: time of each row, in (0, 1].
        t_next: time after the step, in [0, t).
        noise_level: a, one number or one for each row; 0 is the ODE step.
        t_second: second time of the schedule; needed where t is 1 and the noise level is not 0.
        noise: standard normal, to sample the step.
        prev_sample: stored latents, to evaluate their log-probability.
        reduce: "mean" or "sum" of the log-density over the latent's elements.

    Raises:
        ValueError: a time order that is not descending; t = 1 without `t_second`; a random step without noise or
            sample.

    Note:
        The official guard is by equality with 1, so a schedule that starts at 0.9999 gets g^2 of thousands. So
        does this one: start schedules at exactly 1, as `flow_match_sigmas` does.

    References:
        Liu et al., Flow-GRPO, arXiv:2505.05470, section 4.2 (from ODE to SDE), and its released code.
    """
    x, v, t, t_next = _prepared(x, velocity, t, t_next)
    level = rows(noise_level, x)
    if t_second is None and bool(((t == 1) & (level > 0)).any()):
        raise ValueError("a noisy step from t = 1 divides by 1 - t: hand in `t_second`, the schedule's second time")
    guarded = torch.where(t == 1, 0.0 if t_second is None else t_second, t)
    diffusion = level * (t / (1 - guarded)).sqrt()
    mean = _reverse_sde_mean(x, v, t, t_next - t, diffusion)
    return gaussian_step(mean, diffusion * (t - t_next).sqrt(), noise, prev_sample, reduce)


def dance_sde_step(
    x: Float[Tensor, "n ..."],
    velocity: Float[Tensor, "n ..."],
    t: Time,
    t_next: Time,
    *,
    noise_level: Time = 0.3,
    noise: Float[Tensor, "n ..."] | None = None,
    prev_sample: Float[Tensor, "n ..."] | None = None,
    reduce: str = "mean",
) -> Step:
    """DanceGRPO's SDE step: the same drift with a constant diffusion eta.

        mean = x + [v + eta^2/2 (x - (1-t) x0) / t^2] dt,    std = eta sqrt(-dt)

    (x - (1-t) x0) / t^2 is eps / t, the form computed here: it does not cancel at small t.

    Args:
        x: latents at t.
        velocity: the network's (guided) velocity there.
        t: time of each row, in (0, 1].
        t_next: time after the step, in [0, t).
        noise_level: eta, one number or one for each row; 0 is the ODE step.
        noise: standard normal, to sample the step.
        prev_sample: stored latents, to evaluate their log-probability.
        reduce: "mean" or "sum" of the log-density over the latent's elements.

    References:
        Xue et al., DanceGRPO, arXiv:2505.07818, section 3, and its released code.
    """
    x, v, t, t_next = _prepared(x, velocity, t, t_next)
    diffusion = rows(noise_level, x)
    mean = _reverse_sde_mean(x, v, t, t_next - t, diffusion)
    return gaussian_step(mean, diffusion * (t - t_next).sqrt(), noise, prev_sample, reduce)


def cps_step(
    x: Float[Tensor, "n ..."],
    velocity: Float[Tensor, "n ..."],
    t: Time,
    t_next: Time,
    *,
    noise_level: Time = 0.8,
    noise: Float[Tensor, "n ..."] | None = None,
    prev_sample: Float[Tensor, "n ..."] | None = None,
    reduce: str = "mean",
) -> Step:
    """Coefficients-preserving step: re-mixes the two predictions so that the noise level at t_next is exactly right.

        std = t_next sin(a pi/2),    mean = (1 - t_next) x0 + t_next cos(a pi/2) eps
        log_prob = -mean((x_next - mean)^2)        (constants and 1 / (2 std^2) are left out on purpose)

    Args:
        x: latents at t.
        velocity: the network's (guided) velocity there.
        t: time of each row, in (0, 1].
        t_next: time after the step, in [0, t); at 0 there is no noise.
        noise_level: a in [0, 1], one number or one for each row; 0 is the ODE step, 1 renoises completely.
        noise: standard normal, to sample the step.
        prev_sample: stored latents, to evaluate their log-probability.
        reduce: "mean" or "sum" of the squared difference over the latent's elements.

    References:
        Wang and Yu, Coefficients-Preserving Sampling for Reinforcement Learning with Flow Matching, arXiv:2509.05952.
    """
    x, v, t, t_next = _prepared(x, velocity, t, t_next)
    angle = rows(noise_level, x) * (math.pi / 2)
    std = t_next * angle.sin()
    clean, noise_left = clean_from_velocity(x, v, t), noise_from_velocity(x, v, t)
    mean = per_row(1 - t_next, x) * clean + per_row(t_next * angle.cos(), x) * noise_left
    taken = taken_step(mean, std, noise, prev_sample)
    std = std.to(mean)
    log_prob = -reduction(reduce)((taken.detach() - mean) ** 2)
    return Step(prev_sample=taken, mean=mean, std=std, log_prob=log_prob)


def ddim_step(
    x: Float[Tensor, "n ..."],
    output: Float[Tensor, "n ..."],
    abar: Time,
    abar_prev: Time,
    *,
    prediction_type: str,
    eta: Time = 1.0,
    noise: Float[Tensor, "n ..."] | None = None,
    prev_sample: Float[Tensor, "n ..."] | None = None,
    reduce: str = "mean",
) -> Step:
    """DDIM step on the diffusion path.

        std = eta sqrt((1 - abar_prev)/(1 - abar) (1 - abar/abar_prev)),  mean = sqrt(abar_prev) x0 + sqrt(1 -
        abar_prev - std^2) eps

    Args:
        x: latents.
        output: the network's (guided) output there.
        abar: cumulative product at x's time, in (0, 1); also 0 where not the noise is predicted.
        abar_prev: cumulative product at the less noisy time. DDPO's last step goes to discrete time 0, not to a
            cumulative product of 1, so it still has noise.
        prediction_type: meaning of `output`, see `ddpm_clean_and_noise`.
        eta: 0 is deterministic, 1 has the variance of ancestral sampling.
        noise: standard normal, to sample the step.
        prev_sample: stored latents, to evaluate their log-probability.
        reduce: "mean" or "sum" of the log-density over the latent's elements.

    References:
        Song et al., DDIM, arXiv:2010.02502, equations 12 and 16. Black et al., DDPO, arXiv:2305.13301, section 4.3.
    """
    x, output, abar, abar_prev = wide(x), wide(output), rows(abar, x), rows(abar_prev, x)
    known = abar >= 0 if prediction_type != "epsilon" else abar > 0  # noise predicted in pure noise says nothing
    if not bool((known & (abar < abar_prev) & (abar_prev <= 1)).all()):
        raise ValueError(
            f"expected 0 <= abar < abar_prev <= 1, and abar > 0 where noise is predicted; found {abar.tolist()} and "
            f"{abar_prev.tolist()}"
        )
    variance = rows(eta, x) ** 2 * (1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev)
    ends = ddpm_clean_and_noise(x, output, abar, prediction_type)
    direction = (1 - abar_prev - variance).clamp_min(0).sqrt()  # eta = 1 leaves a rounding error below 0 at the ends
    mean = per_row(abar_prev.sqrt(), x) * ends.clean + per_row(direction, x) * ends.noise
    return gaussian_step(mean, variance.sqrt(), noise, prev_sample, reduce)
