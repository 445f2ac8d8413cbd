"""Metrics of rewards and of the signal made from them; every on-line method of both branches has them."""

from __future__ import annotations

from align.report.metrics.metric import Metric

REWARD = (
    Metric(
        name="reward",
        title="Reward",
        formula="mean over the step's samples of sum_k weight_k * reward_k",
        meaning="What the training maximises, on the training prompts and with the rollout's sampler.",
        healthy="Rises, noisily: every step has other prompts.",
        remedy=(
            "Flat for 20 steps: look at `frac_reward_zero_std` and `grad_norm`, then raise the learning rate or "
            "the group size."
        ),
    ),
    Metric(
        name="reward_std",
        title="Spread of the reward",
        formula="standard deviation (n - 1) of the reward within each prompt's group, averaged over samples",
        meaning="How differently the samples of one prompt score: the raw material of every group estimator.",
        healthy="Clearly above 0; falls slowly as the policy becomes sure.",
        remedy=(
            "Near 0: the reward is too coarse, too easy or too hard for these prompts, or the samples have "
            "become alike."
        ),
    ),
    Metric(
        name="rewards/<name>/mean",
        title="One reward",
        formula="mean of that reward over the samples that it scored",
        meaning="Each reward by itself, before weights; metrics of weight 0 are here, too.",
        healthy="The trained ones rise and the others do not fall.",
        remedy="One rises while another falls: the policy trades them. Change the weights, or stop earlier.",
    ),
    Metric(
        name="rewards/<name>/std",
        title="Spread of one reward",
        formula="standard deviation of that reward over the samples that it scored",
        meaning="Says which reward dominates a weighted sum: the one with the largest weight times spread.",
        healthy="Comparable between rewards after their weights.",
        remedy="Rescale by the weights.",
    ),
    Metric(
        name="rewards/<name>/share",
        title="Share of one reward in the score",
        formula="Cov(weight * reward, score) / Var(score) within each group, mean over groups; the shares sum to 1",
        meaning="Which of several rewards the model is really trained on. Only for sums, and only with two or more.",
        healthy="As large as you mean the reward to count.",
        remedy=(
            "Near 0: its weight times its spread is small; z-score each reward in its group (`pipeline.transforms`) or "
            "raise the weight. Negative: it is being sacrificed for the others."
        ),
    ),
    Metric(
        name="rewards/<name>/frac_zero_std",
        title="Groups without a difference in one reward",
        formula="share of the groups with two scored samples or more in which that reward is the same for all",
        meaning="As `frac_reward_zero_std`, for one of several rewards, before any transform.",
        healthy="Below 0.5.",
        remedy="High: that reward teaches little; make it finer, or choose prompts on which it varies.",
    ),
    Metric(
        name="rewards/<name>/frac_unscored",
        title="Gaps of one reward",
        formula="share of the samples for which that reward gave no finite number",
        meaning="What becomes of such a sample is `pipeline.combine.missing`. Only with two or more rewards.",
        healthy="0.",
        remedy="Read the message in the log; the scorer may not apply to some prompts.",
    ),
    Metric(
        name="weights/<name>",
        title="Weight of one reward",
        formula="the weight that this step has used, mean over samples where it depends on the prompt",
        meaning="Fixed, or from a schedule, a constraint or the prompt (`pipeline.weights`); with several rewards.",
        healthy="Fixed ones stay; a constraint's weight settles; a schedule's follows its plan.",
        remedy="A constraint's weight stays at its cap: the constraint cannot be met, lower it or raise the cap.",
    ),
    Metric(
        name="weights/<class>/<name>",
        title="Weight of one reward for one class of prompts",
        formula="the same mean over the samples whose prompt has that class",
        meaning="What each class of prompts is trained on, where weights depend on the prompt and classes differ.",
        healthy="Classes differ in the way that you would explain to a colleague.",
        remedy="One class has nearly all its weight on one reward: its prompts cannot improve in the others.",
    ),
    Metric(
        name="weights/entropy",
        title="Entropy of the weights",
        formula="-sum p log p of the weights divided by their sum, in nats, mean over samples",
        meaning="log(number of rewards) if all count alike, 0 if one counts alone.",
        healthy="Well above 0 for weights that depend on the prompt.",
        remedy="Near 0: the adapter's targets were nearly one-hot; normalise the scores or raise its temperature.",
    ),
    Metric(
        name="frac_reward_zero_std",
        title="Groups without a difference",
        formula="share of the groups with two scored samples or more in which all score the same",
        meaning="These prompts teach nothing in this step: their advantages are exactly zero.",
        healthy="Below 0.3.",
        remedy=(
            "High from the start: larger groups, or a reward with more levels. Rising late: the prompts are "
            "solved, add harder ones."
        ),
    ),
    Metric(
        name="unscored",
        title="Unscored samples",
        formula="number of samples of the step for which a weighted reward gave no finite number",
        meaning="They are left out of every mean and have advantage 0.",
        healthy="0.",
        remedy="Read the message in the log: a reward raised, or returned None, NaN or infinity.",
    ),
)

SIGNAL = (
    Metric(
        name="singletons",
        title="Prompts without a comparison",
        formula="number of groups with fewer scored samples than the estimator needs",
        meaning="Nothing to compare with: what such a sample gets is `pipeline.base.singleton`, 0 by default.",
        healthy="0.",
        remedy="Find out why samples are unscored, or raise `rollout.group_size`.",
    ),
    Metric(
        name="user_groups/worst",
        title="Worst user group",
        formula="smallest mean score of a user group in the step (shaper `user_soft_min`)",
        meaning="Whom the policy serves worst.",
        healthy="Rises, also where the mean of all rises more slowly.",
        remedy="Stays behind: lower `tau` of the shaper, or add prompts of that group.",
    ),
    Metric(
        name="user_groups/largest_weight",
        title="Largest weight of a user group",
        formula="largest factor of a sample's advantage (shaper `user_soft_min`)",
        meaning="How far the step is from training on all groups alike.",
        healthy="1 to 3.",
        remedy="At its cap: `tau` is small against the differences between groups; raise it.",
    ),
    Metric(
        name="advantages/mean_abs",
        title="Size of the advantages",
        formula="mean |A| after clipping",
        meaning="How strongly the step pushes on average.",
        healthy=(
            "0.5 to 1 for estimators that divide by a standard deviation; in the unit of the reward for the others."
        ),
        remedy="Falling to 0: see `frac_reward_zero_std`.",
    ),
    Metric(
        name="advantages/max_abs",
        title="Largest advantage",
        formula="max |A| after clipping",
        meaning="Outliers of the reward.",
        healthy="Below `pipeline.clip`.",
        remedy="Always at the clip: the reward has outliers; rescale it, or let the whole batch's spread divide.",
    ),
    Metric(
        name="advantages/frac_nonzero",
        title="Samples that teach",
        formula="share of advantages that are not 0",
        meaning="The rest of the step only feels the KL terms.",
        healthy="Above 0.7.",
        remedy="See `frac_reward_zero_std`.",
    ),
    Metric(
        name="advantages/frac_clipped",
        title="Clipped advantages",
        formula="share of advantages that `pipeline.clip` has changed",
        meaning="How often the clip acts.",
        healthy="Below 0.02.",
        remedy="High: the reward has outliers; rescale it, or raise the clip.",
    ),
)
