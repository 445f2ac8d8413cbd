"""Muon in float32: momentum whose singular values are all made about 1.

torch's own works in bfloat16, which a processor without bfloat16 units multiplies some twenty times more slowly; here
it took two thirds of a step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the quintic a x + b x^3 + c x^5, which moves singular values in (0, 1] towards 1."""


def orthogonalised(matrix: Float[Tensor, "r c"], steps: int = 4) -> Float[Tensor, "r c"]:
    """The nearest matrix with singular values of about 1, by Newton-Schulz iteration.

        X_0 = M / ||M||_F,    X_{k+1} = a X_k + (b A + c A A) X_k,    A = X_k X_k^T

    Args:
        matrix: M.
        steps: iterations; more bring small singular values up.

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """W <- W - lr 0.2 sqrt(max(r, c)) orthogonalised(g + m M),    M <- m M + g.

    The factor gives the update the root mean square that AdamW's has, so that learning rates compare.

    Args:
        weights: matrices.
        lr: learning rate.
        momentum: m.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.mul_(group["momentum"]).add_(weight.grad)
                update = orthogonalised(weight.grad + group["momentum"] * momentum)
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)
