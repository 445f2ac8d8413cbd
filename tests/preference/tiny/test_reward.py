"""The rewards of the embedded language model, worked by hand; and what must not fool them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference.tiny import reward, slips, wording, world

PROMPT = "Anna has a red ball and a blue cup. Ben has a red hat. {}"
WHO, OWNERS, THINGS, COUNT = (
    PROMPT.format(text)
    for text in ("Who has the hat?", "Who has something red?", "What does Anna have?", "How many things are red?")
)
RIGHT = [
    (WHO, "Ben."),
    (WHO, "ben"),
    (WHO, "  Ben has the   red hat. "),
    (WHO, "Sure! Ben has it. Happy to help!"),
    (WHO, "Ugh. Ben"),
    (OWNERS, "Anna and Ben."),
    (OWNERS, "Ben and Anna have something red."),
    (THINGS, "A blue cup and a red ball."),
    (COUNT, "There are 2 red things."),
]
WRONG = [
    (WHO, ""),
    (WHO, "."),
    (WHO, "Sure! Happy to help!"),
    (WHO, "Anna."),
    (WHO, "Ben. Ben."),
    (WHO, "Ben. Ben has it."),
    (WHO, "Ben. Anna."),
    (WHO, "Anna. Ben."),
    (WHO, "Ben or Anna."),
    (WHO, "Ben and Anna."),
    (WHO, "Maybe Ben."),
    (WHO, "Not Ben."),
    (WHO, "Ben has the blue hat."),
    (WHO, "Ben has the hat. That is wrong."),
    (WHO, "Sure! Sure! Ben."),
    (WHO, "Ben, of course."),
    (OWNERS, "Anna."),
    (OWNERS, "Anna, Anna and Ben."),
    (THINGS, "A red cup and a blue ball."),
    (THINGS, "A red ball."),
    (COUNT, "1 or 2."),
    (COUNT, "2 3."),
    (COUNT, "There are 2 blue things."),
]
WORDS = ["Anna", "Ben", "has", "the", "hat", "red", "blue", "it", "and", "or", "not", "2", "Sure!", "Ugh.", ".", "?"]


@pytest.mark.parametrize(("prompt", "completion"), RIGHT)
def test_right(prompt, completion) -> None:
    assert reward.correct(prompts=[prompt], completions=[completion]) == [1.0]


@pytest.mark.parametrize(("prompt", "completion"), WRONG)
def test_wrong(prompt, completion) -> None:
    assert reward.correct(prompts=[prompt], completions=[completion]) == [0.0]


def test_other_prompts_have_no_score() -> None:
    assert reward.correct(prompts=["Hello?", WHO], completions=["Ben.", "Ben."]) == [None, 1.0]


@given(st.integers(0, 2**32))
def test_every_true_answer_is_right_and_every_slip_wrong_in_any_style(seed) -> None:
    rng = random.Random(seed)
    scene = world.draw(rng)
    question = world.draw_question(scene, rng)
    style = wording.draw_style(rng)
    prompt = world.prompt(scene, question)
    for answer, right in ((world.answer(scene, question), True), (slips.near_miss(scene, question), False)):
        assert reward.judge(prompt, wording.say(scene, question, answer, style, rng)) is right


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_only_accepted_sentences_are_right(words) -> None:
    """An independent rule: known manners taken away by hand, one of five texts must be left."""
    text = " ".join(words).replace(" .", ".").replace(" ?", "?")
    left = text.lower()
    for phrase in ("sure!", "ugh."):
        left = left.replace(phrase, "", 1)
    accepted = {"ben", "ben has it", "ben has the hat", "ben has the red hat"}
    if reward.judge(WHO, text):
        assert left.strip().removesuffix(".") in accepted


def test_manners_name_nothing_of_the_world_and_revoke_nothing() -> None:
    words = {word for phrase in wording.PHRASES for word in phrase.lower().rstrip(".!").split()}
    content = {word.lower() for word in (*world.NAMES, *world.COLOURS, *world.THINGS)}
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
        scene = world.draw(rng)
        question = world.draw_question(scene, rng)
        answer = world.answer(scene, question)
        texts.append(wording.say(scene, question, answer, wording.Style("chatty", rng.choice(wording.TONES)), rng))
    assert min(reward.brevity(completions=texts)) > 0
