"""Metrics of methods that learn from teacher records: DCKD and ADPA."""

from __future__ import annotations

from align.report.metrics.metric import Metric

TEACHERS = (
    Metric(
        name="teacher/kl_chosen",
        title="Divergence from the teacher on chosen answers",
        formula="mean over chosen tokens of KL(pi_teacher || pi), nats, over the kept entries and the rest",
        meaning="How far the student is from the aligned teacher where the preferred answers go.",
        healthy="Falls; it ends above 0, since a smaller student cannot follow everywhere.",
        remedy="Level: raise the learning rate or `algorithm.alpha`. Rises: the supervised term pulls elsewhere.",
    ),
    Metric(
        name="teacher/kl_rejected",
        title="Divergence from the teacher on rejected answers",
        formula="the same over the tokens of the rejected answers",
        meaning="Whether the student learns what the teacher would say in the middle of a bad answer.",
        healthy="Falls like `teacher/kl_chosen`.",
        remedy="Level: raise `algorithm.rejected_weight`.",
    ),
    Metric(
        name="teacher/advantage",
        title="Expected advantage",
        formula="mean over the tokens of the student's answers of sum_v pi(v) A(v) over the kept entries",
        meaning="How much more the aligned teacher likes the student's next token than its reference does.",
        healthy="Rises slowly.",
        remedy=(
            "Rises fast while `nll_loss` rises: the student runs after single tokens; lower `algorithm.gamma` (above 3 "
            "it over-optimises) or set a clip. Level: see in the records' summary whether the teachers differ at all."
        ),
    ),
)
