"""Metrics of held-out evaluation and of time."""

from __future__ import annotations

from align.report.metrics.metric import Metric

HELDOUT = (
    Metric(
        name="eval/<name>/mean",
        title="Held-out reward",
        formula="mean of that reward over the held-out prompts and their fixed seeds",
        meaning="The number to believe: prompts that were never trained on, always with the same seeds.",
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
    Metric(
        name="eval/diversity",
        title="Diversity within a prompt",
        formula=(
            "mean over held-out prompts of the mean, over pairs of its pictures, of the root mean squared pixel "
            "difference at 32 x 32, values in [0, 1]"
        ),
        meaning="How different the pictures of one prompt are; sees layout and colour, not meaning.",
        healthy="Falls a little as the policy becomes sure; near 0 one picture is drawn for everything.",
        remedy="Pull harder to the base (`kl_beta`), lower the learning rate, or stop earlier.",
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
