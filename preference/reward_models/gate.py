"""ArmoRM's gate on frozen heads: features of pairs once, then a small network on them (`align.rewards.gating`).

The same debiased rewards are trained on, evaluated and used; features of all pairs are held in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.engine.random import generator, seed_of
from align.rewards.gating import Gate, debiasing, gated_score, penalties
from preference.data import read_pairs
from preference.models.load import load_tokenizer
from preference.reward_models.calibration import correct
from preference.reward_models.config import GateConfig, RewardModelRun, RewardPairsConfig
from preference.reward_models.evaluate import Shared
from preference.reward_models.features import features
from preference.reward_models.losses import bradley_terry
from preference.reward_models.network import HEAD, RewardModel
from preference.tokenise import tokenise_pairs
from preference.tokens import TokenPairs

ASIDE = 0.1
"""Share of the pairs that the gate is evaluated on and never sees."""


@dataclass(frozen=True, kw_only=True)
class PairFeatures:
    """What the gate learns from.

    Attributes:
        prompts: hidden state at the end of each prompt, float32.
        chosen: rewards of the chosen answers, all heads.
        rejected: of the rejected ones.
    """

    prompts: Float[Tensor, "n d"]
    chosen: Float[Tensor, "n k"]
    rejected: Float[Tensor, "n k"]

    def select(self, rows: Tensor) -> PairFeatures:
        """These pairs."""
        return PairFeatures(prompts=self.prompts[rows], chosen=self.chosen[rows], rejected=self.rejected[rows])


@dataclass(frozen=True, kw_only=True)
class FittedGate:
    """A gate, ready to be saved.

    Attributes:
        network: the gate.
        transform: T.
        settings: arguments of `Gate` (Any: JSON).
        figures: loss and accuracy on the pairs laid aside, and the accuracy of equal weights on the same pairs.
    """

    network: Gate
    transform: Float[Tensor, "k k"]
    settings: Mapping[str, Any]
    figures: Mapping[str, float]


def gate_pairs(config: RewardModelRun, gate: GateConfig) -> TokenPairs:
    """The pairs that a gate learns from, tokenised as the rated answers are."""
    data = config.data
    names = ("max_length", "max_prompt_length", "append_eos", "strip_after_eos", "plain_as_chat", "bad_rows")
    shared = {name: getattr(data, name) for name in names}
    settings = RewardPairsConfig(train=gate.train, train_split=gate.train_split, heldout=None, **shared)
    return tokenise_pairs(read_pairs(gate.train, settings), load_tokenizer(config.model), settings)


def make_gate(
    config: RewardModelRun,
    gate: GateConfig,
    model: RewardModel,
    rated: Float[Tensor, "m k"],
    pairs: TokenPairs,
    work: Shared,
) -> FittedGate:
    """Features of the pairs, then the gate. A collective; every process computes the same gate.

    Args:
        config: of the run.
        gate: of the gate.
        model: with its heads.
        rated: rewards of the rated answers, on which penalties are chosen.
        pairs: of `gate_pairs`.
        work: who computes how many at once.
    """
    transform = torch.eye(len(config.names), dtype=torch.float64)
    if gate.penalised is not None:
        column = config.names.index(gate.penalised)
        transform = debiasing(penalties(rated, column, limit=gate.limit), column)
    head = getattr(model.network, HEAD).weight.detach().double().cpu()

    def rewards(side: list[Tensor]) -> Float[Tensor, "n k"]:
        return features(model, len(pairs), lambda i: torch.cat([pairs.prompt_ids[i], side[i]]), work) @ head.T

    table = PairFeatures(
        prompts=features(model, len(pairs), lambda i: pairs.prompt_ids[i], work).float(),
        chosen=rewards(pairs.chosen_ids).float(),
        rejected=rewards(pairs.rejected_ids).float(),
    )
    order = torch.randperm(len(pairs), generator=generator(config.seed, "gate_aside"))
    count = max(1, round(ASIDE * len(pairs)))
    aside, seen = table.select(order[:count]), table.select(order[count:])
    settings = {"features": table.prompts.shape[1], "heads": len(config.names), "width": gate.width, "dropout": 0.0}
    network = fit_gate(seen, gate, transform.float(), seed=config.seed)
    return FittedGate(
        network=network, transform=transform, settings=settings, figures=_figures(network, aside, transform.float())
    )


def fit_gate(table: PairFeatures, gate: GateConfig, transform: Float[Tensor, "k k"], *, seed: int) -> Gate:
    """Bradley-Terry on the gated scores; AdamW, the learning rate falls along a cosine.

    Args:
        table: pairs.
        gate: settings.
        transform: T.
        seed: of weights, order and dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "gate"))
        network = Gate(table.prompts.shape[1], table.chosen.shape[1], width=gate.width, dropout=gate.dropout)
        optimizer = torch.optim.AdamW(network.parameters(), lr=gate.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, gate.steps)
        size = min(gate.pairs_per_step, len(table.prompts))
        for _ in range(gate.steps):
            rows = torch.randperm(len(table.prompts))[:size]
            loss = bradley_terry(*_scores(network, table.select(rows), transform)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def _scores(network: Gate, table: PairFeatures, transform: Tensor) -> tuple[Tensor, Tensor]:
    gates = network(table.prompts)
    return gated_score(table.chosen, gates, transform), gated_score(table.rejected, gates, transform)


@torch.no_grad()
def _figures(network: Gate, table: PairFeatures, transform: Tensor) -> dict[str, float]:
    chosen, rejected = _scores(network, table, transform)
    plain = ((table.chosen - table.rejected) @ transform).mean(dim=1)
    return {
        "gate/loss": float(bradley_terry(chosen, rejected).mean()),
        "gate/accuracy": float(correct(chosen - rejected).mean()),
        "gate/accuracy_equal_weights": float(correct(plain).mean()),
    }
