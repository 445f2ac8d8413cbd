"""Supervised fine-tuning: its loss by hand, that cuts change nothing, what it says of held-out rows."""

import pytest
import torch

from align.engine.distributed import Processes
from preference.config import SftConfig
from preference.evaluate_responses import ResponseEvaluator
from preference.pair_method import PairParts
from preference.sampler import PairSampler
from preference.sft import Sft
from preference.stored_pairs import StoredResponses
from preference.tokens import TokenResponses

from .pair_data import float32, parts_of, policy_of, scorer_of, token_pairs

PAIRS = token_pairs(8)
DATA = TokenResponses(
    rows=PAIRS.rows,
    prompts=PAIRS.prompts,
    prompt_ids=PAIRS.prompt_ids,
    columns={"class": [str(row % 2) for row in PAIRS.rows]},
    report=PAIRS.report,
    tokenizer=PAIRS.tokenizer,
    responses=PAIRS.chosen,
    response_ids=PAIRS.chosen_ids,
)


@pytest.fixture(scope="module")
def parts():
    policy, pairs = policy_of(float32()), StoredResponses(data=DATA)
    sampler = PairSampler(pairs=len(pairs), per_step=6, seed=0)
    return PairParts(pairs=pairs, sampler=sampler, scorer=scorer_of(policy, pairs), policy=policy)


def slow_log_probs(network, row):
    """log pi of each token of one answer, from plain logits in a pass of its own."""
    prompt, response = DATA.prompt_ids[row], DATA.response_ids[row]
    ids = torch.cat([prompt, response])[None]
    logits = network(input_ids=ids).logits[0].double()
    table = logits.log_softmax(dim=-1)
    return torch.stack([table[len(prompt) + t - 1, token] for t, token in enumerate(response)])


def update(parts, mode, cuts):
    """Loss and gradient of step 1 cut so, weighed as the engine does: by rows."""
    method = Sft(SftConfig(mode=mode), parts)
    weights = parts.policy.trainable_parameters()
    for weight in weights.values():
        weight.grad = None
    batch = method.collect(1)
    method.prepare_update(0, batch)
    total = 0.0
    for part in torch.arange(len(batch)).split(cuts):
        out = method.loss(batch.select(part))
        (out.loss * out.count / len(batch)).backward()
        total += float(out.loss.detach()) * out.count / len(batch)
    return total, {name: weight.grad.clone() for name, weight in weights.items()}


@pytest.mark.parametrize("mode", ["token_mean", "seq_mean_token_mean"])
def test_loss_equals_the_mean_over_answers_scored_one_by_one(parts, mode):
    found, _ = update(parts, mode, 6)
    rows = parts.sampler(1).rows.tolist()
    with torch.no_grad():
        each = [slow_log_probs(parts.policy.module, row) for row in rows]
    means = {
        "token_mean": torch.cat(each).mean(),
        "seq_mean_token_mean": torch.stack([one.mean() for one in each]).mean(),
    }
    assert found == pytest.approx(-float(means[mode]), rel=1e-5)


@pytest.mark.parametrize("mode", ["token_mean", "seq_mean_token_mean"])
def test_micro_batches_of_any_size_give_the_gradient_of_one_batch(parts, mode):
    whole, expected = update(parts, mode, 6)
    loss, found = update(parts, mode, [1, 3, 2])
    assert loss == pytest.approx(whole, rel=1e-5)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 2e-4 * value.abs().max() + 1e-7, name


def test_prompt_tokens_are_not_trained(parts):
    """Tokens that stand in no answer and are not read before one have no output gradient: the mask is the answer's."""
    method = Sft(SftConfig(), parts)
    batch = method.collect(1)
    method.prepare_update(0, batch)
    scores = method.scorer.score(method.scorer.lay(batch.groups()))
    assert scores.lengths.tolist() == [len(response) for response in batch.responses]


def test_held_out_answers(parts):
    evaluator = ResponseEvaluator(parts.scorer, StoredResponses(data=DATA), processes=Processes(), batch_size=3)
    table = evaluator.table()
    with torch.no_grad():
        each = [slow_log_probs(parts.policy.module, row) for row in range(len(DATA))]
    rows, figures = evaluator.rows(table), evaluator.figures(table)
    assert [row.group for row in rows] == ["0", "1"] * 4
    for row, expected in zip(rows, each, strict=True):
        assert row.rewards["response_log_prob"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert figures["loss"] == pytest.approx(-float(torch.cat(each).mean()), rel=1e-5)
    assert figures["perplexity"] == pytest.approx(float(torch.cat(each).mean().neg().exp()), rel=1e-4)


def test_held_out_pairs_are_ranked_by_averages():
    parts = parts_of(PAIRS)
    method = Sft(SftConfig(), parts)
    scores = parts.scorer.without_gradient(parts.pairs.groups(torch.arange(4)))
    found = method.compare(scores, None)
    averages = scores.averages()
    assert torch.equal(found.losses, -averages[0::2])
    assert torch.equal(found.margins, averages[0::2] - averages[1::2])
