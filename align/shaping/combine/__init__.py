"""Several rewards per sample to one score: `<name>(values [n, k], weights [k] or [n, k], **options) -> [n]`. Pure.

Shared by all of them:

* A column of weight 0 is a metric and never matters, whatever is in it.
* `missing` says what becomes of a sample without one of its rewards: `unscored` (NaN); `renormalise` (judged by the
  others, with the whole weight); `skip` (the others alone). The linear ones start from `unscored`, because raw rewards
  have different units and the sum of the others would not be comparable with its group; the ones that need a common
  scale anyway start from `renormalise`. A sample without any of its rewards is unscored under each.
* Computed in float64, returned in the dtype of `values`.

| name | formula | choose it for |
|---|---|---|
| `weighted_sum` | sum_k w_k u_k | few rewards on a common scale |
| `directional` | v . u, v of length 1, signs allowed | a user's slider |
| `lsc_and` | sum_k w_k log sigmoid((r_k - ref_k) / s_k) | all of them must be good |
| `soft_min` | -tau log sum_k w_k exp(-u_k / tau) | the worst counts |
| `power_mean` | (sum_k w_k u_k^p)^(1/p) | one knob from the total to the worst |
| `nash` | sum_k w_k log(u_k - d_k) | equal relative gains over the base |
| `chebyshev` | -max_k w_k (z_k - u_k) - rho sum_k ... | exploring concave fronts |
| `gated` | weighted sum behind a condition | a hard rule first |
| `lexicographic` | rank by the first, then the next | a strict order of importance |
"""

from align.shaping.combine.linear import directional, gated, lsc_and, weighted_sum
from align.shaping.combine.order import lexicographic
from align.shaping.combine.scalarise import chebyshev, nash, power_mean, soft_min

__all__ = [
    "chebyshev",
    "directional",
    "gated",
    "lexicographic",
    "lsc_and",
    "nash",
    "power_mean",
    "soft_min",
    "weighted_sum",
]
