"""Notes, questions, true answers and near misses of the embedded language model's world."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference.tiny import slips, wording, world
from preference.tiny.world import Note

NOTE = Note("Monday", "Anna", "3", "red", "balls", "garden")
SEEDS = st.integers(0, 2**32)
KINDS = st.sampled_from(world.CLASSES)


def test_a_prompt_in_words() -> None:
    assert world.prompt(NOTE, "who") == world.EXAMPLE


@pytest.mark.parametrize(
    ("kind", "true", "near_miss"),
    [
        ("who", "Anna", "Ben"),
        ("colour", "red", "blue"),
        ("count", "3", "4"),
        ("place", "garden", "kitchen"),
        ("day", "Monday", "Tuesday"),
        ("what", "3 red balls", "4 red balls"),
    ],
)
def test_answers_worked_by_hand(kind, true, near_miss) -> None:
    assert world.answer(NOTE, kind) == true
    assert slips.near_miss(NOTE, kind) == near_miss


def test_the_last_word_of_a_list_is_followed_by_the_first() -> None:
    assert slips.near_miss(Note("Sunday", "Leo", "9", "brown", "bikes", "museum"), "count") == "2"


@given(SEEDS, KINDS)
def test_a_prompt_is_read_back(seed, kind) -> None:
    note = world.draw(random.Random(seed))
    assert world.parse(world.prompt(note, kind)) == (note, kind)


@given(SEEDS, KINDS)
def test_a_near_miss_is_never_true_in_any_wording(seed, kind) -> None:
    note = world.draw(random.Random(seed))
    true, wrong = world.answer(note, kind), slips.near_miss(note, kind)
    assert not set(wording.statements(note, kind, true)) & set(wording.statements(note, kind, wrong))


@given(SEEDS, st.booleans())
def test_the_split_is_a_function_of_the_note(seed, heldout) -> None:
    assert world.held_out(world.draw_note(random.Random(seed), heldout=heldout)) is heldout


def test_the_split_is_fixed() -> None:
    """A known note of each side, so that a change of the hash cannot move notes unseen; one fifth is held out."""
    assert [world.held_out(Note(day, *FIRST)) for day in world.DAYS] == SIDES
    rng = random.Random(0)
    share = sum(world.held_out(world.draw(rng)) for _ in range(4000)) / 4000
    assert share == pytest.approx(world.HELD_OUT_SHARE, abs=0.02)


FIRST = ("Anna", "3", "red", "balls", "garden")
SIDES = [True, False, False, False, False, True, False]


def test_slips_are_as_frequent_as_they_say() -> None:
    rng = random.Random(0)
    told = []
    for _ in range(4000):
        note = world.draw(rng)
        told.append(slips.told(note, "who", rng, slips=True) == note.name)
    assert 1 - sum(told) / len(told) == pytest.approx(slips.SLIPS["who"], abs=0.03)


@pytest.mark.parametrize(
    "text",
    [
        "Who has the balls?",
        "On Monday Anna has 3 red balls in the garden.",
        "On Monday Anna has 3 red balls in the garden. Who has the cups?",
        "On Monday Anna has 3 red balls in the garden. What does Ben have?",
        "On Monday Zoe has 3 red balls in the garden. Who has the balls?",
        "Paint a picture.",
        "",
    ],
)
def test_other_prompts_are_refused(text) -> None:
    with pytest.raises(ValueError, match="expected a note and a question about it"):
        world.parse(text)


def test_styles_differ_in_length_and_tone() -> None:
    rng = random.Random(0)

    def say(length, tone):
        return wording.say(NOTE, "who", "Anna", wording.Style(length, tone), rng)

    assert say("terse", "neutral") == "Anna."
    assert say("plain", "neutral") in ("Anna has them.", "Anna has the balls.")
    chatty = say("chatty", "grumpy")
    assert "Anna has the balls." in chatty
    assert any(chatty.startswith(opener) for opener in wording.MANNERS["grumpy"].openers)
