"""Metrics of methods that train on final pictures, and of pairs."""

from __future__ import annotations

from align.report.metrics.metric import Metric

PAIRS = (
    Metric(
        name="rewards/chosen",
        title="Implicit reward of the better",
        formula=(
            "texts: mean over pairs of beta (log pi - log pi_ref), SimPO: beta log pi / |y|; pictures: of -beta/2 * "
            "(matching error - matching error of the base model)"
        ),
        meaning="How much more the policy thinks of the better answers or pictures than the base model does.",
        healthy="Rises, or falls more slowly than `rewards/rejected`.",
        remedy="Falls fast together with `rewards/rejected`: both are forgotten. Lower learning rate, larger `beta`.",
    ),
    Metric(
        name="rewards/rejected",
        title="Implicit reward of the worse",
        formula="the same of the worse answers or pictures",
        meaning="How much more the policy thinks of the worse ones than the base model does.",
        healthy="Falls below `rewards/chosen`.",
        remedy="As `rewards/chosen`.",
    ),
    Metric(
        name="rewards/margins",
        title="Margin",
        formula="rewards/chosen - rewards/rejected, pair by pair (pictures: at one time and noise)",
        meaning="What the logistic loss sees; 0 before training.",
        healthy="Grows to a few units, more and more slowly.",
        remedy="Tens of units: `beta` or the learning rate is too large, and the loss no longer teaches.",
    ),
    Metric(
        name="rewards/accuracies",
        title="Pairs that are in order",
        formula="share of the pairs (and times) with a margin above 0",
        meaning="How often the policy prefers, more than the base model does, what was preferred.",
        healthy="Rises from 0.5 (exactly 0 before the first update: all margins are 0) to 0.6 ... 0.8.",
        remedy="Stays at 0.5: nothing is learnt, raise the learning rate. Near 1 on stored pairs: overfitting.",
    ),
    Metric(
        name="pairs",
        title="Pairs of the step",
        formula="number of prompts whose best and worst picture differ in score",
        meaning="The other prompts teach nothing in this step (on-line DPO).",
        healthy="Close to `rollout.prompts_per_step`.",
        remedy="Low: a larger group, or a reward with more levels.",
    ),
    Metric(
        name="pairs/score_margin",
        title="Difference in score",
        formula="mean over pairs of score of the best - score of the worst",
        meaning="How clear the preferences are, in the unit of the score (on-line DPO).",
        healthy="Well above the noise of the reward.",
        remedy="Near 0: a larger group, or prompts on which pictures differ more.",
    ),
)

FORWARD = (
    *PAIRS,
    Metric(
        name="nft/positive",
        title="Error of the implicit positive policy",
        formula="mean over samples and times of mean (x0+ - x0)^2 / mean |x0+ - x0| (DiffusionNFT)",
        meaning="How far the good side of the old policy is from the pictures; about a mean absolute error.",
        healthy="Level, near `nft/negative`; equal to it while the trained policy still is the old one.",
        remedy="Both climb: the policy leaves its own pictures. Lower the learning rate, or raise `kl_beta`.",
    ),
    Metric(
        name="nft/negative",
        title="Error of the implicit negative policy",
        formula="the same of x0-",
        meaning="How far the bad side of the old policy is from the pictures (DiffusionNFT).",
        healthy="As `nft/positive`.",
        remedy="Far above it: trained and old policy are far apart. A slower learning rate, or a smaller `max_decay`.",
    ),
    Metric(
        name="effective_share",
        title="Samples that count",
        formula="(sum of the weights)^2 / (samples * sum of their squares)",
        meaning="1 if all samples weigh alike, 1 / samples if one weighs alone (reward-weighted regression).",
        healthy="0.2 to 0.8.",
        remedy="Near 1: nothing is preferred, lower `algorithm.temperature`. Near 0: raise it.",
    ),
    Metric(
        name="unreadable",
        title="Stored rows that could not be read",
        formula="number of rows of the step whose pictures could not be read",
        meaning="They have weight 0; without `algorithm.data.bad_rows: skip` the run stops at the first.",
        healthy="0.",
        remedy="Repair or delete them.",
    ),
)
