"""VERL: a bonus for responses whose hidden states spread over more dimensions than usual, or spread ever faster.

The name is Velocity-Exploiting Rank-Learning; it has nothing to do with the training framework verl.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import estimator
from align.config.shapers import VerlEffectiveRank
from align.objectives import per_unit

State = Mapping[str, Tensor | int | float | str]


def effective_rank(hidden: Float[Tensor, "l d"]) -> float:
    """Effective number of dimensions that the rows of a matrix use.

        ER = exp( - sum_j p_j log(p_j + 1e-8) ),    p = sigma / (sum sigma + 1e-8)
        sigma: singular values of the rows minus their mean

    Between 1 and min(l - 1, d); 1 if all rows are equal, 0 for fewer than two rows. It does not change if the rows are
    scaled, rotated or shifted together.
    """
    return _rank_of_gram(hidden.double() @ hidden.double().T, hidden.shape[1])


def rank_features(hidden: Float[Tensor, "l d"], *, stride: int = 40, window: int = 512) -> Float[Tensor, "3"]:
    """Effective rank of a response's final hidden states, its velocity and its acceleration.

        m_1 .. m_J: effective rank of the first s + 1, 2s + 1, ... tokens, s = stride
        d_j = m_j - mean(m_1 .. m_{j-1})        for j >= 2
        ERV = mean_j d_j,   ERA = mean_j (d_j - d_{j-1})

    Computed where the response is made, so that hidden states never travel. ER is of the whole response, ERV and ERA
    of its last `window` tokens; 0 for fewer than 2 or 3 checkpoints.

    Args:
        hidden: final-norm output of the response's tokens, any unit.
        stride: tokens between checkpoints.
        window: tokens that velocity and acceleration look at.
    """
    recent = hidden[-window:].double()
    gram = recent @ recent.T  # every prefix is a corner of it
    ends = range(stride, len(recent), stride)
    ranks = torch.tensor([_rank_of_gram(gram[: t + 1, : t + 1], hidden.shape[1]) for t in ends], dtype=torch.float64)
    velocity = ranks[1:] - ranks.cumsum(0)[:-1] / torch.arange(1, len(ranks)) if len(ranks) > 1 else ranks[:0]
    features = [
        effective_rank(hidden),
        float(velocity.mean()) if len(velocity) else 0.0,
        float(velocity.diff().mean()) if len(velocity) > 1 else 0.0,
    ]
    return torch.tensor(features, dtype=torch.float32)


def _rank_of_gram(gram: Float[Tensor, "l l"], width: int) -> float:
    """Effective rank of centred rows from their inner products."""
    count = len(gram)
    if count < 2:
        return 0.0
    rows, columns = gram.mean(dim=1, keepdim=True), gram.mean(dim=0, keepdim=True)
    powers = torch.linalg.eigvalsh(gram - rows - columns + gram.mean()).clamp(min=0.0)
    # Centring removes one dimension; the rest beyond the width is rounding.
    sigma = powers.flip(0)[: min(count - 1, width)].sqrt()
    sigma = torch.where(sigma < 1e-7 * (sigma[0] + gram.diagonal().max().sqrt()), 0.0, sigma)
    if float(sigma.sum()) == 0.0:
        return 1.0
    share = sigma / (sigma.sum() + 1e-8)
    return float((-(share * (share + 1e-8).log()).sum()).exp())


@estimator(VerlEffectiveRank)
def verl_effective_rank(inputs: AdvantageInputs, options: VerlEffectiveRank, state: State) -> AdvantageResult:
    """Bonus for exploring (rank) or exploiting (velocity of the rank) more than the running average.

        d_x = clip( (x - M_x) / (|M_x| + 1e-8), -5, 5 )        x = ER, ERV, ERA;  M_x: running mean over steps
        w   = sigmoid(2 d_ERA)
        Phi = scale [ w tanh(d_ER) + (1 - w) tanh(d_ERV) ]
        A  <- A + min( max(Phi, 0), |A| / kappa )

    It only adds: a wrong answer of high Phi is punished less, at most by half for kappa = 2, and 0 stays 0.

    State: the running means and the running score. The first batch initialises them and is compared with itself; later
    ones are compared with what earlier steps have left, then enter with weight `rate`.

    References:
        Huang et al., "Beyond the Exploration-Exploitation Trade-off: A Hidden State Approach for LLM Reasoning in RLVR"
        (VERL), arXiv:2509.23808. Numbers: the released training script. Equation number not checked.

    Note:
        The released bonus reaches the last token only (`where="last"`); the text shapes the advantage. The released
        means start at 0, enter with the previous step's numbers after use, and the first step is not shaped
        (`timing="released"`), so that early steps saturate. The published script's `add_reward False` also
        switches the features off, so that as published it trains plain GRPO.
    """
    features = inputs.tensor("rank_features")
    means, active, after = TIMINGS[options.timing](features.mean(dim=0), options.rate, state)
    score, score_after = _score(inputs, options, state)
    bonus = options.scale * (1 - score) * _phi(features, means, options).clamp(min=0.0) * float(active)
    base = inputs.tensor("advantages")
    advantages = _placed(bonus, base, inputs, options)
    stats = {f"verl/{name}": float(value) for name, value in zip(("er", "erv", "era"), features.mean(dim=0))}
    return AdvantageResult(advantages=advantages, stats=stats, state={**after, **score_after})


def _phi(features: Float[Tensor, "n 3"], means: Float[Tensor, "3"], options: VerlEffectiveRank) -> Float[Tensor, "n"]:
    deviation = ((features - means) / (means.abs() + 1e-8)).clamp(-options.limit, options.limit)
    rank, velocity, acceleration = deviation.unbind(dim=1)
    explore = torch.sigmoid(options.gain * acceleration)
    return explore * rank.tanh() + (1 - explore) * velocity.tanh()


def _placed(
    bonus: Float[Tensor, "n"], base: Float[Tensor, "n *t"], inputs: AdvantageInputs, options: VerlEffectiveRank
) -> Float[Tensor, "n"] | Float[Tensor, "n t"]:
    """The base with its bonus, on all positions or on the last trained one."""
    if options.where == "last":
        trained = inputs.tensor("mask") != 0
        base = per_unit(base, trained).expand(trained.shape)
        last = trained & (trained.flip(1).cumsum(dim=1).flip(1) == 1)
        return base + torch.where(last, torch.minimum(bonus.unsqueeze(1), base.abs() / options.kappa), 0.0)
    return base + torch.minimum(per_unit(bonus, base), base.abs() / options.kappa)


def _previous(batch: Tensor, rate: float, state: State) -> tuple[Tensor, bool, dict[str, Tensor]]:
    means = _stored(state, "means", batch) if "means" in state else batch
    return means, True, {"means": torch.lerp(means, batch, rate)}


def _released(batch: Tensor, rate: float, state: State) -> tuple[Tensor, bool, dict[str, Tensor]]:
    means = _stored(state, "means", batch) if "means" in state else torch.zeros_like(batch)
    last = _stored(state, "last", batch) if "last" in state else None
    after = means if last is None else torch.lerp(means, last, rate)
    return means, last is not None, {"means": after, "last": batch}


TIMINGS = {"previous": _previous, "released": _released}


def _stored(state: State, name: str, like: Tensor) -> Tensor:
    return torch.as_tensor(state[name]).to(like)


def _score(inputs: AdvantageInputs, options: VerlEffectiveRank, state: State) -> tuple[float, dict[str, float]]:
    """How near the running score is to the top of its range, 0 if no range is given."""
    if options.score_range is None:
        return 0.0, {}
    low, high = options.score_range
    if high <= low:
        raise ValueError(f"`score_range` must rise from lowest to highest, found {list(options.score_range)}.")
    batch = float(inputs.rewards.mean())
    before = float(state.get("score", batch))
    near = min(max((before - low) / (high - low), 0.0), 1.0)
    return near, {"score": before + options.score_rate * (batch - before)}
