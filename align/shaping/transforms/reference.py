"""Transforms that compare a reward with what the initial policy gets: LSC, PAR, quantile; and how to estimate that.

The reference must come from the *frozen* initial policy, scored by the same reward in the same way. A reference that
follows the policy turns LSC into a relative advantage and takes away its ceiling.
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.groups import group_max, group_mean, group_std
from align.order import group_quantile
from align.shaping.transforms.column import check_column, check_scale

METHODS = ("gaussian", "empirical")


def lsc(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    reference: float | Float[Tensor, "n"] | None = None,
    scale: float = 1.0,
    q: float = 0.85,
    method: str = "gaussian",
) -> Float[Tensor, "n"]:
    """Log-sigmoid-centred reward: the log-probability of beating a reference response.

        u = log sigma((r - r_ref) / s) = min(z, 0) - log(1 + exp(-|z|)),   z = (r - r_ref) / s

    Under Bradley-Terry sigma(r - r_ref) is the probability that the sample beats one of quality r_ref; call that
    "good". Then KL-regularised training on u samples from the initial policy *given good*, and the sum of several u is
    the log-probability of being good in every respect (a logical AND). The slope is near 1 far below the reference
    and near 0 far above: what is good enough is not improved at the cost of the rest. u(r_ref) = -log 2.

    Args:
        values: rewards in Bradley-Terry units (natural-log odds) if s = 1; NaN = not scored.
        group_ids: equal ids share a prompt.
        reference: r_ref, one number or one per sample, in the unit of the rewards; NaN leaves the sample unscored.
            None estimates it from the group itself (`quantile_reference`): for off-line data and experiments only, see
            the top of this file.
        scale: s > 0. For rewards that are no log-odds take a clearly visible difference; the AND is then a soft
            threshold, no probability.
        q: quantile of the estimate, if it is made here.
        method: of the estimate, `gaussian` or `empirical`.

    Returns:
        At most 0. Finite for |z| up to 1e4 and beyond in float32; below the reference u is about z.

    References:
        Wang et al., "Transforming and Combining Rewards for Aligning Large Language Models", arXiv:2402.00742.

    Note:
        Dividing by each group's standard deviation afterwards undoes what LSC does *between* prompts (solved prompts
        fade); use the standard deviation of the batch, or none. Public code that computes log(sigmoid(z)) returns
        -inf below z = -89 in float32.
    """
    check_column(values, group_ids)
    check_scale(scale)
    if reference is None:
        reference = quantile_reference(values.detach(), group_ids, q=q, method=method)
    if isinstance(reference, Tensor) and reference.shape not in ((), values.shape):
        raise ValueError(
            f"expected one reference, or one per reward {list(values.shape)}, found references of shape "
            f"{list(reference.shape)}. Spread a prompt's reference over its samples first."
        )
    z = (values.double() - reference) / scale
    return torch.nn.functional.logsigmoid(z).to(values.dtype)


def par(
    values: Float[Tensor, "n"],
    group_ids: Int[Tensor, "n"],
    *,
    references: Float[Tensor, "n m"],
    scale: float = 1.0,
) -> Float[Tensor, "n"]:
    """Mean probability of beating each of several reference samples: a bounded win rate.

        u_i = mean_m sigma((r_i - r_ref,im) / s)

    Args:
        values: rewards in natural-log odds if s = 1; NaN = not scored.
        group_ids: not looked at.
        references: scores of the initial policy's samples for the same prompt; NaN is left out.
        scale: s > 0.

    Returns:
        In (0, 1); NaN where no reference is scored.

    References:
        Fu et al., "Reward Shaping to Mitigate Reward Hacking in RLHF", arXiv:2502.18770, preference as reward.
    """
    check_column(values, group_ids)
    check_scale(scale)
    wins = torch.sigmoid((values.double().unsqueeze(1) - references.double()) / scale)
    return _mean_over(wins, ~references.isnan(), values)


def reference_quantile(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, references: Float[Tensor, "n m"]
) -> Float[Tensor, "n"]:
    """Share of the reference samples that score lower; a tie counts one half.

        u_i = ( #{r_ref,im < r_i} + 1/2 #{r_ref,im = r_i} ) / m

    Uniform on [0, 1] for the initial policy, whatever the unit of the reward. No gradient: a count is a step function.

    Args:
        values: rewards, any unit; NaN = not scored.
        group_ids: not looked at.
        references: scores of the initial policy's samples for the same prompt; NaN is left out.

    References:
        Matrenok et al., "Quantile Reward Policy Optimization", arXiv:2507.08068.
    """
    check_column(values, group_ids)
    own = values.unsqueeze(1)
    lower = (references < own).double() + 0.5 * (references == own).double()
    return torch.where(values.isnan(), float("nan"), _mean_over(lower, ~references.isnan(), values))


def quantile_reference(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, q: float = 0.85, method: str = "gaussian"
) -> Float[Tensor, "n"]:
    """r_ref of each prompt from samples of the initial policy.

        gaussian:   mean + PhiInv(q) * std        (n - 1 under the root; from about 8 samples)
        empirical:  the q-quantile with linear interpolation        (from about 32 samples)

    Args:
        values: rewards of samples of the initial policy; NaN is left out.
        group_ids: equal ids share a prompt.
        q: in (0, 1); 0.85 is "better than 85 % of what the model does anyway".
        method: `gaussian` or `empirical`.

    Returns:
        float64, one entry per sample (its prompt's number); NaN for a prompt without a score. A single sample is its
        own reference.
    """
    if not 0 < q < 1:
        raise ValueError(f"`q` must be between 0 and 1, found {q}; 0.85 is usual.")
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, found {method!r}.")
    if method == "empirical":
        return group_quantile(values, group_ids, q)
    return group_mean(values, group_ids) + NormalDist().inv_cdf(q) * group_std(values, group_ids)


def canonical_reference(
    values: Float[Tensor, "n"], group_ids: Int[Tensor, "n"], *, canonical: Bool[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """r_ref of each prompt: the score of its canonical sample (a refusal, a blank picture, the greedy answer).

    Args:
        values: rewards; NaN = not scored.
        group_ids: equal ids share a prompt.
        canonical: marks the canonical sample; of several in one group the best counts.

    Returns:
        float64, one entry per sample; NaN where the prompt has no scored canonical sample.
    """
    best = group_max(values, group_ids, where=canonical)
    return torch.where(best.isinf(), float("nan"), best)


def _mean_over(parts: Float[Tensor, "n m"], valid: Bool[Tensor, "n m"], like: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Mean of the valid entries of each row, NaN where there is none, in the dtype of `like`."""
    count = valid.sum(dim=1)
    mean = torch.where(valid, parts, 0.0).sum(dim=1) / count.clamp(min=1)
    return torch.where(count > 0, mean, float("nan")).to(like.dtype)
