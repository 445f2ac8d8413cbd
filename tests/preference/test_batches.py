"""Rows of batches: every field is cut alike, what is None stays so."""

import torch

from preference.batches import PairBatch, ResponseBatch
from preference.reward_models.batches import RatedBatch


def ids(*values):
    return [torch.tensor([value]) for value in values]


def test_pairs():
    batch = PairBatch(
        index=torch.tensor([4, 5, 6]),
        rows=torch.tensor([9, 8, 7]),
        prompts=ids(0, 1, 2),
        chosen=ids(10, 11, 12),
        rejected=ids(20, 21, 22),
        rates=torch.tensor([0.5, 0.6, 0.7]),
    )
    found = batch.select(torch.tensor([2, 0]))
    assert (len(batch), len(found)) == (3, 2)
    assert found.index.tolist() == [6, 4]
    assert found.rows.tolist() == [7, 9]
    assert [int(part) for part in (*found.prompts, *found.chosen, *found.rejected)] == [2, 0, 12, 10, 22, 20]
    assert torch.equal(found.rates, torch.tensor([0.7, 0.5]))
    assert (found.reference, found.samples) == (None, None)
    assert [[int(answer) for answer in group.responses] for group in found.groups()] == [[12, 22], [10, 20]]


def test_single_and_rated_answers():
    index = torch.tensor([0, 1])
    single = ResponseBatch(index=index, rows=index, prompts=ids(1, 2), responses=ids(3, 4)).select([1])
    assert [int(part) for part in (*single.prompts, *single.responses, single.rows)] == [2, 4, 1]
    rated = RatedBatch(index=index, sequences=ids(1, 2), labels=torch.tensor([[1.0, 2.0], [3.0, 4.0]])).select([1, 1])
    assert rated.labels.tolist() == [[3.0, 4.0], [3.0, 4.0]]
    assert [int(part) for part in rated.sequences] == [2, 2]
