"""Every logged metric: what it is, when it is healthy, what to do when it is not. The one table.

The report page takes its sentences from here and docs/metrics.md is printed from here:

    python -m align.report.metrics > docs/metrics.md
"""

from __future__ import annotations

from align.report.metrics.adapter import ADAPTER
from align.report.metrics.chain import CHAIN
from align.report.metrics.dpa import DPA
from align.report.metrics.forward import FORWARD
from align.report.metrics.metric import Metric
from align.report.metrics.others import HELDOUT, TIME
from align.report.metrics.preference import HELDOUT_PAIRS, LOG_PROBS, RANKING, SPEED
from align.report.metrics.reward_models import REWARD_MODELS
from align.report.metrics.rewards import REWARD, SIGNAL
from align.report.metrics.teachers import TEACHERS
from align.report.metrics.updates import UPDATE

GROUPS: dict[str, tuple[Metric, ...]] = {
    "Reward": REWARD,
    "Advantages": SIGNAL,
    "Update": UPDATE,
    "Update, methods on a denoising chain": CHAIN,
    "Update, methods on final pictures": FORWARD,
    "Language models: log-probabilities": LOG_PROBS,
    "Language models: ranking of pairs": RANKING,
    "Language models: held-out pairs": HELDOUT_PAIRS,
    "Language models: teachers": TEACHERS,
    "Reward models": REWARD_MODELS,
    "Directional Preference Alignment": DPA,
    "Preference adapter": ADAPTER,
    "Held-out evaluation": HELDOUT,
    "Time": (*TIME, *SPEED),
}


def describe(name: str) -> Metric | None:
    """The table's entry for a logged name; an exact name wins over a family, None if there is neither."""
    entries = [metric for group in GROUPS.values() for metric in group]
    exact = next((metric for metric in entries if metric.name == name), None)
    return exact or next((metric for metric in entries if metric.matches(name)), None)


def markdown() -> str:
    """The page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        (
            "Printed from `align/report/metrics/` by `python -m align.report.metrics > docs/metrics.md`; edit "
            "the tables there."
        ),
        "",
        (
            "Every metric is one number per step in `metrics.jsonl` and in each tracker. Means are over all "
            "samples of all"
        ),
        "processes. Names follow TRL where TRL has one.",
    ]
    for title, metrics in GROUPS.items():
        lines += ["", f"## {title}"]
        for metric in metrics:
            lines += [
                "",
                f"### `{metric.name}`",
                "",
                metric.meaning,
                "",
                f"* **Formula:** {metric.formula}",
                f"* **Healthy:** {metric.healthy}",
                f"* **Otherwise:** {metric.remedy}",
            ]
    return "\n".join(lines) + "\n"
