"""Advantage Weighted Matching takes minus a weighted matching error for the log-probability of a whole picture:

    log p(x_0 | c)  ~  -w(t, L),    L = mean over elements of (m(x_t, t, c) - target)^2

On the flow path m is a velocity, target = eps - x_0 and x_t = (1 - t) x_0 + t eps; on the diffusion path m is what the
checkpoint predicts, noise for most.

References:
    Xue et al., Advantage Weighted Matching, arXiv:2509.25050, section 4; weightings, KL terms and defaults as in
    its released code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives import clipped_surrogate
from diffusion.losses.choose import choose

_FLOOR = 1e-10
"""Added to L under a root, whose slope at 0 is infinite."""


def matching_error(output: Float[Tensor, "m ..."], target: Float[Tensor, "m ..."]) -> Float[Tensor, "m"]:
    """Matching error L = mean over elements of (m - target)^2, one float64 number a row.

    float64 because log-ratios are differences of such means at the scale of 1e-5.

    Args:
        output: what the network says at x_t, any float dtype.
        target: what it should say (`diffusion.paths.Path.target`), a velocity eps - x_0 for flow models; make it of
            float64 latents and noise, or its rounding is in L.
    """
    return ((output.double() - target.double()) ** 2).flatten(1).mean(1)


# --- from matching error to log-probability: every weighting maps (L, t, power) -> nats, and 0 to 0 ------------------


def _uniform(error: Tensor, t: Tensor, power: float) -> Tensor:
    return -error


def _t(error: Tensor, t: Tensor, power: float) -> Tensor:
    return -t * error


def _t_squared(error: Tensor, t: Tensor, power: float) -> Tensor:
    return -(t**2) * error


def _ghuber(error: Tensor, t: Tensor, power: float) -> Tensor:
    return -t * ((error + _FLOOR) ** power - _FLOOR**power) / power


def _huber(error: Tensor, t: Tensor, power: float) -> Tensor:
    """-t (sqrt(L + 1e-10) - 1e-5), which is half of ghuber at power 1/2."""
    return _ghuber(error, t, 0.5) / 2


WEIGHTINGS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "uniform": _uniform,
    "t": _t,
    "t_squared": _t_squared,
    "huber": _huber,
    "ghuber": _ghuber,
}


def awm_log_prob(
    error: Float[Tensor, "*shape"],
    t: Float[Tensor, "*shape"],
    weighting: str = "ghuber",
    ghuber_power: float = 0.25,
) -> Float[Tensor, "*shape"]:
    """Surrogate log-probability of the clean latents at one time and noise, in the dtype of `error`.

        uniform: -L    t: -t L    t_squared: -t^2 L
        huber: -t (sqrt(L + d) - sqrt(d))    ghuber: -t ((L + d)^p - d^p) / p        with d = 1e-10

    ghuber's slope is -t L^(p-1): pairs with a small error weigh more than under plain L, nearly clean times weigh less.

    Args:
        error: matching errors of `matching_error`.
        t: their times.
        weighting: a key of `WEIGHTINGS`. Paper: "uniform"; released: "ghuber".
        ghuber_power: p of "ghuber"; the other weightings have no power.

    Raises:
        ValueError: unknown weighting.
    """
    return choose(WEIGHTINGS, weighting, "weighting")(error, t.to(error), ghuber_power)


# --- the policy term --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyTerm:
    """The policy term of a micro-batch.

    Attributes:
        loss: one number a sample (mean over its times), with gradient; average it over samples.
        log_ratio: log-probability now minus then, detached: one row for each time ("exp_first") or one row in all
            ("sum_first").
    """

    loss: Float[Tensor, "b"]
    log_ratio: Float[Tensor, "r b"]


def _mean_over_times(log_probs: Tensor) -> Tensor:
    return log_probs.mean(0, keepdim=True)


RATIOS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp_first": lambda log_probs: log_probs,
    "sum_first": _mean_over_times,
}


def awm_policy_term(
    log_probs: Float[Tensor, "t b"],
    old_log_probs: Float[Tensor, "t b"],
    advantages: Float[Tensor, "b"],
    clip_range: float = 1.0,
    ratio: str = "exp_first",
) -> PolicyTerm:
    """Clipped surrogate of the AWM likelihood ratio.

        exp_first: mean over t of max(-A rho_t, -A clip(rho_t)),  rho_t = exp(logp_t - old logp_t)
        sum_first: max(-A rho, -A clip(rho)),                     rho = exp(mean_t logp_t - mean_t old logp_t)

    Both have the gradient -A mean_t grad logp_t where old and new policy agree.

    Args:
        log_probs: of `awm_log_prob`, time-major, with gradient.
        old_log_probs: the same under the policy that drew the samples, at the *same* times and noise; treated as
            constants.
        advantages: one for each sample.
        clip_range: ratios count up to 1 +- clip_range.
        ratio: "exp_first" or "sum_first".

    Raises:
        ValueError: unknown `ratio`.
    """
    pool = choose(RATIOS, ratio, "ratio")
    new, old = pool(log_probs), pool(old_log_probs.detach())
    per_time = clipped_surrogate(new, old, advantages.to(new).expand_as(new), clip_range, clip_range)
    return PolicyTerm(loss=per_time.mean(0), log_ratio=(new - old).detach())
