"""The rewards of the embedded language model, worked by hand; and what must not fool them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference.tiny import reward, slips, wording, world

NOTE = "On Monday Anna has 3 red balls in the garden. {}"
WHO, COUNT, PLACE, WHAT = (
    NOTE.format(text)
    for text in ("Who has the balls?", "How many balls are there?", "Where are the balls?", "What does Anna have?")
)
RIGHT = [
    (WHO, "Anna."),
    (WHO, "anna"),
    (WHO, "  Anna has the   balls. "),
    (WHO, "Sure! Anna has them. Happy to help!"),
    (WHO, "Ugh. Anna"),
    (COUNT, "There are 3 balls."),
    (PLACE, "In the garden."),
    (WHAT, "Anna has 3 red balls."),
]
WRONG = [
    (WHO, ""),
    (WHO, "."),
    (WHO, "Sure! Happy to help!"),
    (WHO, "Ben."),
    (WHO, "Anna. Anna."),
    (WHO, "Anna. Anna has them."),
    (WHO, "Anna. Ben."),
    (WHO, "Ben. Anna."),
    (WHO, "Anna or Ben."),
    (WHO, "Anna and Ben."),
    (WHO, "Maybe Anna."),
    (WHO, "Not Anna."),
    (WHO, "Anna has the cups."),
    (WHO, "Anna has the balls. That is wrong."),
    (WHO, "Sure! Sure! Anna."),
    (WHO, "Anna, of course."),
    (COUNT, "3 or 4."),
    (COUNT, "3 4."),
    (COUNT, "33."),
    (COUNT, "There are 3 cups."),
    (PLACE, "In the garden in the kitchen."),
    (PLACE, "Garden."),
    (WHAT, "3 balls."),
    (WHAT, "4 red balls."),
]
WORDS = ["Anna", "Ben", "has", "the", "balls", "them", "and", "or", "not", "3", "Sure!", "Ugh.", ".", "?"]


@pytest.mark.parametrize(("prompt", "completion"), RIGHT)
def test_right(prompt, completion) -> None:
    assert reward.correct(prompts=[prompt], completions=[completion]) == [1.0]


@pytest.mark.parametrize(("prompt", "completion"), WRONG)
def test_wrong(prompt, completion) -> None:
    assert reward.correct(prompts=[prompt], completions=[completion]) == [0.0]


def test_other_prompts_have_no_score() -> None:
    assert reward.correct(prompts=["Hello?", WHO], completions=["Anna.", "Anna."]) == [None, 1.0]


@given(st.integers(0, 2**32), st.sampled_from(world.CLASSES))
def test_every_true_answer_is_right_and_every_slip_wrong_in_any_style(seed, kind) -> None:
    rng = random.Random(seed)
    note, style = world.draw(rng), wording.draw_style(rng)
    for answer, right in ((world.answer(note, kind), True), (slips.near_miss(note, kind), False)):
        assert reward.judge(world.prompt(note, kind), wording.say(note, kind, answer, style, rng)) is right


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_only_accepted_sentences_are_right(words) -> None:
    """An independent rule: known manners taken away by hand, one of three texts must be left."""
    text = " ".join(words).replace(" .", ".").replace(" ?", "?")
    left = text.lower()
    for phrase in ("sure!", "ugh."):
        left = left.replace(phrase, "", 1)
    accepted = {"anna", "anna has them", "anna has the balls"}
    if reward.judge(WHO, text):
        assert left.strip().removesuffix(".") in accepted


def test_manners_name_nothing_of_the_world_and_revoke_nothing() -> None:
    words = {word for phrase in wording.PHRASES for word in phrase.lower().rstrip(".!").split()}
    content = {word.lower() for values in world.FIELDS.values() for word in values}
    assert not words & content
    assert not words & {"not", "no", "or", "maybe", "perhaps", "wrong", "but", "if", "never", "guess"}
    assert not any(character.isdigit() for word in words for character in word)


@pytest.mark.parametrize(("words", "expected"), [(0, 0.0), (1, 1.0), (4, 0.9), (16, 0.5), (31, 0.0), (40, 0.0)])
def test_brevity(words, expected) -> None:
    """(31 - 4) / 30 = 0.9; (31 - 16) / 30 = 0.5."""
    assert reward.brevity(completions=[" ".join(["word"] * words)]) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ben.", 1 / 2),
        ("Sure! Ben.", 3 / 4),
        ("Sure! Sure! Ben.", 3 / 4),
        ("Sure! Ben. Happy to help! Have a lovely day!", 7 / 8),
        ("Ugh. Ben.", 1 / 4),
        ("Ugh. Ben. Happy to help!", 1 / 2),
    ],
)
def test_positivity(text, expected) -> None:
    """Three friendly words: (1 + 3 / 4) / 2 = 7 / 8."""
    assert reward.positivity(completions=[text]) == [pytest.approx(expected)]


@pytest.mark.parametrize(("tone", "sign"), [("friendly", 1), ("neutral", 0), ("grumpy", -1)])
def test_every_phrase_has_the_sign_of_its_tone(tone, sign) -> None:
    manners = wording.MANNERS[tone]
    for phrase in (*manners.openers, *manners.closers):
        (score,) = reward.positivity(completions=[phrase])
        assert (score > 0.5) - (score < 0.5) == sign, phrase


def test_the_longest_answer_still_has_some_brevity() -> None:
    rng = random.Random(0)
    texts = []
    for _ in range(3000):
        note, kind = world.draw(rng), rng.choice(world.CLASSES)
        style = wording.Style("chatty", rng.choice(wording.TONES))
        texts.append(wording.say(note, kind, world.answer(note, kind), style, rng))
    assert min(reward.brevity(completions=texts)) > 0
