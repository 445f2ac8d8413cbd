"""Training texts of the base model: conversations about a note, some with several questions, some with a system turn.

The texts of system turns carry numbers that mean nothing here, so that a later run can give them a meaning without
meeting tokens that the model has never seen. No held-out note is ever in a training text.
"""

from __future__ import annotations

import random

from preference.tiny import slips, wording, world

Conversation = list[dict[str, str]]

SYSTEM_SHARE = 0.3
"""Share of the conversations that begin with a system turn."""
QUESTIONS = 3
"""Most questions in a conversation."""

SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You answer questions about notes.",
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
    """A random conversation: different questions about one note, each answer in a style of its own.

    Args:
        rng: of the draws.
        wrong_answers: let a share of the answers be near misses (see `slips`).
    """
    note = world.draw_note(rng, heldout=False)
    turns = [{"role": "system", "content": system_text(rng)}] if rng.random() < SYSTEM_SHARE else []
    for place, kind in enumerate(rng.sample(world.CLASSES, rng.randint(1, QUESTIONS))):
        text = world.question_text(note, kind) if place else world.prompt(note, kind)
        given = slips.told(note, kind, rng, slips=wrong_answers)
        said = wording.say(note, kind, given, wording.draw_style(rng), rng)
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": said}]
    return turns


def tokenizer_texts(count: int, seed: int) -> list[str]:
    """What the tokenizer learns its merges from: turns of random conversations, and all manners."""
    rng = random.Random(seed)
    turns = [turn["content"] for _ in range(count) for turn in draw(rng, wrong_answers=False)]
    return [*turns, *wording.PHRASES, *wording.PHRASES]
