"""Metrics of a preference adapter's run."""

from __future__ import annotations

from align.report.metrics.metric import Metric

ADAPTER = (
    Metric(
        name="eval/kl",
        title="Held-out KL of the adapter",
        formula="mean over held-out prompts of KL(wanted weights || the adapter's), nats",
        meaning="How far the inferred weights are from the wanted ones, on prompts that were never learnt.",
        healthy="Falls below `eval/constant_kl` and stays there.",
        remedy=(
            "Never below: the prompts carry no signal; use constant weights. Falling and rising again: it learns the "
            "rows by heart; more rows, a smaller `head.hidden_size`, or more weight decay."
        ),
    ),
    Metric(
        name="eval/constant_kl",
        title="Held-out KL of constant weights",
        formula="the same, of the mean of the training targets for every prompt alike, nats",
        meaning="What an adapter must beat to be worth having.",
        healthy="Constant; well above 0, or all prompts want the same weights.",
        remedy="Near 0: use fixed weights. Large with one-hot targets: raise `target.temperature`.",
    ),
    Metric(
        name="eval/best_kl",
        title="Best held-out KL so far",
        formula="the smallest `eval/kl`; its weights are the ones that are saved",
        meaning="What the run is going to keep. It was chosen on these rows, so it flatters a little.",
        healthy="Falls.",
        remedy="As `eval/kl`.",
    ),
)
