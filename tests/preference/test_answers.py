"""Answers: what transformers' own generation says, whatever the batch; draws that follow the key."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from preference.answers import AnswerSettings, answer, nucleus

from .miniatures import miniature
from .pair_data import float32

PROMPTS = [torch.tensor(ids) for ids in ([1, 5, 9], [1, 44], [1, 7, 7, 30, 12, 61], [1, 80, 2, 3])]
KEYS = [("test", row) for row in range(len(PROMPTS))]
GREEDY = AnswerSettings(max_new_tokens=7)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_greedy_answers_are_those_of_transformers(family):
    model = miniature(family).float()
    found = answer(model, PROMPTS, KEYS, GREEDY)
    for prompt, ids in zip(PROMPTS, found, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = model.generate(
                prompt[None],
                attention_mask=torch.ones(1, len(prompt)),
                max_new_tokens=7,
                min_new_tokens=7,
                do_sample=False,
                eos_token_id=None,
            )
        assert ids.tolist() == expected[0, len(prompt) :].tolist()


def test_an_answer_ends_with_its_end_token():
    model = float32()
    whole = answer(model, PROMPTS, KEYS, GREEDY)
    stop = int(whole[0][2])
    cut = answer(model, PROMPTS, KEYS, AnswerSettings(max_new_tokens=7, stop_ids=(stop,)))
    for before, after in zip(whole, cut, strict=True):
        ids = before.tolist()
        assert after.tolist() == (ids[: ids.index(stop) + 1] if stop in ids else ids)


def test_draws_do_not_depend_on_the_batch():
    model, settings = float32(), AnswerSettings(max_new_tokens=6, temperature=1.5, top_p=0.9)
    together = answer(model, PROMPTS, KEYS, settings)
    alone = [answer(model, [prompt], [key], settings)[0] for prompt, key in zip(PROMPTS, KEYS, strict=True)]
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]
    other = answer(model, PROMPTS, [(*key, 1) for key in KEYS], settings)
    assert [ids.tolist() for ids in together] != [ids.tolist() for ids in other]


def test_no_random_numbers_are_taken_from_the_run():
    before = torch.random.get_rng_state()
    answer(float32(), PROMPTS, KEYS, AnswerSettings(max_new_tokens=3, temperature=1.0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_gradient_checkpointing_on():
    """Its blocks are in training mode, where transformers keeps no cache; afterwards they are again."""
    model = float32()
    expected = answer(model, PROMPTS, KEYS, GREEDY)
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):  # the later name first
        if hasattr(model, name):
            getattr(model, name)()
            break
    model.train()
    found = answer(model, PROMPTS, KEYS, GREEDY)
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]
    assert all(layer.training for layer in model.modules())


def test_nucleus_by_hand():
    """0.5 + 0.3 holds 0.7; the two are 5/8 and 3/8 of what is left. The likeliest always stays."""
    probabilities = torch.tensor([[0.15, 0.5, 0.05, 0.3]])
    assert_close(nucleus(probabilities, 0.7), torch.tensor([[0.0, 0.625, 0.0, 0.375]]))
    assert_close(nucleus(probabilities, 0.01), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))


@given(top_p=st.floats(0.05, 1.0), seed=st.integers(0, 99))
def test_a_nucleus_is_a_distribution_over_the_likeliest(top_p, seed):
    probabilities = torch.rand(2, 9, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)
    kept = nucleus(probabilities, top_p)
    assert_close(kept.sum(dim=-1), torch.ones(2))
    for row, chosen in zip(probabilities, kept > 0, strict=True):
        assert float(row[chosen].sum()) >= top_p - 1e-5
        assert row[chosen].min() >= (row[~chosen].max() if (~chosen).any() else 0)


@pytest.mark.parametrize("spread", [0.0, 8.0])
def test_a_nucleus_of_many_and_of_few_tokens(spread):
    """3,000 tokens: equal ones need 2,701 of them for 0.9001, uneven ones fewer; both as a loop over the sorted row."""
    logits = torch.rand(1, 3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * spread
    row = logits.softmax(dim=-1)
    kept, held = torch.zeros(3000, dtype=torch.float64), 0.0
    for place in row[0].argsort(descending=True, stable=True).tolist():
        if held >= 0.9001:
            break
        kept[place] = row[0, place]
        held += float(row[0, place])
    found = nucleus(row, 0.9001)[0]
    assert int((found > 0).sum()) == int((kept > 0).sum())
    assert_close(found.sort().values, (kept / kept.sum()).sort().values)
