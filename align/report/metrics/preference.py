"""Metrics of language models on pairs: log-probabilities, how pairs are ranked, what they look like held out."""

from __future__ import annotations

from align.report.metrics.metric import Metric

LOG_PROBS = (
    Metric(
        name="logps/chosen",
        title="Log-probability of the chosen answers",
        formula="mean over pairs of sum_t log pi(y_w,t), nats; the end token is counted",
        meaning="How likely the policy finds the preferred answers.",
        healthy="Level or slowly falling; other pairs in each step make it jump.",
        remedy="See `logps/chosen_change`, which compares with the reference on the same pairs.",
    ),
    Metric(
        name="logps/rejected",
        title="Log-probability of the rejected answers",
        formula="the same of the other answers",
        meaning="How likely the policy finds the answers that were not preferred.",
        healthy="Falls.",
        remedy="As `logps/chosen`.",
    ),
    Metric(
        name="logps/chosen_change",
        title="Change of the chosen answers' log-probability",
        formula="mean over pairs of log pi(y_w) - log pi_ref(y_w), nats",
        meaning="Whether the preferred answers have become likelier; a loss of the difference does not ask for it.",
        healthy="Near 0 or above.",
        remedy=(
            "Far below 0 together with `logps/rejected_change`: probability goes to answers that nobody has judged. "
            "Add `algorithm.sft_weight`, raise `beta`, or lower the learning rate."
        ),
    ),
    Metric(
        name="logps/rejected_change",
        title="Change of the rejected answers' log-probability",
        formula="mean over pairs of log pi(y_l) - log pi_ref(y_l), nats",
        meaning="How far the policy has been pushed from the answers that were not preferred.",
        healthy="Falls, faster than `logps/chosen_change`.",
        remedy="As `logps/chosen_change`.",
    ),
    Metric(
        name="logps/both_falling",
        title="Pairs of which both answers fall",
        formula="share of pairs with both changes below 0 and a margin that has grown",
        meaning="Pairs that look learnt in the margin although the preferred answer has become less likely.",
        healthy="Below 0.5; some are expected of every loss of the difference.",
        remedy="Near 1: as `logps/chosen_change`.",
    ),
    Metric(
        name="lengths/chosen",
        title="Length of the chosen answers",
        formula="mean over pairs of the tokens of y_w",
        meaning="Sums of log-probabilities grow with it: data whose preferred answers are longer teaches length.",
        healthy="Near `lengths/rejected`.",
        remedy="Much longer: `sigmoid_norm`, `ld_alpha` below 1, or SimPO.",
    ),
    Metric(
        name="lengths/rejected",
        title="Length of the rejected answers",
        formula="mean over pairs of the tokens of y_l",
        meaning="See `lengths/chosen`.",
        healthy="Near `lengths/chosen`.",
        remedy="As `lengths/chosen`.",
    ),
    Metric(
        name="nll_loss",
        title="Supervised term",
        formula="mean over the chosen tokens of an update of -log pi (or first within each answer), before its weight",
        meaning="How well the policy predicts the preferred answers.",
        healthy="Falls or stays.",
        remedy="Rises: raise `algorithm.sft_weight`.",
    ),
    Metric(
        name="reference_deviation",
        title="Distance from the reference before the first update",
        formula="mean over answers of |log pi(y) - log pi_ref(y)| / |y|, nats a token, step 1 only",
        meaning="Policy and reference are one model there, so this is rounding; the loss starts at its known value.",
        healthy="Below 1e-4 in float32, 1e-2 in half precision.",
        remedy="More: adapter dropout, another precision, or an adapter that does not start at zero.",
    ),
)

RANKING = (
    Metric(
        name="ranking/accuracy",
        title="Ranking accuracy",
        formula="share of pairs with log pi(y_w) >= log pi(y_l)",
        meaning="Whether the policy itself finds the preferred answer likelier; no reference is involved.",
        healthy="Rises, more slowly than `rewards/accuracies`.",
        remedy="Stays while `rewards/accuracies` is near 1: wrong rankings are hard to turn; see `ranking/difficulty`.",
    ),
    Metric(
        name="ranking/accuracy_normalised",
        title="Ranking accuracy a token",
        formula="share of pairs with log pi(y_w) / |y_w| >= log pi(y_l) / |y_l|",
        meaning="The same without the advantage of short answers; what SimPO trains.",
        healthy="Rises.",
        remedy="As `ranking/accuracy`.",
    ),
    Metric(
        name="ranking/idealised_accuracy",
        title="Idealised ranking accuracy",
        formula=(
            "share of pairs with log pi_ref(y_w) - log pi_ref(y_l) + log(a / (1 - a)) / beta > 0; a: column "
            "`annotator_rate`, or 0.999. Losses with a scale of their own: median over beta 0.01, 0.1, 1, 5, 10"
        ),
        meaning="What the optimum of the loss would reach with this reference and beta.",
        healthy="Near 1.",
        remedy="Low: the reference is too sure of the wrong answers for this beta; lower `beta`, or begin with SFT.",
    ),
    Metric(
        name="ranking/idealised_lowest",
        title="Idealised ranking accuracy, least beta",
        formula="the lowest over those betas",
        meaning="See `ranking/idealised_accuracy`.",
        healthy="As there.",
        remedy="As there.",
    ),
    Metric(
        name="ranking/idealised_highest",
        title="Idealised ranking accuracy, best beta",
        formula="the highest over those betas",
        meaning="See `ranking/idealised_accuracy`.",
        healthy="As there.",
        remedy="As there.",
    ),
    Metric(
        name="ranking/alignment_gap",
        title="Alignment gap",
        formula="idealised minus actual ranking accuracy",
        meaning="How much of what the data asks for has not been learnt; 0.19 to 0.59 in arXiv:2405.19534.",
        healthy="Falls.",
        remedy="Stays: more steps, a smaller `beta`, or on-policy pairs.",
    ),
    Metric(
        name="ranking/difficulty",
        title="Difficulty of the pairs",
        formula="mean over pairs of c = log pi_ref(y_l) - log pi_ref(y_w), nats",
        meaning=(
            "How far the reference is from the annotated order; a pair is in order once its DPO loss is at most "
            "-log sigma(beta c)."
        ),
        healthy="Any level: a property of data and reference.",
        remedy="Tens of nats: such pairs will not be turned by DPO; sort the data by it.",
    ),
)

HELDOUT_PAIRS = (
    Metric(
        name="eval/loss",
        title="Held-out loss",
        formula="the method's loss, mean over the held-out pairs",
        meaning="What the method would pay on pairs that it has not seen.",
        healthy="Falls; its turn upwards marks overfitting.",
        remedy="Rises: fewer steps, a smaller learning rate, more pairs.",
    ),
    Metric(
        name="eval/ranking_accuracy/mean",
        title="Held-out ranking accuracy",
        formula="share of held-out pairs with log pi(y_w) >= log pi(y_l)",
        meaning="Compared pair by pair with the base model, with an interval.",
        healthy="Rises.",
        remedy="As `ranking/accuracy`.",
    ),
    Metric(
        name="eval/ranking_accuracy_normalised/mean",
        title="Held-out ranking accuracy a token",
        formula="the same of log-probabilities over lengths",
        meaning="Compared pair by pair with the base model, with an interval.",
        healthy="Rises.",
        remedy="As `ranking/accuracy_normalised`.",
    ),
    Metric(
        name="eval/likelihood_margin/mean",
        title="Held-out margin of likelihoods",
        formula="mean over held-out pairs of log pi(y_w) - log pi(y_l), nats",
        meaning="How sure the policy is of the order; its gain over the base model is DPO's margin over beta.",
        healthy="Rises.",
        remedy="Flat: nothing is learnt that carries over.",
    ),
    Metric(
        name="eval/chosen_log_prob/mean",
        title="Held-out log-probability of preferred answers",
        formula="mean over held-out pairs of log pi(y_w) / |y_w|, nats a token",
        meaning="Whether preferred answers stay likely.",
        healthy="Level or rising.",
        remedy="Falls: as `logps/chosen_change`.",
    ),
    Metric(
        name="eval/rewards/<name>",
        title="Held-out implicit rewards",
        formula="as `rewards/<name>`, over the held-out pairs",
        meaning="The implicit rewards on pairs that were never trained on.",
        healthy="Follow the training values at a distance.",
        remedy="Stay behind more and more: overfitting.",
    ),
    Metric(
        name="eval/logps/<name>",
        title="Held-out log-probabilities",
        formula="as `logps/<name>`, over the held-out pairs",
        meaning="Always the same pairs, so that steps can be compared.",
        healthy="As in training.",
        remedy="As in training.",
    ),
    Metric(
        name="eval/lengths/<name>",
        title="Held-out lengths",
        formula="as `lengths/<name>`, over the held-out pairs",
        meaning="A property of the data.",
        healthy="Level.",
        remedy="None.",
    ),
    Metric(
        name="eval/ranking/<name>",
        title="Held-out ranking",
        formula="as `ranking/<name>`, over the held-out pairs; `idealised_accuracy_normalised`: of averages",
        meaning="Always the same pairs, so that steps can be compared.",
        healthy="As in training.",
        remedy="As in training.",
    ),
    Metric(
        name="eval/entropy",
        title="Held-out entropy",
        formula="mean over the answers' tokens of -sum_v pi log pi, nats",
        meaning="How sure the policy is of each next token.",
        healthy="Falls a little.",
        remedy="Falls towards 0: the policy collapses; raise `beta`, or stop earlier.",
    ),
)

SPEED = (
    Metric(
        name="pairs_per_second",
        title="Speed",
        formula="pairs of a step over all processes / time/step",
        meaning="How fast the run learns from its data.",
        healthy="Level.",
        remedy="See the table of times.",
    ),
)
