"""What methods on a denoising chain add to the metrics of an update."""

from __future__ import annotations

from align.report.metrics.metric import Metric

CHAIN = (
    Metric(
        name="log_prob_mismatch",
        title="Mismatch of rollout and update",
        formula=(
            "mean over samples and trained steps of |log-probability recomputed in the first update - stored by the "
            "rollout|, the weights being the same"
        ),
        meaning=(
            "Rounding between rollout and update: other batch sizes, half precision, compiled passes. The first "
            "update's ratio is exactly 1 all the same; later ones carry this error."
        ),
        healthy="0 to 1e-6 in float32; in half precision well below `algorithm.clip_range`.",
        remedy=(
            "As large as the clip range: use equal `rollout.batch_size` and `training.micro_batch_size`, float16 "
            "rather than bfloat16, or one update per rollout."
        ),
    ),
    Metric(
        name="clip_ratio/high",
        title="Share above the clip",
        formula="share of ratios above 1 + clip_range",
        meaning="Steps that have become likelier than the clip rewards.",
        healthy="As often as `clip_ratio/low`.",
        remedy="See `clip_ratio`.",
    ),
    Metric(
        name="clip_ratio/low",
        title="Share below the clip",
        formula="share of ratios below 1 - clip_range",
        meaning="Steps that have become less likely than the clip rewards.",
        healthy="As often as `clip_ratio/high`; a mean log-ratio is below 0 by nature, so a little more often.",
        remedy="Much more often than `clip_ratio/high`: fewer updates per rollout, or `algorithm.guard`.",
    ),
    Metric(
        name="approx_kl",
        title="Distance to the policy that sampled",
        formula="mean of (log ratio)^2 / 2, in nats per latent element",
        meaning="How far the updates of one rollout have carried the policy.",
        healthy="0 with one update per rollout; of the size of clip_range^2 otherwise.",
        remedy="Climbing: fewer updates per rollout or a smaller learning rate.",
    ),
    Metric(
        name="first_trained_step",
        title="First trained step",
        formula="number of the first step of the denoising chain that is trained, 0 = from pure noise",
        meaning="Where the window is.",
        healthy="0, or moving as `algorithm.steps` says.",
        remedy="Change `algorithm.steps`.",
    ),
)
