"""Losses of tokens or denoising steps to one number, the same under any sharding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from align.objectives.units import check_same_shape, choose


def aggregate(
    per_token: Float[Tensor, "n t"],
    mask: Real[Tensor, "n t"] | Bool[Tensor, "n t"],
    mode: str,
    *,
    token_count: int | None = None,
    sequence_count: int | None = None,
    max_length: int | None = None,
    world: int = 1,
) -> Float[Tensor, ""]:
    """Losses of tokens (or denoising steps) to one number.

        token_mean               W * sum(l m) / n_tok                             DAPO
        seq_mean_token_mean      W * sum_i [ sum_t(l m) / sum_t m ] / n_seq       original GRPO
        seq_mean_token_sum       W * sum_i sum_t(l m) / n_seq
        seq_mean_token_sum_norm  the previous / C                                 Dr. GRPO
        token_sum                W * sum(l m)

    The counts are those of the whole optimiser update: all micro-batches of all W processes. Then W processes whose
    gradients are averaged, with any micro-batching, give the gradient of one process with all the data. A sequence
    without a trained token contributes 0 and is not counted.

    Args:
        per_token: finite at masked positions, too.
        mask: not 0 where a position is trained.
        mode: one of the five above.
        token_count: n_tok; None = of this tensor.
        sequence_count: n_seq, sequences with a trained token; None = of this tensor.
        max_length: C, a constant of the whole run (the largest completion length), never the padded width of a batch.
        world: W, processes whose gradients are averaged.

    Raises:
        ValueError: shapes that disagree, no trained position and no counts of the whole update, an unknown mode.
    """
    check_same_shape(per_token=per_token, mask=mask)
    trained = mask != 0
    if token_count is None and sequence_count is None and not trained.any():
        raise ValueError(
            "`mask` has no position that is trained, so there is no mean over them. A part without any is fine if "
            "`token_count` or `sequence_count` says how many the whole update has."
        )
    lengths = trained.sum(dim=1)
    sums = torch.where(trained, per_token, 0.0).sum(dim=1)
    tokens = int(lengths.sum()) if token_count is None else token_count
    sequences = int((lengths > 0).sum()) if sequence_count is None else sequence_count

    def norm() -> Tensor:
        if max_length is None:
            raise ValueError(
                "`seq_mean_token_sum_norm` needs `max_length`, a constant of the run. The padded width of a batch "
                "changes from batch to batch: pass the largest completion length."
            )
        return sums.sum() / (max(sequences, 1) * max_length)

    modes: dict[str, Callable[[], Tensor]] = {
        "token_mean": lambda: sums.sum() / max(tokens, 1),
        "seq_mean_token_mean": lambda: (sums / lengths.clamp(min=1)).sum() / max(sequences, 1),
        "seq_mean_token_sum": lambda: sums.sum() / max(sequences, 1),
        "seq_mean_token_sum_norm": norm,
        "token_sum": sums.sum,
    }
    return world * choose("aggregation mode", mode, modes)()
