"""Scenes, questions, true answers and near misses of the embedded language model's world."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference.tiny import slips, wording, world
from preference.tiny.world import Question, Scene, Thing

SCENE = Scene((Thing("Anna", "red", "ball"), Thing("Anna", "blue", "cup"), Thing("Ben", "red", "hat")))
SEEDS = st.integers(0, 2**32)


def drawn(seed: int) -> tuple[Scene, Question, random.Random]:
    rng = random.Random(seed)
    scene = world.draw(rng)
    return scene, world.draw_question(scene, rng), rng


def test_a_prompt_in_words() -> None:
    expected = "Anna has a red ball and a blue cup. Ben has a red hat. Who has something red?"
    assert world.prompt(SCENE, Question("owners", "red")) == expected


@pytest.mark.parametrize(
    ("kind", "about", "true", "near_miss"),
    [
        ("who", "hat", ("Ben",), ("Anna",)),
        ("colour", "cup", ("blue",), ("red",)),
        ("colour", "ball", ("red",), ("blue",)),
        ("things", "Anna", ("a red ball", "a blue cup"), ("a red hat",)),
        ("owners", "red", ("Anna", "Ben"), ("Anna",)),
        ("owners", "blue", ("Anna",), ("Anna", "Ben")),
        ("count", "red", ("2",), ("1",)),
        ("count", "blue", ("1",), ("2",)),
    ],
)
def test_answers_worked_by_hand(kind, about, true, near_miss) -> None:
    question = Question(kind, about)
    assert world.answer(SCENE, question) == true
    assert slips.near_miss(SCENE, question) == near_miss


def test_a_near_miss_where_all_colours_are_alike() -> None:
    """There is no other colour to take, so it is one that is not in the scene."""
    scene = Scene((Thing("Anna", "red", "ball"), Thing("Ben", "red", "hat")))
    assert slips.near_miss(scene, Question("colour", "hat")) == ("blue",)


@given(SEEDS)
def test_a_prompt_is_read_back(seed) -> None:
    scene, question, _ = drawn(seed)
    assert world.parse(world.prompt(scene, question)) == (scene, question)


@given(SEEDS)
def test_scenes_name_nobody_and_nothing_twice(seed) -> None:
    scene, _, _ = drawn(seed)
    names = [thing.name for thing in scene.things]
    assert len(set(names)) == len(names)
    assert world.SMALLEST <= len(scene.people()) <= world.LARGEST
    assert all(1 <= len(scene.of(person)) <= 2 for person in scene.people())


@given(SEEDS)
def test_a_near_miss_is_never_true_in_any_wording(seed) -> None:
    scene, question, _ = drawn(seed)
    true, wrong = world.answer(scene, question), slips.near_miss(scene, question)
    assert not wording.statements(scene, question, true) & wording.statements(scene, question, wrong)


@given(SEEDS, st.booleans())
def test_the_split_is_a_function_of_the_scene(seed, heldout) -> None:
    scene = world.draw_scene(random.Random(seed), heldout=heldout)
    assert world.held_out(scene) is heldout


def test_the_split_is_fixed() -> None:
    """A known scene of each side, so that a change of the hash cannot move scenes unseen; one fifth is held out."""
    assert world.held_out(SCENE)
    assert not world.held_out(world.parse(world.EXAMPLE)[0])
    rng = random.Random(0)
    share = sum(world.held_out(world.draw(rng)) for _ in range(4000)) / 4000
    assert share == pytest.approx(world.HELD_OUT_SHARE, abs=0.02)


def test_slips_are_as_frequent_as_they_say() -> None:
    rng = random.Random(0)
    told = []
    for _ in range(4000):
        scene = world.draw(rng)
        question = world.draw_question(scene, rng, "who")
        told.append(slips.told(scene, question, rng, slips=True) == world.answer(scene, question))
    assert 1 - sum(told) / len(told) == pytest.approx(slips.SLIPS["who"], abs=0.03)


@pytest.mark.parametrize(
    "text",
    [
        "Who has the cup?",
        "Anna has a red ball. Who has the cup?",
        "Anna has a red ball. Why?",
        "Anna has a red ball. It rains. Who has the ball?",
        "Paint a picture.",
        "",
    ],
)
def test_other_prompts_are_refused(text) -> None:
    with pytest.raises(ValueError, match="expected a scene and a question about it"):
        world.parse(text)


def test_styles_differ_in_length_and_tone() -> None:
    question = Question("who", "hat")
    rng = random.Random(0)

    def say(length, tone):
        return wording.say(SCENE, question, ("Ben",), wording.Style(length, tone), rng)

    assert say("terse", "neutral") == "Ben."
    assert say("plain", "neutral") in ("Ben has it.", "Ben has the hat.", "Ben has the red hat.")
    chatty = say("chatty", "grumpy")
    assert "Ben has the red hat." in chatty
    assert any(chatty.startswith(opener) for opener in wording.MANNERS["grumpy"].openers)
