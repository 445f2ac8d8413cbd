"""What an advantage estimator may read and what it returns. One spelling for every method of both branches.

Axis letters: n samples of the whole update batch (all processes), t tokens or trained denoising steps, m rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from align.groups import check_ids

POSITION_FIELDS = (  # one column per token or denoising step
    *("mask", "token_rewards", "logprobs", "ref_logprobs", "entropies", "token_logits", "self_certainty", "values"),
    *("policy_window_mask", "token_ids", "step_key", "seg_id", "step_end", "turn_id", "turn_end"),
)
KEY_FIELDS = (  # identities: compared for equality, so never floating point
    *("token_ids", "step_key", "seg_id", "turn_id", "state_key", "action_key"),
    *("player", "role", "agent", "parent", "call", "user_groups"),
)
BATCH_FIELDS = ("step", "batch_mean_reward")  # about the batch as a whole; every other field has one row per sample


@dataclass(frozen=True, kw_only=True)
class AdvantageInputs:
    """Everything that some estimator needs; each declares its own subset. Only the rewards are obligatory.

    Attributes:
        rewards: one per sample, any unit, higher is better, NaN = could not be scored; `[n, m]` for methods that
            decompose.
        group_ids: samples with equal ids answer the same prompt. Any integers, interleaved, groups of any size.
        prompt_ids: number of the prompt that is the same in every step; `group_ids` if None. Methods with a memory need
            it where group ids are numbered anew in each step.
        mask: 1 at positions that the policy produced and that are trained; holes (tool output) are allowed.
        lengths: trained positions per sample; `mask.sum(1)` if None.
        token_rewards: reward placed on positions.
        logprobs: of the sampled tokens, in nats; each method says under which policy.
        ref_logprobs: of the sampled tokens under the reference policy, in nats.
        entropies: of the full next-token distribution, in nats.
        token_logits: raw logit of the sampled token, before the temperature.
        self_certainty: logsumexp(z) - mean(z) over the vocabulary.
        values: a critic's value of the state before position t.
        values_at_cuts: values of the prefixes where segments are cut, in order; columns after the last cut are ignored.
        bootstrap_values: value of the state after the last position of a truncated sample.
        policy_window_mask: positions that the policy loss reads in this update; others pass credit on and get none.
        confidence: how sure the policy is of the true answer before the first turn and after each, as a log-probability
            per token; columns after a sample's last turn are ignored.
        metric: any number per sample.
        user_groups: number of the user group that the prompt stands for, negative = nobody in particular.
        reference_rewards: reward of a reference policy's answer to the sample's prompt, in the unit of the rewards.
        greedy_rewards: reward of a greedy rollout of the sample's prompt, in the unit of the rewards.
        answers: canonical final answers; None = no answer found.
        correct: whether the answer is right.
        first_tool_pos: position of the first tool-call token, -1 = never.
        rank_features: effective rank of the hidden states, its velocity and its acceleration.
        token_ids: identity of the action at a position.
        step_key: the same for denoising: id of the noise draw or tree node.
        truncated: cut by a limit rather than ended.
        seg_id: segment or reasoning step of a position, non-decreasing, -1 outside.
        step_end: last position of each reasoning step.
        turn_id: turn of a position, -1 outside.
        turn_end: last position of each turn.
        state_key: canonical key of the environment's state before each step, and after the last.
        action_key: canonical key of the action of each step.
        player: who played, in games with several players.
        role: role of the agent.
        agent: which agent; 0 is the main one.
        parent: which rollout of the main agent a call of a sub-agent belongs to; the rollout has the same number.
        call: number of the call within its rollout.
        done_reward_seq: reward of the clean image implied by the state after 0 .. t stochastic steps.
        advantages: what a shaper shapes: the base stage's result.
        step: number of the training step, for schedules.
        batch_mean_reward: for schedules that follow the accuracy.
    """

    rewards: Real[Tensor, "n"] | Real[Tensor, "n m"]
    group_ids: Int[Tensor, "n"] | None = None
    prompt_ids: Int[Tensor, "n"] | None = None
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"] | None = None
    lengths: Int[Tensor, "n"] | None = None
    token_rewards: Float[Tensor, "n t"] | None = None
    logprobs: Float[Tensor, "n t"] | None = None
    ref_logprobs: Float[Tensor, "n t"] | None = None
    entropies: Float[Tensor, "n t"] | None = None
    token_logits: Float[Tensor, "n t"] | None = None
    self_certainty: Float[Tensor, "n t"] | None = None
    values: Float[Tensor, "n t"] | None = None
    values_at_cuts: Float[Tensor, "n c"] | None = None
    bootstrap_values: Float[Tensor, "n"] | None = None
    policy_window_mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"] | None = None
    confidence: Float[Tensor, "n b"] | None = None
    metric: Float[Tensor, "n"] | None = None
    user_groups: Int[Tensor, "n"] | None = None
    reference_rewards: Float[Tensor, "n"] | None = None
    greedy_rewards: Float[Tensor, "n"] | None = None
    answers: Sequence[Hashable] | None = None
    correct: Bool[Tensor, "n"] | None = None
    first_tool_pos: Int[Tensor, "n"] | None = None
    rank_features: Float[Tensor, "n 3"] | None = None
    token_ids: Int[Tensor, "n t"] | None = None
    step_key: Int[Tensor, "n t"] | None = None
    truncated: Bool[Tensor, "n"] | None = None
    seg_id: Int[Tensor, "n t"] | None = None
    step_end: Bool[Tensor, "n t"] | None = None
    turn_id: Int[Tensor, "n t"] | None = None
    turn_end: Bool[Tensor, "n t"] | None = None
    state_key: Int[Tensor, "n s"] | None = None
    action_key: Int[Tensor, "n s"] | None = None
    player: Int[Tensor, "n"] | None = None
    role: Int[Tensor, "n"] | None = None
    agent: Int[Tensor, "n"] | None = None
    parent: Int[Tensor, "n"] | None = None
    call: Int[Tensor, "n"] | None = None
    done_reward_seq: Float[Tensor, "n t1"] | None = None
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"] | None = None
    step: int | None = None
    batch_mean_reward: float | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError that names the field, unless every per-sample field has one row per sample."""
        if not isinstance(self.rewards, Tensor):
            raise ValueError(
                f"rewards must be a tensor, found a {type(self.rewards).__name__}. Write torch.tensor([...]), with nan "
                "where a sample could not be scored."
            )
        if self.rewards.ndim not in (1, 2):
            raise ValueError(f"rewards must have shape [n] or [n, m], found {list(self.rewards.shape)}.")
        for ids in (self.group_ids, self.prompt_ids):
            if ids is not None:
                check_ids(ids)
        for name, value in self._per_sample().items():
            if len(value) != len(self):
                raise ValueError(
                    f"`{name}` has {len(value)} rows for {len(self)} rewards. "
                    "Every input has one row per sample, in the same order; gather all of them or none."
                )
        self._check_keys()
        self._check_widths()
        self._check_way()
        self._check_mask()

    def __len__(self) -> int:
        return self.rewards.shape[0]

    @property
    def ids(self) -> Int[Tensor, "n"]:
        """`group_ids` for a formula that requires them; inside an estimator they are dense (0, 1, ...)."""
        if self.group_ids is None:
            raise ValueError("`group_ids` is not given. Say which samples answer the same prompt: equal integer ids.")
        return self.group_ids

    def tensor(self, name: str) -> Tensor:
        """A field that the formula requires, known to be there."""
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            raise ValueError(f"`{name}` is not given. Pass it in AdvantageInputs.")
        return value

    def given(self) -> tuple[str, ...]:
        """Names of the fields that are not None."""
        return tuple(item.name for item in fields(self) if getattr(self, item.name) is not None)

    def select(self, rows: Int[Tensor, "r"]) -> AdvantageInputs:
        """Rows (int64 positions), in that order, of every per-sample field."""
        return self._each(lambda value: value[rows] if isinstance(value, Tensor) else [value[i] for i in rows.tolist()])

    def exact(self) -> AdvantageInputs:
        """The same numbers in float64 and without gradient, the rewards too if they are integers."""
        inputs = replace(self, rewards=self.rewards.double())
        return inputs._each(
            lambda value: value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else value
        )

    def _check_keys(self) -> None:
        for name in KEY_FIELDS:
            value = getattr(self, name)
            if value is not None and value.is_floating_point():
                raise ValueError(
                    f"`{name}` must be integers, found {value.dtype}. They are compared for equality: number whatever "
                    "they stand for (tokens, tree nodes, states) as int64."
                )

    def _check_widths(self) -> None:
        """Every field with one column per position has the same number of columns."""
        widths = {name: getattr(self, name).shape[1:] for name in POSITION_FIELDS if getattr(self, name) is not None}
        if len(set(widths.values())) > 1:
            found = ", ".join(f"`{name}` {list(shape)}" for name, shape in widths.items())
            raise ValueError(
                f"inputs per position disagree on the number of positions: {found}. Pad all of them on the right to "
                "one width, with 0 in `mask`."
            )

    def _check_way(self) -> None:
        """One reward before the first step and one after each."""
        if self.done_reward_seq is None or self.mask is None:
            return
        expected, found = [len(self), self.mask.shape[1] + 1], list(self.done_reward_seq.shape)
        if found != expected:
            raise ValueError(
                f"`done_reward_seq` must have shape {expected} beside a mask of {expected[1] - 1} steps, found "
                f"{found}. It holds the reward of the implied clean image before the first step, and after each."
            )

    def _check_mask(self) -> None:
        if self.mask is not None and not ((self.mask == 0) | (self.mask == 1)).all():
            other = self.mask[(self.mask != 0) & (self.mask != 1)][0].item()
            raise ValueError(
                f"`mask` must be 0 and 1, found {other:g}. 1 marks a position that the policy produced and that is "
                "trained; weights of positions belong into the loss."
            )

    def _per_sample(self) -> dict[str, Tensor | Sequence[Hashable]]:
        return {name: getattr(self, name) for name in self.given() if name not in BATCH_FIELDS}

    def _each(self, change: Callable[[Any], Any]) -> AdvantageInputs:  # Any: tensors and, for `answers`, sequences
        return replace(self, **{name: change(value) for name, value in self._per_sample().items()})


@dataclass(frozen=True, kw_only=True)
class AdvantageResult:
    """What an estimator makes of the inputs.

    Attributes:
        advantages: float32, one per sample, or one per sample and position; zero outside the mask, never NaN or
            infinite.
        aux: what else the method produces, one row per sample in each tensor; 0 where a sample could not be scored.
        stats: scalars for the log.
        state: what a stateful method must be given at its next call, and what a checkpoint must hold.
    """

    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"]
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)
    state: Mapping[str, Tensor | int | float | str] = field(default_factory=dict)


def on_all_rows(part: Tensor, rows: Int[Tensor, "r"], n: int) -> Tensor:
    """Rows of `part` put back to their places among `n`; zero elsewhere."""
    whole = torch.zeros((n, *part.shape[1:]), dtype=part.dtype, device=part.device)
    whole[rows] = part
    return whole
