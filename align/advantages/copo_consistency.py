"""COPO: where the answers of a group agree, compare groups with each other; where they differ, its samples."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.normalise import group_standardised
from align.advantages.outcomes import correct_samples
from align.advantages.registry import estimator
from align.config.estimators import CopoConsistency
from align.groups import group_codes, group_first, group_is_constant, group_mean, group_size

# local weight from: sigmoid of the entropy, 1 where a sample has not failed, 1 where its local advantage is not 0
MODES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "soft-with-zero": lambda soft, succeeded, forced: soft * succeeded,
    "only-soft": lambda soft, succeeded, forced: soft,
    "only-soft-with-coef": lambda soft, succeeded, forced: soft,
    "only-zero": lambda soft, succeeded, forced: succeeded,
    "soft-with-forced": lambda soft, succeeded, forced: soft * forced,
    "only-forced": lambda soft, succeeded, forced: forced,
    "only-global": lambda soft, succeeded, forced: torch.zeros_like(soft),
    "no-global": lambda soft, succeeded, forced: torch.ones_like(soft),
}
GLOBAL_COEFFICIENT = {"only-soft-with-coef": 0.1}  # the global term's factor where it is not 1


def answer_codes(
    answers: Sequence[Hashable], group_ids: Int[Tensor, "n"], none_answers: str = "each"
) -> Int[Tensor, "n"]:
    """A number per sample, equal for equal answers of one group. Missing ones (None) differ, or are `one` answer."""
    seen: dict[Hashable, int] = {}
    codes = []
    for place, (answer, group) in enumerate(zip(answers, group_ids.tolist(), strict=True)):
        key = (group, "none", place) if answer is None and none_answers == "each" else (group, "answer", answer)
        codes.append(seen.setdefault(key, len(seen)))
    return torch.tensor(codes, dtype=torch.int64, device=group_ids.device)


def answer_entropy(codes: Int[Tensor, "n"], group_ids: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Entropy of a group's answers in bits, 0 .. log2 G.

    H_q = - sum_k f_k log2(f_k + 1e-8)        f_k: share of answer k in the group
    """
    share = group_size(codes).double() / group_size(group_ids)
    return group_mean(-(share + 1e-8).log2(), group_ids).clamp(min=0.0)


@estimator(CopoConsistency)
def copo_consistency(inputs: AdvantageInputs, options: CopoConsistency) -> AdvantageResult:
    """GRPO's advantage, with a second one between groups and the weight that blends their losses.

        A_i    = (r_i - m) / (s + 1e-6)                             local
        R_q    = m_q (1 - lam H_q) with `reward_coef`, else m_q,    lam = (1 - 1/G) / log2 G
        Ahat_q = (R_q - mean_q R) / (std_q R + 1e-6)                global, over the groups of the batch
        w_i    = sigmoid(k (H_q - b))                               times [sample i is correct] in `soft-with-zero`, ...

    The loss is (1 - w) l_global + w l_local with one clipped surrogate each: `align.objectives.copo_loss`. A
    group whose answers agree has H near 0 and w near 0: the comparison within it says nothing, so it learns from being
    better or worse than other prompts. 1 - lam H goes from 1 (all equal) to 1/G (all different).

    Returns:
        advantages: the local ones. aux: `global_advantages` [n], `local_weight` [n], `global_weight` [n] (0.1 (1 - w)
        in `only-soft-with-coef`, else 1 - w), `answer_entropy` [n] in bits.

    References:
        Han et al., "COPO: Consistency-Aware Policy Optimization", arXiv:2508.04138. Equation number not checked.

    Note:
        With one group the global comparison is empty: Ahat = 0 and w = 1 (released code: NaN); a group of one has H = 0
        and coefficient 1. The released test for failure is r != 0 (`zero_test="reward"`), which never fires for
        rewards of -1 and 1; with its std normalisation off the released blend falls back to the global loss, which is
        not copied. Answers are compared as given: canonicalise them first ("1/2" is not "0.5").
    """
    rewards, ids = inputs.rewards, inputs.ids
    local = group_standardised(rewards, ids, scope="group", unbiased=options.unbiased, eps=options.eps, eps_mode="add")
    local = torch.where(group_is_constant(rewards, ids), 0.0, local)
    entropy = answer_entropy(answer_codes(inputs.answers or (), ids, options.none_answers), ids)
    between = _between_groups(group_mean(rewards, ids) * _coefficient(entropy, ids, options), ids, options)
    weight = _local_weight(inputs, options, entropy, local)
    shrink = GLOBAL_COEFFICIENT.get(options.mode, 1.0)
    aux = {
        "global_advantages": between,
        "local_weight": weight,
        "global_weight": shrink * (1 - weight),
        "answer_entropy": entropy,
    }
    return AdvantageResult(
        advantages=local,
        aux={name: values.float() for name, values in aux.items()},
        stats={"copo/answer_entropy": float(entropy.mean()), "copo/local_weight": float(weight.mean())},
    )


def _coefficient(entropy: Tensor, ids: Tensor, options: CopoConsistency) -> Float[Tensor, "n"]:
    """1 - lam H with `reward_coef`; 1 without it and for a group of one."""
    size = group_size(ids).double()
    lam = torch.where(size > 1, (1 - 1 / size) / size.clamp(min=2).log2(), 0.0)
    return 1 - lam * entropy if options.reward_coef else torch.ones_like(entropy)


def _between_groups(scores: Tensor, ids: Tensor, options: CopoConsistency) -> Float[Tensor, "n"]:
    """z-score of the groups' scores over the groups; 0 where there is nothing to compare."""
    of_groups = scores[group_first(ids)]
    if len(of_groups) < 2 or of_groups.min() == of_groups.max():
        return torch.zeros_like(scores)
    return (scores - of_groups.mean()) / (of_groups.std(correction=int(options.unbiased)) + options.eps)


def _local_weight(
    inputs: AdvantageInputs, options: CopoConsistency, entropy: Tensor, local: Tensor
) -> Float[Tensor, "n"]:
    _, groups = group_codes(inputs.ids)
    if groups < 2:
        return torch.ones_like(entropy)
    correct = correct_samples(inputs, options.success_value)
    succeeded = correct if options.zero_test == "correct" else inputs.rewards != 0
    soft = torch.sigmoid(options.k * (entropy - options.b))
    return MODES[options.mode](soft, succeeded.double(), (local != 0).double())
