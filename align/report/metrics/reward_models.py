"""Metrics of reward models: errors of ratings, agreement with raters, calibration of pairs."""

from __future__ import annotations

from align.report.metrics.metric import Metric

REWARD_MODELS = (
    Metric(
        name="mse/<attribute>",
        title="Squared error of an attribute",
        formula="mean over the update's labels of it of (predicted - label)^2, in label units",
        meaning="How far predictions are from the ratings; answers without a rating have no part in it.",
        healthy="Falls below the variance of the labels, which predicting their mean would have.",
        remedy="Stays there: the attribute cannot be read from the text, or the learning rate is too low.",
    ),
    Metric(
        name="unexplained_variance",
        title="Variance of the labels that is left",
        formula="mean over attributes of mean squared error / variance of the training labels",
        meaning="1 is what predicting each attribute's mean would leave, 0 is perfect.",
        healthy="Falls below 1. Human ratings are noisy: it does not come near 0.",
        remedy="Above 1 after the first steps: lower the learning rate.",
    ),
    Metric(
        name="answers_per_second",
        title="Speed",
        formula="answers of a step over all processes / time/step",
        meaning="How fast the run learns from its data.",
        healthy="Level.",
        remedy="See the table of times.",
    ),
    Metric(
        name="eval/agreement",
        title="Held-out agreement",
        formula="share of pairs ordered as annotated, ties half; of ratings: of answers to one prompt, all attributes",
        meaning="What a reward is used for: telling the better answer. With annotator rates, the share that agrees.",
        healthy="Rises above 0.5; what people disagree about is a ceiling.",
        remedy="Falls while training accuracy rises: stop earlier, or fewer passes over the data (one is usual).",
    ),
    Metric(
        name="eval/agreement/<attribute>",
        title="Held-out agreement on an attribute",
        formula="as `eval/agreement`, pairs of answers with different labels of it",
        meaning="Which attributes the model can tell.",
        healthy="Above 0.5.",
        remedy="Near 0.5: do not steer by this attribute.",
    ),
    Metric(
        name="eval/calibration_error",
        title="Held-out calibration error",
        formula="sum_b n_b / n |accuracy_b - mean confidence_b|, confidence sigma(|margin|), equal bins of [0.5, 1]",
        meaning="Whether margins mean what they say: sigma(margin) as a probability.",
        healthy="Below 0.05 with some hundred pairs a bin; `reward_report.md` has the table.",
        remedy="Accuracy below confidence: stop earlier, or `algorithm.label_smoothing`.",
    ),
    Metric(
        name="eval/spearman/<attribute>",
        title="Held-out rank correlation",
        formula="Spearman of predictions and labels over all held-out answers",
        meaning="Whether the order over all prompts is right; a scale or an offset plays no part.",
        healthy="Rises.",
        remedy="High while `eval/agreement` is near 0.5: it knows prompts, not answers.",
    ),
    Metric(
        name="eval/mse/<attribute>",
        title="Held-out squared error",
        formula="as `mse/<attribute>`, over the held-out answers",
        meaning="Always the same answers, so that steps can be compared.",
        healthy="Falls.",
        remedy="Rises while that of training falls: stop earlier.",
    ),
    Metric(
        name="eval/unexplained_variance",
        title="Held-out variance that is left",
        formula="as in training, with the variance of the held-out labels",
        meaning="1 is what predicting the mean would leave.",
        healthy="Falls below 1.",
        remedy="As `eval/mse/<attribute>`.",
    ),
    Metric(
        name="eval/gate/<name>",
        title="The gate on pairs laid aside",
        formula="Bradley-Terry loss and accuracy of the gated score; `accuracy_equal_weights` without a gate",
        meaning="Whether weighing the heads by the prompt is better than their mean.",
        healthy="`accuracy` above `accuracy_equal_weights`.",
        remedy="Below: use the heads, or fewer `algorithm.gate.steps`.",
    ),
)
