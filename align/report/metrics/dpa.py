"""Metrics of Directional Preference Alignment: what a round kept, whether the policy follows its direction."""

from __future__ import annotations

from align.report.metrics.metric import Metric

DPA = (
    Metric(
        name="dpa/round",
        title="Round",
        formula="number of the round that the step belongs to",
        meaning="Each round samples anew with the policy as it is and trains on what it kept.",
        healthy="Counts up.",
        remedy="Stays: `training.steps` over `algorithm.rounds` are the steps of a round.",
    ),
    Metric(
        name="dpa/kept",
        title="Prompts of which a pair was kept",
        formula="kept pairs / (prompts x directions) of the round",
        meaning="Where all answers to a prompt score alike along its direction, there is nothing to choose.",
        healthy="Above 0.8.",
        remedy="Raise `algorithm.samples` or the temperature; lower `algorithm.min_margin`.",
    ),
    Metric(
        name="dpa/margin",
        title="Best minus worst answer",
        formula="mean over kept pairs of the difference of their scores along the direction, in deviations",
        meaning="How much there is to choose from.",
        healthy="About 2 with 8 samples; it shrinks as the policy follows its directions.",
        remedy="Near 0: answers hardly differ; raise the temperature.",
    ),
    Metric(
        name="dpa/score_chosen",
        title="Score of the kept answers",
        formula="mean over kept pairs of v . C r of the best answer, in deviations of the base model's answers",
        meaning="What the policy is taught in this round.",
        healthy="Rises from round to round.",
        remedy="Falls: the learning rate is too high, or answers have become of one kind (look at dpa/margin).",
    ),
    Metric(
        name="dpa/characters_chosen",
        title="Length of the kept answers",
        formula="mean number of characters of the best answers",
        meaning="Shows whether length decides what is kept.",
        healthy="As the objectives ask.",
        remedy="Grows although nobody asked: a reward pays for length; `align audit` tells which.",
    ),
    Metric(
        name="directions/<class>/<name>",
        title="One reward under one direction",
        formula="mean of that reward over the step's samples whose direction is nearest to the shown one",
        meaning="Pictures: what the directions of a step bring, on training prompts.",
        healthy="A reward is higher where it is asked for.",
        remedy="Alike everywhere: the policy does not follow yet; look at `eval/control/<objective>`.",
    ),
    Metric(
        name="eval/control/<objective>",
        title="Control of an objective",
        formula="Spearman's rank correlation, over the shown directions, of its asked component and its mean",
        meaning="1: asking for more of it always brings more of it. 0: among others, the same whatever is asked.",
        healthy="Rises towards 1.",
        remedy="Stays low: more rounds; a wider range of directions; objectives that hardly vary cannot be steered.",
    ),
    Metric(
        name="eval/control/violated_pairs",
        title="Pairs of directions in the wrong order",
        formula="share of pairs of directions with (v - v') . (r(v) - r(v')) < 0",
        meaning="0 for a policy that is best along each direction.",
        healthy="Falls towards 0.",
        remedy="As for the control of an objective.",
    ),
    Metric(
        name="eval/control/hypervolume",
        title="Hypervolume over the directions",
        formula="volume between the mean objective vectors and a fixed reference, in deviations of the base model",
        meaning="How much of the trade-off the one policy covers. Comparable only for one reference and scale.",
        healthy="Rises.",
        remedy="Falls while control rises: the policy gives up one objective more than it wins the others.",
    ),
)
