"""Whether a direction in a prompt reaches the picture: not cut off, and not read as another one.

A text encoder with few tokens loses the end of a long text, and one whose words are fixed may read all numbers alike.
Both are found before a run, with the tokenizers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align.control import Vector, draw_directions
from align.errors import AlignError
from diffusion.config import DiffusionRun
from diffusion.config.directions import PromptCondition
from diffusion.directions.ask import Asker

TRIED = 64
"""Random directions that are looked at beside the shown ones."""


def tried(asker: Asker) -> list[Vector]:
    """The shown directions and some random ones, each once."""
    drawn = draw_directions(asker.sample, asker.names, TRIED, asker.seed, "readable")
    return list(dict.fromkeys([*asker.shown, *drawn]))


def with_directions(config: DiffusionRun, texts: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Prompts as the text encoders read them, each with the longest direction; as they are where none is printed.

    Args:
        config: of the run.
        texts: prompts of each source.
    """
    asker = Asker.of(config)
    if asker is None or not isinstance(asker.condition, PromptCondition):
        return dict(texts)
    longest = max(tried(asker), key=lambda vector: len(asker.texts([""], vector)[0]))
    return {name: asker.texts(prompts, longest) for name, prompts in texts.items()}


def check_readable(config: DiffusionRun, prompt: str) -> None:
    """Refuse a control text whose numbers the tokenizers cannot tell apart.

    Args:
        config: of the run; the tokenizers of its model are loaded, nothing else.
        prompt: one that the model will read.

    Raises:
        AlignError: two directions that every tokenizer reads alike.
    """
    from diffusion.models.prompt_length import load_tokenizers, prompt_limits

    asker = Asker.of(config)
    if asker is None or not isinstance(asker.condition, PromptCondition):
        return
    vectors, limits = tried(asker), prompt_limits(config.model)
    read: dict[tuple[tuple[int, ...], ...], Vector] = {}
    tokenizers = load_tokenizers(config.model)
    for vector in vectors:
        (text,) = asker.texts([prompt], vector)
        rows = tuple(
            tuple(one(text, truncation=True, max_length=limits[name] or one.model_max_length).input_ids)
            for name, one in tokenizers.items()
        )
        if rows in read:
            raise AlignError(
                f"the text encoders read {asker.label(read[rows])} and {asker.label(vector)} as the same text.",
                "Shorten `directions.condition.template`, put it before the prompt, or tell the direction through an "
                "embedding: `directions.condition: {kind: embedding}`.",
            )
        read[rows] = vector
