"""The student's answers in the place of the rejected ones: found by prompt, counted where there is none."""

import json

import pytest

from align.errors import AlignError
from preference.config import AdpaConfig, DckdConfig, PairsConfig, PreferenceRun
from preference.data import read_pairs, read_responses
from preference.student_answers import as_states, read_answers, with_student_answers
from preference.tokenise import tokenise_pairs, tokenise_responses

from .tokenizers import qwen_like


def turns(role, text):
    return [{"role": role, "content": text}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path):
    pairs = [
        {"prompt": turns("user", f"cat {n}"), "chosen": turns("assistant", "ok"), "rejected": turns("assistant", "a")}
        for n in range(3)
    ]
    answers = [
        {"prompt": turns("user", f"cat {n}"), "completion": turns("assistant", text)}
        for n, text in ((2, "the two"), (0, "ok"), (1, "the one"), (1, "another"))
    ]
    return write(tmp_path / "pairs.jsonl", pairs), write(tmp_path / "answers.jsonl", answers)


def tokens(files):
    settings, tokenizer = PairsConfig(train=files[0]), qwen_like()
    pairs = tokenise_pairs(read_pairs(files[0], settings), tokenizer, settings)
    answers = tokenise_responses(read_responses(files[1], settings), tokenizer, settings)
    return pairs, answers, tokenizer


def test_answers_are_found_by_their_prompt(files):
    """In another order, two to one prompt, one equal to the chosen answer: first come, and none is lost."""
    pairs, answers, tokenizer = tokens(files)
    found = with_student_answers(pairs, answers)
    assert found.rejected == ["ok", "the one", "the two"]
    assert [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found.rejected_ids] == found.rejected
    assert found.chosen == pairs.chosen
    assert found.fingerprint() != pairs.fingerprint()
    assert found.fingerprint() == with_student_answers(pairs, answers.select([1, 2, 0])).fingerprint()


def test_a_pair_without_an_answer_stops_or_is_counted(files):
    pairs, answers, _ = tokens(files)
    some = answers.select([0, 2])
    with pytest.raises(AlignError, match="1 of 3 training pairs have no answer of the student") as caught:
        with_student_answers(pairs, some, source="answers.jsonl")
    assert "row 0: no answer of the student to this prompt: " in caught.value.message
    found = with_student_answers(pairs, some, bad_rows="skip")
    assert found.rows == [1, 2]
    assert found.report.used == 2
    assert "1 left out: no answer of the student" in found.report.summary()
    with pytest.raises(AlignError):
        with_student_answers(pairs.select([0]), some, bad_rows="skip")  # nothing would be left


def test_candidates_of_align_generate(tmp_path):
    """The first of each row, of conversations and of plain prompts; a row without any is told by its line."""
    rows = [
        {"row": 0, "prompt": turns("user", "cat 0"), "candidates": ["the one", "other"], "finish": ["stop", "stop"]},
        {"row": 1, "prompt": "cat 1", "candidates": ["the two"], "finish": ["length"]},
    ]
    settings = PairsConfig()
    found = read_answers(write(tmp_path / "candidates.jsonl", rows), settings)
    assert [row.responses[0] for row in found.rows] == [tuple(turns("assistant", "the one")), "the two"]
    path = write(tmp_path / "bad.jsonl", [*rows, {"prompt": "cat 2", "candidates": []}])
    with pytest.raises(AlignError, match=r"bad\.jsonl:3: `candidates` should be a list of texts"):
        read_answers(path, settings)
    assert len(read_answers(path, PairsConfig(bad_rows="skip"))) == 2


def test_a_prompt_of_other_tokens_is_no_match(files):
    pairs, answers, _ = tokens(files)
    answers.prompt_ids[1] = answers.prompt_ids[1].roll(1)
    with pytest.raises(AlignError, match="begins with other tokens of the prompt"):
        with_student_answers(pairs, answers)


def test_only_where_the_settings_name_answers(files):
    pairs, _, tokenizer = tokens(files)
    run = PreferenceRun(data=PairsConfig(train=files[0]), algorithm=AdpaConfig(student_answers=files[1]))
    assert as_states(pairs, run, tokenizer).rejected == ["ok", "the one", "the two"]
    for algorithm in (AdpaConfig(), DckdConfig()):
        assert as_states(pairs, PreferenceRun(algorithm=algorithm), tokenizer) is pairs
