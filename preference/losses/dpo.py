"""DPO and its family: four vectors of log-probabilities to one loss per pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from align.objectives.units import choose, precise
from preference.losses.divergences import divergence_score
from preference.losses.pair import LOSSES, Entry, Pair


class PairLosses(NamedTuple):
    """Losses of pairs and the rewards that they imply.

    Attributes:
        losses: one per pair, with gradient; average them over the pairs of the whole update.
        chosen_rewards: beta (log pi - log pi_ref) of the chosen answers, detached, nats.
        rejected_rewards: the same of the rejected ones.
    """

    losses: Float[Tensor, "n"]
    chosen_rewards: Float[Tensor, "n"]
    rejected_rewards: Float[Tensor, "n"]

    @property
    def margins(self) -> Float[Tensor, "n"]:
        """Reward of the chosen minus that of the rejected answer."""
        return self.chosen_rewards - self.rejected_rewards


def dpo(
    policy_chosen: Float[Tensor, "n"],
    policy_rejected: Float[Tensor, "n"],
    ref_chosen: Float[Tensor, "n"] | None,
    ref_rejected: Float[Tensor, "n"] | None,
    *,
    beta: float,
    kind: str | Mapping[str, float] = "sigmoid",
    label_smoothing: float = 0.0,
    chosen_lengths: Real[Tensor, "n"] | None = None,
    rejected_lengths: Real[Tensor, "n"] | None = None,
    divergence: str = "reverse_kl",
    alpha: float = 0.5,
    reference_weight: float = 1.0,
    weights: Float[Tensor, "n"] | None = None,
    baseline: float | Float[Tensor, ""] = 0.0,
    temperature: float = 0.05,
) -> PairLosses:
    """Loss of each pair; by default DPO's.

        a = log pi(y_w | x) - g log pi_ref(y_w | x),     b = the same of y_l
        L = -log sigma(beta (a - b))

    Every kind with its formula and source: `docs/preference_losses.md`, and the functions of `preference/losses/`.

    Args:
        policy_chosen: summed log-probability of the chosen answer under the policy, nats, with gradient.
        policy_rejected: the same of the rejected answer.
        ref_chosen: under the reference; no gradient flows. None only with `reference_weight` 0.
        ref_rejected: the same of the rejected answer.
        beta: > 0; a small beta lets the policy go further from the reference.
        kind: name of a loss, or a weighted mix, such as {"sigmoid": 0.8, "bco_pair": 0.2}.
        label_smoothing: eps, assumed share of flipped labels, for the losses that know it.
        chosen_lengths: scored tokens of the chosen answers, for `sigmoid_norm` and `ipo`.
        rejected_lengths: the same of the rejected answers.
        divergence: `reverse_kl`, `forward_kl`, `js` or `alpha`, for the losses of the difference a - b.
        alpha: of the alpha divergence.
        reference_weight: g. 1 = DPO, 0 = reference-free, between: DPO^gamma of arXiv:2405.19534, equation 4.
        weights: constants by which the losses are multiplied, such as `wpo_weights`.
        baseline: delta of `bco_pair`, a constant in the unit of rewards.
        temperature: tau of `discopop`, > 0.

    Returns:
        Losses and rewards, at least float32 whatever the inputs are.

    Raises:
        ValueError: unknown kind, an option that the kind would ignore, or one out of its range.

    References:
        Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        arXiv:2305.18290, equation 7; one more for each kind.
    """
    mix = {kind: 1.0} if isinstance(kind, str) else dict(kind)
    entries = {name: choose("preference loss", name, LOSSES) for name in mix}
    _check_numbers(beta, label_smoothing, temperature, mix)
    _check_lengths(entries, chosen_lengths, rejected_lengths)
    _check_options(entries, label_smoothing, divergence, chosen_lengths is not None, weights is not None)
    chosen, rejected = precise(policy_chosen), precise(policy_rejected)
    ref_w, ref_l = (
        _reference(ref_chosen, chosen, reference_weight),
        _reference(ref_rejected, rejected, reference_weight),
    )
    a, b = chosen - ref_w, rejected - ref_l
    pair = Pair(
        chosen=a,
        rejected=b,
        difference=divergence_score(a, divergence, alpha) - divergence_score(b, divergence, alpha),
        policy_margin=chosen - rejected,
        ref_margin=ref_w - ref_l,
        beta=beta,
        label_smoothing=label_smoothing,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
        baseline=baseline,
        temperature=temperature,
    )
    losses = torch.stack([weight * entries[name].function(pair) for name, weight in mix.items()]).sum(dim=0)
    if weights is not None:
        losses = losses * weights.detach()
    return PairLosses(losses, beta * a.detach(), beta * b.detach())


def _reference(log_probs: Tensor | None, like: Tensor, weight: float) -> Tensor:
    if weight == 0:
        return torch.zeros_like(like)
    if log_probs is None:
        raise ValueError(
            "the reference's log-probabilities are missing. Pass them, or `reference_weight=0` for a loss without one."
        )
    return weight * precise(log_probs).detach()


def _check_numbers(beta: float, label_smoothing: float, temperature: float, mix: Mapping[str, float]) -> None:
    if not beta > 0:
        raise ValueError(f"`beta` must be above 0, found {beta}.")
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(
            f"`label_smoothing` is the share of flipped labels and must be in [0, 0.5], found {label_smoothing}. "
            "Above one half, swap chosen and rejected."
        )
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0, found {temperature}.")
    if not mix:
        raise ValueError("the mix of losses is empty. Name at least one, such as {'sigmoid': 1.0}.")


def _check_lengths(entries: Mapping[str, Entry], chosen: Tensor | None, rejected: Tensor | None) -> None:
    needs = [name for name, entry in entries.items() if entry.lengths == "required"]
    if needs and (chosen is None or rejected is None):
        raise ValueError(f"`{needs[0]}` divides by the number of tokens: pass chosen_lengths and rejected_lengths.")
    if (chosen is None) != (rejected is None):
        raise ValueError("chosen_lengths and rejected_lengths belong together; one of them is missing.")
    for name, lengths in (("chosen_lengths", chosen), ("rejected_lengths", rejected)):
        if lengths is not None and bool((lengths < 1).any()):
            raise ValueError(f"`{name}` holds a length below 1. An answer without a token cannot be compared: drop it.")


def _check_options(
    entries: Mapping[str, Entry], label_smoothing: float, divergence: str, lengths: bool, weights: bool
) -> None:
    """An option that a loss would ignore is refused, with the losses that know it."""
    rules = (
        (label_smoothing > 0, "label_smoothing", lambda entry: entry.smoothing),
        (divergence != "reverse_kl", f"the divergence {divergence!r}", lambda entry: entry.divergence),
        (weights, "weights of pairs", lambda entry: entry.per_pair),
    )
    for used, option, knows in rules:
        deaf = [name for name, entry in entries.items() if not knows(entry)]
        if used and deaf:
            able = ", ".join(name for name, entry in LOSSES.items() if knows(entry))
            raise ValueError(f"`{deaf[0]}` has no use for {option}. Leave it out, or choose one of: {able}.")
    averaged = [name for name, entry in entries.items() if entry.lengths != "ignored"]
    if lengths and not averaged:
        able = ", ".join(name for name, entry in LOSSES.items() if entry.lengths != "ignored")
        raise ValueError(f"none of {', '.join(entries)} reads lengths. Leave them out, or choose one of: {able}.")
    if lengths and divergence != "reverse_kl":
        raise ValueError(
            f"averages over tokens and the divergence {divergence!r} do not go together: the reward is a function of "
            "the whole answer's ratio, which has no average. Use reverse_kl, or leave the lengths out."
        )
