"""One reward column at a time: `<name>(values [n], group_ids [n], **options) -> [n]`. Pure.

Shared by all of them:

* NaN (not scored) stays NaN and takes part in no statistic; nothing passes from one group to another unless the scope
  is the batch.
* Computed in float64, returned in the dtype of `values`; differentiable almost everywhere, NaN rows without effect on
  the gradient of the others.
* `group_ids` is always the second argument, also where a transform does not look at groups, so that they form a list.

| name | formula | range | keeps the order |
|---|---|---|---|
| `identity` | r | any | yes |
| `affine` | scale r + shift | any | yes, turned round by a negative scale |
| `zscore` | (r - mean) / (std + eps) | any | yes, in its scope |
| `robust_zscore` | (r - median) / (1.4826 MAD) | any | yes, in its scope |
| `minmax` | (r - low) / (high - low) | [0, 1] | yes, in its scope |
| `rank` | (rank - 1/2) / n | (0, 1) | yes, in its scope |
| `clip` | min(max(r, low), high) | | weakly |
| `tanh` | tanh((r - center) / scale) | (-1, 1) | yes |
| `threshold` | 1 if r >= t else 0 | {0, 1} | weakly |
| `log_prob` | log(min(max(r, eps), 1)) | [log eps, 0] | weakly |
| `lsc` | log sigmoid((r - reference) / scale) | (-inf, 0] | yes, given the reference |
| `par` | mean_m sigmoid((r - reference_m) / scale) | (0, 1) | yes, given the references |
| `reference_quantile` | share of references below r, ties one half | [0, 1] | weakly, given the references |
| `length_penalty` | r - c max(0, length - free) | any | no |
| `impute` | r, or the group's mean where r is missing | any | yes |
| `gate` | r where another reward is good enough, else a floor | any | no |

Examples:
    >>> import torch
    >>> zscore(torch.tensor([1.0, 3.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1]), unbiased=False, eps=0.0)
    tensor([-1.,  1.,  0.,  0.])
"""

from align.shaping.transforms.normalise import minmax, rank, robust_zscore, zscore
from align.shaping.transforms.pointwise import affine, clip, identity, log_prob, tanh, threshold
from align.shaping.transforms.reference import canonical_reference, lsc, par, quantile_reference, reference_quantile
from align.shaping.transforms.rows import gate, impute, length_penalty

__all__ = [
    "affine",
    "canonical_reference",
    "clip",
    "gate",
    "identity",
    "impute",
    "length_penalty",
    "log_prob",
    "lsc",
    "minmax",
    "par",
    "quantile_reference",
    "rank",
    "reference_quantile",
    "robust_zscore",
    "tanh",
    "threshold",
    "zscore",
]
