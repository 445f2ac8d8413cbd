"""Every logged metric: what it is, when it is healthy, what to do when it is not. The one table.

The report page takes its sentences from here and docs/metrics.md is printed from here:

    python -m align.report.metrics > docs/metrics.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, or a family of them.

    Attributes:
        name: as logged; `<...>` stands for any name.
        title: a few words for a person.
        formula: how it is computed, in plain text.
        meaning: one sentence.
        healthy: the range or the movement one hopes for.
        remedy: what to do otherwise.
    """

    name: str
    title: str
    formula: str
    meaning: str
    healthy: str
    remedy: str

    def matches(self, name: str) -> bool:
        """Whether a logged name is this metric or of this family."""
        pattern = "".join(
            "[^/]+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]*>)", self.name)
        )
        return re.fullmatch(pattern, name) is not None


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
        formula="the weight of this step, mean over samples where it depends on the prompt",
        meaning="Follows a schedule, a constraint or the prompt (`pipeline.weights`); fixed weights are not logged.",
        healthy="A constraint's weight settles; a schedule's follows its plan.",
        remedy="A constraint's weight stays at its cap: the constraint cannot be met, lower it or raise the cap.",
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
        formula="mean of max(-A * ratio, -A * clip(ratio, 1 - clip, 1 + clip))",
        meaning="The part of the loss that carries the reward.",
        healthy="Near 0 with one update per rollout.",
        remedy="Large values come from large ratios: see `ratio_deviation`.",
    ),
    Metric(
        name="matching_error",
        title="Matching error",
        formula="mean over samples, times and latent elements of (v - (noise - x0))^2",
        meaning="How well the network still predicts the velocity of its own pictures (AWM).",
        healthy="Stays within some tens of percent of its first value.",
        remedy=(
            "Climbing steadily: the policy leaves the data; raise `kl_beta` or `lagged.kl_beta`, lower the "
            "learning rate."
        ),
    ),
    Metric(
        name="kl",
        title="Distance to the base model",
        formula="mean (v - v_base)^2 at the same noised picture, before its weight (velocity space, not nats)",
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
        formula="min(lagged.max_decay, lagged.decay_per_step * step)",
        meaning="How slowly the lagged policy follows: 0 is at once.",
        healthy="Rises to `lagged.max_decay`.",
        remedy="Change `algorithm.lagged`.",
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

HELDOUT = (
    Metric(
        name="eval/<name>/mean",
        title="Held-out reward",
        formula="mean of that reward over the held-out prompts and their fixed seeds",
        meaning="The number to believe: prompts that were never trained on, always from the same noise.",
        healthy="Rises with the training reward.",
        remedy=(
            "Flat or falling while `reward` rises: reward hacking or overfitting. More prompts, more KL, or stop "
            "earlier."
        ),
    ),
    Metric(
        name="eval/<name>/<class>",
        title="Held-out reward of a class of prompts",
        formula="the same mean over the prompts of one class",
        meaning="Where the gain comes from.",
        healthy="No class falls.",
        remedy="A class falls: give it more training prompts.",
    ),
)

TIME = (
    Metric(
        name="time/step",
        title="Time of a step",
        formula="wall-clock seconds of a step on the main process, without evaluation, checkpoints and pictures",
        meaning="What a step costs.",
        healthy="Level.",
        remedy="Growing: a leak, or another program on the machine.",
    ),
    Metric(
        name="time/<stage>",
        title="Time of a stage",
        formula="seconds spent in that stage; time of an inner stage is not counted in the outer one",
        meaning=(
            "encode, noise, rollout, decode, reward, advantage, forward, backward, optimizer, record are parts of a "
            "step; evaluate, checkpoint and pictures are apart from it."
        ),
        healthy="encode + rollout + decode + reward + forward + backward are at least 95 % of the step.",
        remedy=(
            "`reward` large: a slow scorer. `rollout` large: raise `rollout.batch_size`. `forward` large: raise "
            "`training.micro_batch_size`."
        ),
    ),
    Metric(
        name="images_per_second",
        title="Pictures per second",
        formula="samples of the step / time/step",
        meaning="Speed of the whole loop over all processes.",
        healthy="Level.",
        remedy="As `time/step`.",
    ),
)

GROUPS: dict[str, tuple[Metric, ...]] = {
    "Reward": REWARD,
    "Advantages": SIGNAL,
    "Update": UPDATE,
    "Held-out evaluation": HELDOUT,
    "Time": TIME,
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
            "Printed from `align/report/metrics.py` by `python -m align.report.metrics > docs/metrics.md`; edit "
            "the table there."
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


if __name__ == "__main__":
    print(markdown(), end="")
