"""SimPO: a preference loss without a reference, on log-probabilities averaged over tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.units import choose, precise
from preference.losses.dpo import PairLosses
from preference.losses.pair import smoothed


def simpo(
    avg_chosen: Float[Tensor, "n"],
    avg_rejected: Float[Tensor, "n"],
    *,
    beta: float,
    gamma_beta_ratio: float | None = None,
    gamma: float | None = None,
    kind: str = "sigmoid",
    label_smoothing: float = 0.0,
    alpha: float = 0.0,
) -> PairLosses:
    """Loss of each pair: the average log-probability of the chosen answer must lead by a margin.

        L = -log sigma( beta (m_w - m_l) - gamma ),      m = (1/|y|) log pi(y | x)
          = -log sigma( beta (m_w - m_l - rho) ),        rho = gamma / beta
        hinge: max(0, 1 - beta (m_w - m_l - rho))

    The division by |y| is *not* made here: it is `average=True` of `preference.logprobs`. Summed log-probabilities make
    this a loss without meaning, and nothing here can notice.

    Args:
        avg_chosen: m_w, average log-probability of the tokens of the chosen answer (its end token, too), nats a token.
        avg_rejected: m_l.
        beta: > 0, scale of the reward; 2 to 10, 20 to 1000 times that of DPO.
        gamma_beta_ratio: rho, the margin in nats a token, as in the authors' code. 0.5 is a start.
        gamma: the margin itself, as in the paper. Give one of the two.
        kind: `sigmoid` or `hinge`.
        label_smoothing: eps of `sigmoid`, as in conservative DPO.
        alpha: AlphaPO's shape: m becomes (1 - exp(-alpha m)) / alpha; 0 = SimPO.

    Returns:
        Losses, and rewards beta m (of the shaped m if alpha is not 0).

    Raises:
        ValueError: unknown kind, both or neither margin given, a number out of its range.

    References:
        Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv:2405.14734, equation 6.
        Gupta et al., "AlphaPO", arXiv:2501.03884 (alpha).
    """
    if not beta > 0:
        raise ValueError(f"`beta` must be above 0, found {beta}.")
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(f"`label_smoothing` must be in [0, 0.5], found {label_smoothing}.")
    if label_smoothing > 0 and kind == "hinge":
        raise ValueError("`hinge` has no use for label_smoothing. Leave it out, or choose sigmoid.")
    margin = _margin(beta, gamma_beta_ratio, gamma)
    chosen, rejected = _shaped(precise(avg_chosen), alpha), _shaped(precise(avg_rejected), alpha)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "sigmoid": lambda x: smoothed(x, label_smoothing),
        "hinge": lambda x: torch.relu(1 - x),
    }
    losses = choose("SimPO loss", kind, kinds)(beta * (chosen - rejected) - margin)
    return PairLosses(losses, beta * chosen.detach(), beta * rejected.detach())


def _margin(beta: float, gamma_beta_ratio: float | None, gamma: float | None) -> float:
    """Gamma, from whichever of the two was given."""
    if gamma is not None and gamma_beta_ratio is None:
        return gamma
    if gamma_beta_ratio is not None and gamma is None:
        return beta * gamma_beta_ratio
    found = "neither" if gamma is None else "both"
    raise ValueError(
        f"give the margin once, as `gamma_beta_ratio` (the authors' code) or as `gamma` (the paper); found {found}."
    )


def _shaped(average: Tensor, alpha: float) -> Tensor:
    if alpha == 0:
        return average
    return -torch.expm1((-alpha * average).clamp(max=80.0)) / alpha
