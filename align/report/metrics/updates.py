"""Metrics of an update: what every method logs, then what single methods add, a table each."""

from __future__ import annotations

from align.report.metrics.metric import Metric

UPDATE = (
    Metric(
        name="loss",
        title="Loss",
        formula="policy_loss + the weighted KL terms",
        meaning=(
            "What is differentiated. Its value says little: on-policy the policy term is minus the mean "
            "advantage, about 0."
        ),
        healthy="Any small number; it need not fall.",
        remedy="Judge the run by reward and held-out reward.",
    ),
    Metric(
        name="policy_loss",
        title="Policy term",
        formula="mean of max(-A * ratio, -A * clip(ratio, 1 - clip, 1 + clip)); without a ratio, the loss before pulls",
        meaning="The part of the loss that carries the reward.",
        healthy="Near 0 with one update per rollout.",
        remedy="Large values come from large ratios: see `ratio_deviation`.",
    ),
    Metric(
        name="matching_error",
        title="Matching error",
        formula="mean over samples, times and latent elements of (output - target)^2; for flow models noise - x0",
        meaning="How well the network still predicts its own pictures, noised again; stored ones for off-line methods.",
        healthy="Stays within some tens of percent of its first value.",
        remedy=(
            "Climbing steadily: the policy leaves the data; raise `kl_beta` or `lagged.kl_beta`, lower the "
            "learning rate."
        ),
    ),
    Metric(
        name="kl",
        title="Distance to the base model",
        formula=(
            "mean (v - v_base)^2 at the same noised picture, before its weight (velocity space, not nats); "
            "`flow_grpo`: between the transitions, as `algorithm.kl_norm` says"
        ),
        meaning="How far the policy has moved from where it began.",
        healthy="Starts at 0 and grows ever more slowly.",
        remedy="Growing faster and faster while held-out rewards stall: reward hacking. Raise `algorithm.kl_beta`.",
    ),
    Metric(
        name="kl_lagged",
        title="Distance to the lagged policy",
        formula="mean (v - v_lagged)^2 at the same noised picture, before its weight",
        meaning="How far the policy moves within a few steps: the trust region.",
        healthy="Much smaller than `kl`, and level.",
        remedy="Spikes: lower the learning rate or raise `algorithm.lagged.kl_beta`.",
    ),
    Metric(
        name="lagged_decay",
        title="Share that the lagged policy keeps",
        formula="of the schedule: a constant, or min(max_decay, per_step * max(step - start, 0))",
        meaning="How slowly the lagged policy follows: 0 is at once.",
        healthy="Rises to `max_decay`, or is constant.",
        remedy="Change `algorithm.lagged` (DiffusionNFT) or `algorithm.lagged.schedule` (AWM).",
    ),
    Metric(
        name="ratio_deviation",
        title="Deviation of the likelihood ratio",
        formula="mean |ratio - 1|",
        meaning="Whether the policy that learns is the policy that sampled.",
        healthy="Exactly 0 in the first update after a rollout; small later.",
        remedy="Not 0 in the first update: rollout and training differ (precision, dropout, guidance scale).",
    ),
    Metric(
        name="clip_ratio",
        title="Clipped share",
        formula="share of ratios outside [1 - clip_range, 1 + clip_range]",
        meaning="How often the trust region acts.",
        healthy="0 with one update per rollout, otherwise below 0.3.",
        remedy="High: fewer updates per rollout or a smaller learning rate.",
    ),
    Metric(
        name="grad_norm",
        title="Gradient norm",
        formula="L2 norm of the gradient of all trained weights before clipping, mean over the step's updates",
        meaning="How large an update wants to be; `optimizer.max_grad_norm` cuts it.",
        healthy="Level, within a factor of ten.",
        remedy=(
            "Always above the clip: the clip sets the step, so lower the learning rate. 0: nothing is learnt, "
            "see `frac_reward_zero_std`."
        ),
    ),
    Metric(
        name="learning_rate",
        title="Learning rate",
        formula="AdamW's learning rate at the step's last update",
        meaning="Warm-up and schedule, as they were applied.",
        healthy="As configured.",
        remedy="Change `optimizer.schedule` or `optimizer.warmup_updates`.",
    ),
    Metric(
        name="skipped_updates",
        title="Skipped updates",
        formula="number of updates of the step that were left out because their gradient was not finite",
        meaning="A guard: one such update would destroy the weights.",
        healthy="0; a few at the start of an fp16 run while its loss scale settles.",
        remedy="Otherwise train in bf16 or float32, or lower the learning rate.",
    ),
    Metric(
        name="checkpoint_failed",
        title="Failed checkpoint",
        formula="1 in the step after one whose checkpoint could not be written",
        meaning="The previous checkpoint is still there and training went on.",
        healthy="Absent.",
        remedy="Free disk space; the next checkpoint is tried as usual.",
    ),
)
