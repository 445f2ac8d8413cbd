"""The rules that hold for every estimator, applied once around each formula.

C1 equal rewards in a group give exactly 0 (max == min of the stored numbers; never "the std is small");
C2 a sample without a score leaves every statistic and gets 0;
C3 a group with fewer scorable members than the method needs gets 0, its reward, or stops the run: option `singleton`;
C5 float64 inside, float32 out;   C6 no gradient;   C7 zero where the mask is 0;   C8 groups are ids, in any order.
C4 (ties) and C9 (which standard deviation) belong to the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from align.advantages.inputs import POSITION_FIELDS, AdvantageInputs, AdvantageResult, on_all_rows
from align.advantages.registry import Estimator, Options, find, make_options
from align.groups import group_codes, group_count, group_is_constant, group_size
from align.objectives import per_unit

State = Mapping[str, Tensor | int | float | str]


def estimate(
    kind: str, inputs: AdvantageInputs, *, state: State | None = None, base: Options | str | None = None, **options: Any
) -> AdvantageResult:
    """Advantages of a batch by the estimator called `kind`.

    Args:
        kind: one of `available()`.
        inputs: rows of all processes.
        state: of a stateful method's previous call.
        base: of a shaper, where the inputs hold no `advantages`: name or settings of the estimator that it shapes; by
            default its paper's.
        options: the estimator's settings, by keyword; its defaults elsewhere (Any: each option has its own type,
            checked).

    Returns:
        Advantages in the order of `inputs`, float32, zero where a sample could not be scored.

    Raises:
        ValueError: unknown kind or option, a missing input (named), an infinite reward, or a singleton under
        `singleton="error"`.
    """
    entry = find(kind)
    settings = make_options(entry, options)
    base = make_options(find(base), {}) if isinstance(base, str) else base
    inputs, stats = with_base(entry, inputs, base)
    result = apply_rules(entry, inputs, settings, state)
    return replace(result, stats={**stats, **result.stats})


def estimate_with(options: Options, inputs: AdvantageInputs, state: State | None = None) -> AdvantageResult:
    """Like `estimate`, from a settings dataclass of `align/config/pipeline.py` that says which estimator it is."""
    return apply_rules(find(options.kind), inputs, options, state)


def with_base(
    entry: Estimator, inputs: AdvantageInputs, base: Options | None = None
) -> tuple[AdvantageInputs, Mapping[str, float]]:
    """The inputs with the advantages that a shaper shapes, and the base stage's numbers for the log.

    Raises:
        ValueError: a base for something that is no shaper, given twice, or one that cannot be a base.
    """
    if entry.stage != "shaper" or inputs.advantages is not None:
        if base is not None:
            why = "is no shaper" if entry.stage != "shaper" else "has `advantages` in its inputs already"
            raise ValueError(f"{entry.kind} {why}, so it has no use for `base`. Leave it out.")
        return inputs, {}
    settings = entry.base_settings(base)
    found = find(settings.kind)
    if found.stage != "base" or found.stateful:
        why = "keeps state of its own" if found.stateful else f"belongs to the {found.stage} stage"
        raise ValueError(
            f"{settings.kind} {why} and cannot be computed inside {entry.kind}. Estimate the advantages first and pass "
            "them as `advantages` in AdvantageInputs."
        )
    result = apply_rules(found, inputs, settings)
    return replace(inputs, advantages=result.advantages), result.stats


@torch.no_grad()
def apply_rules(
    entry: Estimator, inputs: AdvantageInputs, options: Options, state: State | None = None
) -> AdvantageResult:
    """Check the inputs, run the formula on the scorable rows, and enforce the rules on what it returns."""
    inputs = _with_defaults(inputs)
    _check(entry, inputs, options)
    inputs = _without_padding(inputs.exact())
    rows = _scorable(entry, inputs, options).nonzero().flatten()
    kept = _with_dense_ids(inputs if len(rows) == len(inputs) else inputs.select(rows))
    ids = kept.ids
    lonely = group_size(ids) < entry.min_group
    _check_singletons(entry, options, inputs, rows[lonely])
    constant = _constant(kept.rewards, ids) & ~lonely

    result = _run(entry, kept, options, state)
    advantages = result.advantages
    if entry.exact_zero:
        advantages = torch.where(per_unit(constant, advantages), 0.0, advantages)
    alone = _singleton_value(entry, options, kept)
    advantages = torch.where(per_unit(lonely, advantages), per_unit(alone, advantages), advantages)
    advantages = _masked(advantages, kept.mask)
    advantages = on_all_rows(advantages, rows, len(inputs)).float()
    if not advantages.isfinite().all():
        raise ValueError(
            f"{entry.kind} gave NaN or infinite advantages for rewards up to {float(kept.rewards.abs().max()):g}. "
            "Raise `eps`, or bring the rewards to a smaller range."
        )
    stats = {
        **_describe(ids, constant, lonely, len(inputs)),
        **describe_advantages(advantages, inputs.mask),
        **result.stats,
    }
    aux = {name: on_all_rows(value, rows, len(inputs)) for name, value in result.aux.items()}
    return replace(result, advantages=advantages, aux=aux, stats=stats)


def _run(entry: Estimator, kept: AdvantageInputs, options: Options, state: State | None) -> AdvantageResult:
    """The formula. A batch without a scorable sample never reaches one: its means would be over nothing."""
    if len(kept) == 0:
        shape = kept.rewards.shape[:1] if entry.granularity == "sample" or kept.mask is None else kept.mask.shape
        if entry.stage == "shaper" and kept.advantages is not None and kept.advantages.ndim == 2:
            shape = kept.advantages.shape
        return AdvantageResult(advantages=kept.rewards.new_zeros(shape), state=dict(state or {}))
    outcome = entry.function(kept, options, dict(state or {})) if entry.stateful else entry.function(kept, options)
    return outcome if isinstance(outcome, AdvantageResult) else AdvantageResult(advantages=outcome)


def _check(entry: Estimator, inputs: AdvantageInputs, options: Options) -> None:
    given = inputs.given()
    missing = [f"`{name}`" for name in entry.needs(options) if name not in given]
    missing += [" or ".join(f"`{name}`" for name in names) for names in entry.requires_any if not {*names} & {*given}]
    if missing:
        raise ValueError(
            f"{entry.kind} needs {', '.join(missing)}. Given: {', '.join(given)}. "
            "Pass it in AdvantageInputs, or choose an estimator that does without."
        )
    if len(inputs) == 0:
        raise ValueError(
            f"{entry.kind} expects at least one sample, found an empty batch. "
            "A sample that could not be scored stays in it, with nan as its reward."
        )
    if inputs.rewards.ndim == 2 and not entry.decomposes:
        raise ValueError(
            f"{entry.kind} takes one reward per sample, found {list(inputs.rewards.shape)}. "
            "Combine the columns first (align.shaping.combine)."
        )
    if inputs.mask is not None and not inputs.mask.any():
        raise ValueError(
            f"`mask` has no position that is trained in any of {len(inputs)} samples, so {entry.kind} has nothing to "
            "give credit to. 1 marks what the policy produced; are the completions empty, or is the mask inverted?"
        )
    if inputs.rewards.isinf().any():
        row = int(_columns(inputs.rewards).isinf().any(dim=1).nonzero()[0])
        raise ValueError(
            f"the reward of sample {row} is infinite. A reward must be a finite number; "
            "use nan for a sample that cannot be scored."
        )


def _with_defaults(inputs: AdvantageInputs) -> AdvantageInputs:
    """Lengths counted from the mask and prompts named by their groups, where nothing better is given."""
    if inputs.lengths is None and inputs.mask is not None:
        inputs = replace(inputs, lengths=(inputs.mask != 0).sum(dim=1))
    if inputs.prompt_ids is None and inputs.group_ids is not None:
        inputs = replace(inputs, prompt_ids=inputs.group_ids)
    return inputs


def _without_padding(inputs: AdvantageInputs) -> AdvantageInputs:
    """Numbers of masked positions replaced by 0: whatever stands there, NaN too, has no effect on any formula."""
    if inputs.mask is None:
        return inputs
    numbers = {name: getattr(inputs, name) for name in POSITION_FIELDS if name != "mask"}
    return replace(
        inputs,
        **{
            name: torch.where(inputs.mask != 0, value, 0.0)
            for name, value in numbers.items()
            if value is not None and value.is_floating_point()
        },
    )


def _with_dense_ids(inputs: AdvantageInputs) -> AdvantageInputs:
    """Ids 0, 1, ...; without ids (methods that compare with the whole batch) one group."""
    if inputs.group_ids is None:
        return replace(inputs, group_ids=torch.zeros(len(inputs), dtype=torch.int64, device=inputs.rewards.device))
    return replace(inputs, group_ids=group_codes(inputs.group_ids)[0])


def _scorable(entry: Estimator, inputs: AdvantageInputs, options: Options) -> Bool[Tensor, "n"]:
    """Rows with a reward, with a trained position if the method is about positions, and without NaN in anything that
    it must or may read there. A field that is one of several alternatives may have NaN where it says nothing."""
    scorable = ~_columns(inputs.rewards).isnan().all(dim=1)
    if entry.granularity == "token" and inputs.mask is not None:
        scorable &= (inputs.mask != 0).any(dim=1)
    for name in (*entry.needs(options), *entry.optional):
        value = getattr(inputs, name)
        if isinstance(value, Tensor) and value.is_floating_point():
            value = (
                _masked(value, inputs.mask) if inputs.mask is not None and value.shape == inputs.mask.shape else value
            )
            scorable &= ~_columns(value).isnan().any(dim=1)
    return scorable


def _columns(values: Tensor) -> Tensor:
    return values.unsqueeze(1) if values.ndim == 1 else values.flatten(start_dim=1)


def _constant(rewards: Tensor, ids: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    return torch.stack([group_is_constant(column, ids) for column in _columns(rewards).unbind(dim=1)]).all(dim=0)


def _check_singletons(entry: Estimator, options: Options, inputs: AdvantageInputs, rows: Int[Tensor, "r"]) -> None:
    if len(rows) == 0 or getattr(options, "singleton", "zero") != "error":
        return
    where = rows.tolist() if inputs.group_ids is None else inputs.group_ids[rows].unique().tolist()
    raise ValueError(
        f"{entry.kind} needs at least {entry.min_group} scored samples in each group; groups {where[:5]} have fewer. "
        "Raise `rollout.group_size`, look at why samples are unscored, or set `singleton` to `zero`."
    )


def _singleton_value(entry: Estimator, options: Options, kept: AdvantageInputs) -> Float[Tensor, "n *t"]:
    """0 or the reward; a shaper leaves what the base stage has decided."""
    if entry.stage == "shaper" and kept.advantages is not None:
        return kept.advantages
    raw = _columns(kept.rewards).nansum(dim=1)
    return raw if getattr(options, "singleton", "zero") == "raw" else torch.zeros_like(raw)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where nothing is trained: at masked positions, or for samples without a single trained position."""
    if mask is None:
        return values
    trained = mask != 0
    return torch.where(trained if values.ndim == 2 else trained.any(dim=1), values, 0.0)


def _describe(ids: Int[Tensor, "n"], constant: Tensor, lonely: Tensor, n: int) -> dict[str, float]:
    """Counts of groups. `frac_reward_zero_std`: of the groups that can be compared, the share with equal rewards."""
    alone, equal = group_count(ids, lonely), group_count(ids, constant)
    return {
        "frac_reward_zero_std": equal / max(group_count(ids) - alone, 1),
        "singletons": float(alone),
        "unscored": float(n - len(ids)),
    }


def describe_advantages(advantages: Float[Tensor, "n *t"], mask: Tensor | None = None) -> dict[str, float]:
    """Mean and largest absolute advantage, and the share that is not zero, over trained positions."""
    sizes = advantages.abs() if mask is None or advantages.ndim == 1 else advantages.abs()[mask != 0]
    if sizes.numel() == 0:
        return {"advantages/mean_abs": 0.0, "advantages/max_abs": 0.0, "advantages/frac_nonzero": 0.0}
    return {
        "advantages/mean_abs": float(sizes.double().mean()),
        "advantages/max_abs": float(sizes.max()),
        "advantages/frac_nonzero": float((sizes > 0).double().mean()),
    }
