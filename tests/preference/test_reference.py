"""Reference log-probabilities: computed once, kept by what they depend on, the same as asked live."""

import logging

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.distributed import Processes, start_accelerator
from preference.config import DpoConfig
from preference.dpo import Dpo
from preference.reference import ReferenceCache, ReferenceTable, complete
from preference.stored_pairs import StoredPairs

from .pair_data import float32, moved, parts_of, policy_of, scorer_of, token_pairs

DATA = token_pairs(7)
PAIRS = StoredPairs(data=DATA)
KEY = {"data": "d", "weights": "w"}


def computed(scorer, rows, table=None, batch_size=3):
    table = table or ReferenceTable.empty()
    return complete(table, PAIRS.groups, rows, scorer=scorer, processes=Processes(), batch_size=batch_size)


class CountingScorer:
    """Counts the pairs that are scored."""

    def __init__(self, scorer):
        self.scorer, self.pairs = scorer, 0

    def without_gradient(self, groups):
        self.pairs += len(groups)
        return self.scorer.without_gradient(groups)


def test_rows_come_back_in_the_order_of_the_tokens():
    """Whatever order and batches they were computed in: chosen tokens first, then rejected ones."""
    scorer = scorer_of(policy_of(float32()), PAIRS)
    table = computed(scorer, torch.arange(7))
    for row in (4, 0, 6):
        alone = scorer.without_gradient(PAIRS.groups(torch.tensor([row])))
        (found,) = table.of(torch.tensor([row]))
        assert len(found) == len(DATA.chosen_ids[row]) + len(DATA.rejected_ids[row])
        assert_close(found, alone.log_probs, rtol=1e-5, atol=1e-5)


def test_only_what_is_missing_is_computed(tmp_path):
    cache = ReferenceCache(tmp_path / "new", KEY)
    scorer = CountingScorer(scorer_of(policy_of(float32()), PAIRS))
    first = computed(scorer, torch.tensor([5, 2]), cache.load())
    assert scorer.pairs == 2
    cache.save(first)
    table = computed(scorer, torch.arange(7), cache.load())
    assert scorer.pairs == 7
    assert table.rows.tolist() == list(range(7))
    cache.save(table)
    assert torch.equal(torch.cat(cache.load().of(torch.tensor([2, 5]))), torch.cat(first.of(torch.tensor([2, 5]))))
    computed(scorer, torch.arange(7), cache.load())
    assert scorer.pairs == 7


def test_the_file_is_named_by_everything_that_the_numbers_depend_on(tmp_path):
    cache = ReferenceCache(tmp_path, KEY)
    cache.save(ReferenceTable(rows=torch.tensor([0]), counts=torch.tensor([2]), log_probs=torch.tensor([-1.0, -2.0])))
    assert len(ReferenceCache(tmp_path, KEY).load().rows) == 1
    for change in ({"weights": "other"}, {"data": "other"}):
        assert len(ReferenceCache(tmp_path, {**KEY, **change}).load().rows) == 0
    with safe_open(cache.path, framework="pt") as file:
        assert file.metadata()["weights"] == "w"
    assert [path.name for path in tmp_path.iterdir()] == [cache.path.name]  # no draft is left


def test_a_broken_file_is_computed_again(tmp_path, caplog):
    cache = ReferenceCache(tmp_path, KEY)
    cache.path.write_bytes(b"cut off")
    with caplog.at_level(logging.WARNING):
        assert len(cache.load().rows) == 0
    assert "is computed again" in caplog.text


def test_no_random_numbers_are_drawn():
    scorer = scorer_of(policy_of(float32()), PAIRS)
    before = torch.random.get_rng_state()
    computed(scorer, torch.arange(7))
    assert torch.equal(torch.random.get_rng_state(), before)


def lora_policy():
    policy = Policy.lora(float32(), LoraConfig(rank=2, alpha=4.0), ["q_proj", "v_proj"], seed=0)
    policy.prepare(start_accelerator())
    return policy


@pytest.mark.parametrize("make", [lora_policy, lambda: policy_of(float32(), keep_reference=True)])
def test_stored_and_live_references_are_one(make):
    """Adapters off, or a copy of all weights, after the policy has moved: the losses of the stored numbers."""
    losses = []
    for stored in (True, False):
        parts = parts_of(DATA, policy=make(), stored=stored)
        moved(parts.policy)
        method = Dpo(DpoConfig(), parts)
        batch = method.collect(1)
        assert (batch.reference is None) is not stored
        method.prepare_update(0, batch)
        losses.append(method.loss(batch).loss.detach())
    assert_close(losses[0], losses[1], rtol=0, atol=1e-5)
    assert abs(float(losses[0]) - 0.6931) > 1e-3
