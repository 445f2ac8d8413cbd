"""DCKD and ADPA as the loop sees them, against sums token by token over whole distributions in float64."""

import copy
from dataclasses import replace

import pytest
import torch

from preference.adpa_method import Adpa
from preference.config import AdpaConfig, DckdConfig
from preference.dckd_method import Dckd

from .miniatures import VOCABULARY
from .pair_data import float32, moved, parts_of, policy_of, token_pairs
from .teacher_data import exact, records_of, teachers

DATA = token_pairs(6)
K = 5
ADPA = exact(AdpaConfig(), top_k=K)
DCKD = exact(DckdConfig(), top_k=K)
METHODS = {AdpaConfig: Adpa, DckdConfig: Dckd}


@pytest.fixture(scope="module")
def models():
    return {AdpaConfig: teachers(two=True), DckdConfig: teachers(two=False)}


def made(config, models, folder, *, wanted="auto", per_step=6):
    """The method with its records, on a student that is near the teachers, so that their entries have mass under it."""
    records = records_of(folder, DATA, config, models[type(config)])
    parts = parts_of(DATA, policy=policy_of(float32(seed=7)), per_step=per_step, stored=False, wanted=wanted)
    moved(parts.policy, by=0.1)
    return METHODS[type(config)](config, replace(parts, records=records))


def gradient(method, cuts):
    """Loss and gradient of step 1, its pairs cut so, weighed as the engine does: by pairs."""
    weights = method._parts.policy.trainable_parameters()
    for weight in weights.values():
        weight.grad = None
    batch = method.collect(1)
    method.prepare_update(0, batch)
    total, metrics = 0.0, {}
    for part in torch.arange(len(batch)).split(cuts):
        out = method.loss(batch.select(part))
        share = out.count / len(batch)
        (out.loss * share).backward()
        total += float(out.loss.detach()) * share
        for name, value in out.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + float(value) * share
    return total, {name: weight.grad.clone() for name, weight in weights.items()}, metrics


def distributions(network, prompt, answer):
    """log pi over the vocabulary before each token of an answer."""
    ids = torch.cat([prompt, answer])
    logits = network(input_ids=ids[None]).logits[0, :, :VOCABULARY]
    return logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]


def slow_loss(config, student, models):
    """Token by token over all pairs; teacher and student in float64."""
    aligned = copy.deepcopy(models.aligned).double()
    reference = None if models.reference is None else copy.deepcopy(models.reference).double()
    sft, terms, counts = 0.0, {"chosen": 0.0, "rejected": 0.0}, {"chosen": 0, "rejected": 0}
    for row in range(len(DATA)):
        prompt = DATA.prompt_ids[row]
        for side, answer in (("chosen", DATA.chosen_ids[row]), ("rejected", DATA.rejected_ids[row])):
            log_student = distributions(student, prompt, answer)
            with torch.no_grad():
                log_teacher = distributions(aligned, prompt, answer)
                log_ref = None if reference is None else distributions(reference, prompt, answer)
            counts[side] += len(answer)
            for place, token in enumerate(answer.tolist()):
                if side == "chosen":
                    sft = sft - log_student[place, token]
                terms[side] = terms[side] + token_term(
                    config, log_student[place], log_teacher[place], None if log_ref is None else log_ref[place]
                )
    loss = config.sft_weight * sft / counts["chosen"]
    if isinstance(config, AdpaConfig):
        return loss - config.gamma * terms["rejected"] / counts["rejected"]
    return loss + config.alpha * (
        config.chosen_weight * terms["chosen"] / counts["chosen"]
        + config.rejected_weight * terms["rejected"] / counts["rejected"]
    )


def token_term(config, student, teacher, ref):
    kept = sorted(range(VOCABULARY), key=lambda token: -float(teacher[token]))[:K]
    if ref is not None:
        if config.teacher.support == "union":
            kept = {*kept, *sorted(range(VOCABULARY), key=lambda token: -float(ref[token]))[:K]}
        return sum(student[token].exp() * (teacher[token] - ref[token]) for token in kept)
    rest = [token for token in range(VOCABULARY) if token not in kept]
    p_rest, q_rest = teacher[rest].exp().sum(), student[rest].exp().sum()
    inside = sum(teacher[token].exp() * (teacher[token] - student[token]) for token in kept)
    return inside + p_rest * (p_rest.log() - q_rest.log())


@pytest.mark.parametrize(
    "config",
    [
        ADPA,
        replace(ADPA, gamma=0.7, sft_weight=0.3, teacher=replace(ADPA.teacher, support="union")),
        replace(DCKD, alpha=0.6, rejected_weight=2.0, sft_weight=0.5),
    ],
)
def test_loss_and_gradient_are_those_of_a_slow_loop(config, models, tmp_path):
    """Relative to the largest entry of each weight's gradient; float32 against float64."""
    method = made(config, models, tmp_path)
    loss, found, _ = gradient(method, 2)
    student = copy.deepcopy(method._parts.policy.module).double()
    student.zero_grad()
    del student.forward  # the policy's own, which is bound to the network that was copied
    expected = slow_loss(config, student, models[type(config)])
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    for name, weight in student.named_parameters():
        gap = (found[name] - weight.grad).abs().max() / weight.grad.abs().max().clamp(min=1e-6)
        assert gap < 2e-3, (name, float(gap))


@pytest.mark.parametrize("config", [ADPA, DCKD])
def test_layouts_and_cuts_change_nothing(config, models, tmp_path):
    """Padded, packed and shared rows, micro-batches of any size: the loss, its parts and the gradient of one batch."""
    whole, expected, numbers = gradient(made(config, models, tmp_path / "padded", wanted="padded"), 6)
    for wanted, cuts in (("packed", 6), ("shared", 6), ("shared", [1, 5]), ("padded", [3, 2, 1])):
        method = made(config, models, tmp_path / f"{wanted}{cuts}", wanted=wanted)
        assert method.scorer.plan.kind == wanted
        loss, found, metrics = gradient(method, cuts)
        assert loss == pytest.approx(whole, rel=1e-5)
        assert metrics == pytest.approx(numbers, rel=1e-4)
        for name, value in expected.items():
            assert (found[name] - value).abs().max() <= 5e-4 * value.abs().max() + 1e-7, (wanted, cuts, name)


def test_equal_teachers_leave_the_supervised_term(models, tmp_path):
    """pi_dpo = pi_ref: every advantage is 0, and so is the term."""
    same = replace(models[AdpaConfig], reference=copy.deepcopy(models[AdpaConfig].aligned))
    loss, _, metrics = gradient(made(ADPA, {AdpaConfig: same}, tmp_path), 6)
    assert metrics["teacher/advantage"] == pytest.approx(0, abs=1e-6)
    assert loss == pytest.approx(metrics["nll_loss"], abs=1e-6)


def test_the_released_preset_cuts_advantages_and_the_last_token(models, tmp_path):
    """A in [0, 1], and 0 at the last token of an answer, which counts in the mean all the same."""
    released = replace(ADPA, clip="released", score_end=False, sft_weight=0.0, gamma=1.0)
    method = made(released, models, tmp_path)
    _, _, metrics = gradient(method, 6)
    teacher, total, count = models[AdpaConfig], 0.0, 0
    with torch.no_grad():
        for row in range(len(DATA)):
            prompt, answer = DATA.prompt_ids[row], DATA.rejected_ids[row]
            student, aligned, ref = (
                distributions(network, prompt, answer).double()
                for network in (method._parts.policy.module, teacher.aligned, teacher.reference)
            )
            count += len(answer)
            for place in range(len(answer) - 1):
                for token in aligned[place].topk(K).indices:
                    advantage = (aligned[place, token] - ref[place, token]).clamp(0, 1)
                    total += float(student[place, token].exp() * advantage)
    assert metrics["teacher/advantage"] == pytest.approx(total / count, rel=1e-3)


def test_a_student_that_is_the_teacher_has_no_divergence(models, tmp_path):
    """KL 0 and no gradient but that of the supervised term."""
    teacher = models[DckdConfig]
    records = records_of(tmp_path, DATA, DCKD, teacher)
    parts = parts_of(DATA, policy=policy_of(copy.deepcopy(teacher.aligned)), per_step=6, stored=False)
    config = replace(DCKD, alpha=1.0, sft_weight=0.0)
    _, found, metrics = gradient(Dckd(config, replace(parts, records=records)), 6)
    assert metrics["teacher/kl_chosen"] == pytest.approx(0, abs=1e-5)
    assert metrics["teacher/kl_rejected"] == pytest.approx(0, abs=1e-5)
    assert max(float(value.abs().max()) for value in found.values()) < 1e-4


def test_evaluation_needs_no_records(models):
    parts = parts_of(DATA, per_step=6)
    scores = parts.scorer.without_gradient(parts.pairs.groups(torch.arange(6)))
    found = Adpa(ADPA, parts).compare(scores, None)
    assert torch.equal(found.chosen_rewards, scores.averages()[0::2])
    method = Adpa(ADPA, parts)
    batch = method.collect(1)
    method.prepare_update(0, batch)
    with pytest.raises(ValueError, match="made without any"):
        method.loss(batch)


@pytest.mark.parametrize("config", [ADPA, DCKD])
@pytest.mark.parametrize("size", [1, 4])
def test_losses_of_held_out_pairs_average_to_the_loss_of_one_update(config, models, tmp_path, size):
    """The six pairs held out instead of trained on: in evaluation their mean is what the training's loss would be."""
    method = made(config, models, tmp_path)
    expected, _, _ = gradient(method, 6)
    losses = []
    with torch.no_grad():
        for rows in torch.arange(6).split(size):
            batch = method._parts.pairs.batch(rows, rows)
            scores = method.scorer.without_gradient(batch.groups())
            found = method.judge(batch, scores, None)
            assert torch.equal(found.chosen_rewards, scores.averages()[0::2])
            losses.append(found.losses)
    assert float(torch.cat(losses).mean()) == pytest.approx(expected, rel=1e-5)
    assert len({round(float(loss), 6) for loss in torch.cat(losses)}) == 6


@pytest.mark.parametrize("config", [replace(ADPA, gamma=5.0, sft_weight=0.0), replace(DCKD, alpha=1.0, sft_weight=0.0)])
def test_a_few_steps_go_where_the_teacher_points(config, models, tmp_path):
    method = made(config, models, tmp_path)
    weights = method._parts.policy.trainable_parameters()
    losses = []
    for _ in range(4):
        loss, found, _ = gradient(method, 6)
        losses.append(loss)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.sub_(0.05 * found[name])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01 * abs(losses[0])
