"""Training texts of the base model: conversations about a scene, several questions each, some with a system turn.

The texts of system turns carry numbers that mean nothing here, so that a later run can give them a meaning without
meeting tokens that the model has never seen. No held-out scene is ever in a training text.
"""

from __future__ import annotations

import random

from preference.tiny import slips, wording, world

Conversation = list[dict[str, str]]

SYSTEM_SHARE = 0.3
"""Share of the conversations that begin with a system turn."""
QUESTIONS = 6
"""Most questions in a conversation of any style."""
DRILLED = 9
"""Questions in a conversation that only drills reading: all different, the answers short."""

SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You answer questions about scenes.",
    "Answer the user well.",
    "Aim for the best value of {} x relevance + {} x brevity + {} x positivity.",
    "Answer the user well. Aim for the best value of {} x relevance + {} x brevity + {} x positivity.",
    "Answer the user well. Aim for the best value of {} x relevance + {} x brevity.",
    "Weights: relevance {}, brevity {}, positivity {}.",
)


def system_text(rng: random.Random) -> str:
    """A random text of a system turn; its numbers are whole, from -100 to 100."""
    text = rng.choice(SYSTEM_TEXTS)
    return text.format(*(rng.randint(-100, 100) for _ in range(text.count("{}"))))


def draw(rng: random.Random, *, wrong_answers: bool) -> Conversation:
    """A random conversation, each answer in a style of its own.

    Args:
        rng: of the draws.
        wrong_answers: let a share of the answers be near misses (see `slips`).
    """
    scene = world.draw_scene(rng, heldout=False)
    turns = [{"role": "system", "content": system_text(rng)}] if rng.random() < SYSTEM_SHARE else []
    asked = [world.draw_question(scene, rng) for _ in range(rng.randint(1, QUESTIONS))]
    for place, question in enumerate(asked):
        given = slips.told(scene, question, rng, slips=wrong_answers)
        said = wording.say(scene, question, given, wording.draw_style(rng), rng)
        turns += _exchange(scene, question, said, first=place == 0)
    return turns


def drill(rng: random.Random) -> Conversation:
    """A random conversation that is nearly all reading: many different questions, true and mostly bare answers."""
    scene = world.draw_scene(rng, heldout=False)
    every = [world.Question(kind, about) for kind in world.CLASSES for about in world.askable(scene, kind)]
    turns: Conversation = []
    for question in rng.sample(every, min(DRILLED, len(every))):
        style = wording.Style("terse" if rng.random() < 0.7 else "plain", "neutral")
        said = wording.say(scene, question, world.answer(scene, question), style, rng)
        turns += _exchange(scene, question, said, first=not turns)
    return turns


def _exchange(scene: world.Scene, question: world.Question, said: str, *, first: bool) -> Conversation:
    """A question and its answer; the scene stands before the first question only."""
    text = world.prompt(scene, question) if first else question.text()
    return [{"role": "user", "content": text}, {"role": "assistant", "content": said}]


def tokenizer_texts(count: int, seed: int) -> list[str]:
    """What the tokenizer learns its merges from: turns of random conversations, and all manners."""
    rng = random.Random(seed)
    turns = [turn["content"] for _ in range(count) for turn in draw(rng, wrong_answers=False)]
    return [*turns, *wording.PHRASES, *wording.PHRASES]
