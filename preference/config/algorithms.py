"""All methods. One dataclass each, with the settings that it uses and no others. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from align.config.numbers import NonNegativeFloat, PositiveFloat, Share
from preference.config.losses import LOSS_OPTIONS, LossKind
from preference.config.teacher import AdpaConfig, DckdConfig

LabelSmoothing = Annotated[float, Field(ge=0, le=0.5)]
"""Share of the labels that are taken to be wrong."""
SftMode = Literal["token_mean", "seq_mean_token_mean"]
"""How the supervised term is averaged: over all chosen tokens of an update, or first within each answer."""


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """DPO and its family of losses. arXiv:2305.18290. A setting that the chosen loss would ignore is refused."""

    kind: Literal["dpo"] = "dpo"
    """Selects this method."""
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference: a larger beta, a smaller step away from it."""
    loss: LossKind | dict[LossKind, PositiveFloat] = "sigmoid"
    """The loss of a pair, or a weighted mix such as `{sigmoid: 0.8, bco_pair: 0.2}`."""
    label_smoothing: LabelSmoothing = 0.0
    """Share of the pairs whose order is taken to be wrong."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    """Divergence from the reference that the implied reward stands for. arXiv:2309.16240."""
    alpha: float | None = None
    """Of `divergence: alpha` (`null`: 0.5); 1 is the reverse KL, 0 the forward KL."""
    reference_weight: NonNegativeFloat = 1.0
    """gamma of DPO^gamma, arXiv:2405.19534: 1 is DPO, 0 needs no reference."""
    ipo_average: bool = True
    """`ipo` with log-ratios averaged over tokens, as its authors do; false: summed, as the paper prints."""
    ld_alpha: Share = 1.0
    """LD-DPO, arXiv:2409.06411: weight of the tokens that one answer has more than the other; 1 switches it off."""
    wpo: bool = False
    """WPO, arXiv:2406.11827: weigh each pair by how likely it is under the policy, at most 1."""
    discopop_temperature: PositiveFloat | None = None
    """tau of `discopop` (`null`: 0.05)."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of the negative log-likelihood of the chosen answers, added to the loss (RPO's alpha); 0 = none."""
    sft_mode: SftMode = "token_mean"
    """How that term is averaged: TRL's `token_mean`, or `seq_mean_token_mean` of RPO's paper."""

    def mix(self) -> Mapping[str, float]:
        """Losses and their weights."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else {name: self.loss[name] for name in self.loss}

    def reads_lengths(self) -> bool:
        """Whether log-ratios are divided by the number of tokens."""
        known = [(kind, LOSS_OPTIONS[kind].lengths) for kind in self.mix()]
        return any(lengths == "required" or (kind == "ipo" and self.ipo_average) for kind, lengths in known)

    def reads_reference(self) -> bool:
        """Whether the reference's log-probabilities are needed."""
        return self.reference_weight > 0


@dataclass(frozen=True, kw_only=True)
class SimpoConfig:
    """SimPO: no reference, log-probabilities averaged over tokens, a margin. arXiv:2405.14734."""

    kind: Literal["simpo"] = "simpo"
    """Selects this method."""
    beta: PositiveFloat = 2.0
    """Scale of the reward; 2 to 10, which is 20 to 1000 times that of DPO."""
    gamma_beta_ratio: NonNegativeFloat | None = None
    """Margin in nats a token, gamma / beta of the authors' code. Without either: 0.5."""
    gamma: NonNegativeFloat | None = None
    """The margin itself, as in the paper (TRL's `simpo_gamma`). Give one of the two."""
    loss: Literal["sigmoid", "hinge"] = "sigmoid"
    """The loss of a pair."""
    label_smoothing: LabelSmoothing = 0.0
    """Share of the pairs whose order is taken to be wrong."""
    alpha: float = 0.0
    """AlphaPO, arXiv:2501.03884: shape of the reward; 0 is SimPO."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of the negative log-likelihood of the chosen answers, added to the loss (TRL's `cpo_alpha`); 0 = none."""
    sft_mode: SftMode = "token_mean"
    """How that term is averaged: `token_mean` of the authors' code, or first within each answer."""

    def margin(self) -> dict[str, float]:
        """The margin as an argument of `preference.losses.simpo`."""
        if self.gamma is not None:
            return {"gamma": self.gamma}
        return {"gamma_beta_ratio": 0.5 if self.gamma_beta_ratio is None else self.gamma_beta_ratio}

    def reads_reference(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Supervised fine-tuning on single answers, or on the chosen answers of pairs: prompts are read, never trained."""

    kind: Literal["sft"] = "sft"
    """Selects this method."""
    mode: SftMode = "token_mean"
    """How the loss is averaged: over all tokens of an update, as TRL does, or first within each answer."""

    def reads_reference(self) -> bool:
        """Never."""
        return False


Algorithm = Annotated[DpoConfig | SimpoConfig | DckdConfig | AdpaConfig | SftConfig, Field(discriminator="kind")]
SINGLE_ANSWERS = (SftConfig,)
"""Methods whose rows are a prompt with one answer, not a pair."""
