"""Tokenizer, chat template and training texts of the embedded language model."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from preference.tiny import build, conversations, model_path, train_model, world
from preference.tiny.wording import PHRASES


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(st.text(max_size=60))
def test_any_text_comes_back(text) -> None:
    tokenizer = TOKENIZER.get()
    if not any(token in text for token in build.SPECIAL):
        text = text.encode("utf-8", "ignore").decode()
        assert tokenizer.decode(ids_of(tokenizer, text)) == text


class _Once:
    """hypothesis and fixtures of pytest do not mix; this loads the tokenizer once."""

    found = None

    def get(self):
        if self.found is None:
            self.found = AutoTokenizer.from_pretrained(model_path())
        return self.found


TOKENIZER = _Once()


def test_digits_are_single_tokens(tokenizer) -> None:
    assert len(ids_of(tokenizer, "80")) == 2
    assert ids_of(tokenizer, "180")[1:] == ids_of(tokenizer, "80")
    assert ids_of(tokenizer, "of 80 x")[-3:-1] == ids_of(tokenizer, "80")
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and any(map(str.isdigit, token))]


def test_words_of_the_world_are_single_tokens(tokenizer) -> None:
    words = [f" {word}" for values in world.FIELDS.values() for word in values]
    words = [word for word in words if not word.strip().isdigit()]
    assert [word for word in words if len(ids_of(tokenizer, word)) > 1] == []


def test_special_tokens(tokenizer) -> None:
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (build.BEGIN, build.END, build.PAD)
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert 512 <= len(tokenizer) <= 2048


@given(st.integers(0, 2**32), st.text(alphabet="ab .!?\n<|1", max_size=12))
def test_an_answer_never_changes_the_ids_of_its_prompt(seed, answer) -> None:
    tokenizer = TOKENIZER.get()
    turns = conversations.draw(random.Random(seed), wrong_answers=True)[:-1]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}], tokenize=False)
    expected = ids_of(tokenizer, prompt)
    assert ids_of(tokenizer, whole)[: len(expected)] == expected


def test_the_template_in_full(tokenizer) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin|><|system|>s<|end|><|user|>u<|end|><|assistant|>"


def test_the_marks_of_the_template_are_what_the_loss_reads(tokenizer) -> None:
    """transformers' mask of `{% generation %}` against the mask of the training, which reads role tokens."""
    roles = torch.tensor(tokenizer.convert_tokens_to_ids([f"<|{role}|>" for role in build.ROLES]))
    for seed in range(20):
        turns = conversations.draw(random.Random(seed), wrong_answers=False)
        found = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        ids = torch.tensor([found["input_ids"]])
        mask = train_model.answer_mask(ids, roles, int(roles[-1]), tokenizer.pad_token_id)
        assert mask[0].int().tolist() == found["assistant_masks"]


def test_the_committed_tokenizer_is_the_one_that_the_script_makes(tokenizer) -> None:
    made = build.tokenizer(conversations.tokenizer_texts(4000, seed=0))
    assert made.get_vocab() == tokenizer.get_vocab()
    assert made.chat_template == tokenizer.chat_template


def test_training_texts_hold_no_heldout_note_and_sometimes_a_system_turn() -> None:
    rng = random.Random(0)
    drawn = [conversations.draw(rng, wrong_answers=True) for _ in range(300)]
    first = [next(turn["content"] for turn in turns if turn["role"] == "user") for turns in drawn]
    assert not any(world.held_out(world.parse(prompt)[0]) for prompt in first)
    share = sum(turns[0]["role"] == "system" for turns in drawn) / len(drawn)
    assert share == pytest.approx(conversations.SYSTEM_SHARE, abs=0.08)


def test_manners_are_short(tokenizer) -> None:
    assert max(len(ids_of(tokenizer, phrase)) for phrase in PHRASES) <= 8
