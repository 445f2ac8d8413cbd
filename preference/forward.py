"""One pass of a language model over prompts and their answers: lay out, run the trunk, score the tokens.

Trunk and head are called inside one pass through the whole network, so that data parallelism, FSDP2 and autocast see
it. Policy, reference and evaluation all go this way: at the reference's weights their numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from preference.layout import LAYOUTS, Group, Layout, Support, costs, layout_support, states_read
from preference.logprobs import Head, score_tokens
from preference.logprobs.split import parts_of, split_model
from preference.logprobs.tied import one_gradient
from preference.scores import SequenceScores

if TYPE_CHECKING:
    from align.engine.adapters import Policy


Reader = Callable[..., tuple[Tensor, ...]]
"""From hidden states and a head to numbers of tokens; see `SequenceScorer.read`."""


@dataclass(frozen=True, kw_only=True)
class LayoutPlan:
    """The layout of a run.

    Attributes:
        kind: name in `preference.layout.LAYOUTS`.
        support: what the model can take.
        reason: why this one, as a sentence for the log.
    """

    kind: str
    support: Support
    reason: str


def plan_layout(
    network: nn.Module, batches: Sequence[Sequence[Group]], *, longest: int, wanted: str = "auto"
) -> LayoutPlan:
    """The cheapest layout that the model can take, from a probe and from some micro-batches of the data.

    Args:
        network: causal language model, not yet wrapped for several processes.
        batches: micro-batches of the run.
        longest: tokens of the longest prompt with its answer.
        wanted: name of a layout to take whatever it costs, if the model can; "auto" = the cheapest.

    Raises:
        AlignError: the model's output layer is of a kind that we do not know.
    """
    trunk = split_model(network).trunk
    support = layout_support(trunk, longest=longest)
    shares = costs(batches, support, hidden_size=_hidden_size(trunk))
    cheapest = min(shares, key=lambda name: (shares[name], name))
    kind = wanted if wanted in shares else "padded" if wanted != "auto" else cheapest
    return LayoutPlan(kind=kind, support=support, reason=_reason(kind, wanted, shares, support))


def _hidden_size(trunk: nn.Module) -> int:
    config: Any = trunk.config  # Any: transformers' configurations
    return int((config.get_text_config() if hasattr(config, "get_text_config") else config).hidden_size)


def _reason(kind: str, wanted: str, shares: dict[str, float], support: Support) -> str:
    work = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    why = "as asked for" if wanted == kind else "the cheapest"
    text = f"{kind} rows, {why}; work in terms of padded rows: {work}"
    if support.last_layer is not None:
        names = ", ".join(name.removeprefix(f"{support.last_layer.name}.") for name in support.last_layer.parts)
        text += f". Of the last layer, {names} compute only what the loss reads"
    if support.lean_layers is not None:
        text += f". {support.lean_layers.share:.0%} of what layers would keep for the backward pass is computed again"
    if support.pieces and kind != "padded":
        text += ". Attention leaves out pairs of places that see each other in no row"
    left_out = {reason for name, reason in support.reasons.items() if wanted in ("auto", name)}
    return text + "".join(f". Packed and shared rows are left out: {reason}" for reason in sorted(left_out))


class SequenceScorer:
    """Log-probabilities of answers under the network as it is at the moment.

    With gradient where gradients are on. Inside `policy.reference()` or `policy.swapped()` it scores with those
    weights. Make it before training, call it after `Policy.prepare`.

    Args:
        policy: the trained network.
        plan: of `plan_layout`.
        pad_id: id that fills rows up; it is never seen.
        memory: bytes that logits may take; None = by device.
    """

    def __init__(self, policy: Policy, plan: LayoutPlan, *, pad_id: int = 0, memory: int | None = None) -> None:
        self.plan = plan
        self._policy, self._pad, self._memory = policy, pad_id, memory

    def lay(self, groups: Sequence[Group]) -> Layout:
        """The layout of a micro-batch, on the network's device."""
        layout = LAYOUTS[self.plan.kind](groups, pad_id=self._pad)
        return layout.to(next(self._policy.module.parameters()).device)

    def score(self, layout: Layout, extras: Sequence[str] = ()) -> SequenceScores:
        """One pass.

        Args:
            layout: of `lay`.
            extras: names in `preference.logprobs.EXTRAS`.
        """
        found = self.read(layout, _scored, layout.labels, extras=tuple(extras))
        return SequenceScores(log_probs=found[0], layout=layout, extras=dict(zip(extras, found[1:], strict=True)))

    def read(self, layout: Layout, reader: Reader, *per_token: Tensor, **options: Any) -> tuple[Tensor, ...]:
        """One pass that reads something else of the tokens: `reader(hidden, head, *per_token, memory=..., **options)`.

        Args:
            layout: of `lay`.
            reader: from the hidden states [m, d] that predict the scored tokens, and the head, to plain tensors.
            per_token: further tensors for the reader.
            options: further options for the reader (Any: its own).
        """
        return self._policy.through(_pass, layout, self.plan.support, reader, per_token, self._memory, options)

    @torch.no_grad()
    def without_gradient(self, groups: Sequence[Group], extras: Sequence[str] = ()) -> SequenceScores:
        """Lay out and score."""
        return self.score(self.lay(groups), extras)


def _pass(
    network: nn.Module,
    layout: Layout,
    support: Support,
    reader: Reader,
    per_token: tuple[Tensor, ...],
    memory: int | None,
    options: Mapping[str, Any],
) -> tuple[Tensor, ...]:
    """Plain tensors come out: FSDP2 and autocast look for them there."""
    with one_gradient(parts_of(network)) as split:
        hidden = states_read(split.trunk, layout, support)
    return reader(hidden, split.head, *per_token, memory=memory, **options)


def _scored(
    hidden: Tensor, head: Head, labels: Tensor, *, memory: int | None, extras: tuple[str, ...]
) -> tuple[Tensor, ...]:
    found = score_tokens(hidden, head, labels, extras=extras, memory=memory)
    return (found.log_probs, *(found.extras[name] for name in extras))
