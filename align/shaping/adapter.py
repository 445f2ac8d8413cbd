"""Preference Orchestrator: weights of the objectives, inferred from the prompt. Liu et al., arXiv:2511.10656.

Reconstruction: no official code was found and the paper's text was not at hand. Known at second hand are the target
(softmax of the preferred response's reward scores, T = 0.1), the loss (KL) and the use (r = sum_k w_k(x) r_k). Ours:
the head's shape, the normaliser before the softmax, the direction of the KL (target to prediction, the usual one) and
the options below.

    target      w*(x) = softmax(rho / T),   rho_k = N_k(r_k(x, y+))
    adapter     w(x) = softmax(W2 GELU(W1 LayerNorm(h) + b1) + b2),   h: embedding of the prompt
    loss        mean over prompts of KL(w* || w);     dL/dz = (w - w*) / B

The input is the prompt and never the answer: all samples of a prompt share their weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from align.shaping.normaliser import Normaliser

TINY = torch.finfo(torch.float32).tiny


class PreferenceAdapter(nn.Module):
    """Prompt embedding to weights on the simplex. Untrained, it gives equal weights: the last layer starts at zero.

    Args:
        embedding_size: of the prompt embedding (masked mean of the last hidden state; pooled text embedding of an
            image model).
        objectives: number of weights.
        hidden_size: of the one hidden layer.
        temperature: of the output softmax, > 0; 1 = none.
    """

    def __init__(self, embedding_size: int, objectives: int, hidden_size: int = 256, temperature: float = 1.0) -> None:
        super().__init__()
        if min(embedding_size, objectives, hidden_size) < 1 or not temperature > 0:
            raise ValueError(
                "expected sizes of at least 1 and a temperature above 0, found "
                f"{embedding_size}, {objectives}, {hidden_size} and {temperature}."
            )
        self.temperature = temperature
        self.norm = nn.LayerNorm(embedding_size)
        self.hidden = nn.Linear(embedding_size, hidden_size)
        self.out = nn.Linear(hidden_size, objectives)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def logits(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits before the temperature."""
        return self.out(nn.functional.gelu(self.hidden(self.norm(embedding))))

    def log_weights(
        self, embedding: Float[Tensor, "b d"], available: Bool[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b k"]:
        """Log of the weights, float32; -inf for objectives that are not available."""
        logits = self.logits(embedding).float() / self.temperature
        if available is not None:
            _check_available(available)
            logits = logits.masked_fill(~available, float("-inf"))
        return logits.log_softmax(dim=-1)

    def forward(
        self, embedding: Float[Tensor, "b d"], available: Bool[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b k"]:
        """Weights >= 0 that sum to 1 over the available objectives."""
        return self.log_weights(embedding, available).exp()


def pro_targets(
    rewards: Float[Tensor, "b k"],
    temperature: float = 0.1,
    *,
    rejected: Float[Tensor, "b k"] | None = None,
    entropy_floor: float = 0.0,
) -> Float[Tensor, "b k"]:
    """Weights that the adapter shall learn.

        w* = softmax(rho / T)                        rho: normalised scores of the preferred response
        w* = softmax((rho+ - rho-) / T)              with `rejected`: what the annotators traded off
        w* <- (1 - e) w* + e / k                     with an entropy floor e

    Args:
        rewards: normalised scores of the preferred responses (`normalised`); NaN = objective not available.
        temperature: T > 0, 0.1 in the paper. Raw scores of different units give nearly one-hot targets.
        rejected: scores of the rejected responses, normalised alike. For a harmful prompt the preferred refusal scores
            low on harmlessness in absolute terms; the difference asks for more of it, the height for less.
        entropy_floor: share of equal weights mixed in, in [0, 1].

    Returns:
        float32, rows sum to 1; 0 where not available.

    Raises:
        ValueError: a row without an objective, a temperature not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0, found {temperature}.")
    if not 0 <= entropy_floor <= 1:
        raise ValueError(f"`entropy_floor` must be between 0 and 1, found {entropy_floor}.")
    scores = rewards.double() if rejected is None else rewards.double() - rejected.double()
    available = ~scores.isnan()
    _check_available(available)
    target = (scores / temperature).masked_fill(~available, float("-inf")).softmax(dim=-1)
    equal = available.double() / available.sum(dim=-1, keepdim=True)
    return ((1 - entropy_floor) * target + entropy_floor * equal).float()


def pro_loss(weights: Float[Tensor, "b k"], targets: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean over prompts of KL(targets || weights), in nats.

        L = 1/B sum_i sum_k w*_ik (log w*_ik - log w_ik),     0 log 0 = 0

    Args:
        weights: the adapter's, rows sum to 1.
        targets: `pro_targets`; no gradient flows into them.

    Returns:
        >= 0, and 0 only where they agree. The mean is over rows, not over rows and objectives.
    """
    return pro_loss_of_logs(weights.float().clamp(min=TINY).log(), targets)


def pro_loss_of_logs(log_weights: Float[Tensor, "b k"], targets: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """`pro_loss` from `PreferenceAdapter.log_weights`: exact for weights too small for float32."""
    return divergences(log_weights, targets).mean()


def divergences(log_weights: Float[Tensor, "b k"], targets: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """KL(targets || weights) of each prompt, in nats; `pro_loss_of_logs` is their mean."""
    targets = targets.detach().float()
    cross = torch.where(targets > 0, targets * torch.where(targets > 0, log_weights, 0.0), 0.0)
    return (torch.special.xlogy(targets, targets) - cross).sum(dim=-1)


def normalised(
    rewards: Float[Tensor, "n k"], method: Literal["none", "zscore", "minmax", "rank"] = "minmax"
) -> Float[Tensor, "n k"]:
    """Scores of the training set on a common scale, each objective by itself: `Normaliser`, fitted to these rows.

    Args:
        rewards: one row per preferred response; NaN = not scored.
        method: `minmax` is the default because at T = 0.1 raw or z-scored inputs give nearly one-hot targets.
    """
    return Normaliser.fitted(rewards, method)(rewards)


def anchored(weights: Float[Tensor, "b k"], user: Float[Tensor, "k"], share: float) -> Float[Tensor, "b k"]:
    """The user's weights mixed in: (1 - a) w + a u with u divided by its sum; a = 1 is exactly the user's."""
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be between 0 and 1, found {share}.")
    return (1 - share) * weights + share * (user / user.sum()).expand_as(weights)


def calibration(targets: Float[Tensor, "b k"]) -> dict[str, float]:
    """What the targets look like: mean entropy in nats, share of nearly one-hot rows, and the KL of a constant weight
    vector, which the adapter must beat or the prompts carry no signal."""
    constant = targets.double().mean(dim=0, keepdim=True)
    return {
        "entropy": float(-torch.special.xlogy(targets.double(), targets.double()).sum(dim=1).mean()),
        "frac_one_hot": float((targets.max(dim=1).values > 0.99).double().mean()),
        "constant_kl": float(pro_loss(constant.expand_as(targets), targets)),
    }


def _check_available(available: Tensor) -> None:
    if not available.any(dim=-1).all():
        raise ValueError(f"prompt {int((~available.any(dim=-1)).nonzero()[0])} has no available objective.")
