"""A vision-language model as a judge: what it is sent, and the number in what it says. No network in here.

A server brings the model, or the address of one behind an OpenAI-style interface; see docs/http_scorer.md.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from align.rewards.http_protocol import encode_image
from align.rewards.outcome import Unscored

if TYPE_CHECKING:
    from PIL.Image import Image

FINAL = re.compile(r"Final Score:\s*\**\s*([0-9]+(?:\.[0-9]+)?)")
TAGGED = re.compile(r"<score>\s*([0-9]+)\s*</score>", re.IGNORECASE)
BEST = 5
NO_SCORE = Unscored("was answered by the judge without a score")


def final_score(answer: str) -> float | None:
    """The first `Final Score: x` with x from 1 to 5, over 5; None without one. UnifiedReward's form."""
    numbers = (float(text) for text in FINAL.findall(answer))
    return next((number / BEST for number in numbers if 1 <= number <= BEST), None)


def tagged_score(answer: str) -> float | None:
    """The first whole number from 0 to 5 in a score tag, over 5; None without one. Form of the Qwen-VL judge."""
    numbers = (int(text) for text in TAGGED.findall(answer))
    return next((number / BEST for number in numbers if number <= BEST), None)


def score_of(
    answer: str, parse: Callable[[str], float | None] = final_score, unparsed: float | Unscored = NO_SCORE
) -> float | Unscored:
    """The score in a judge's answer.

    Args:
        answer: its text.
        parse: `final_score`, `tagged_score` or your own.
        unparsed: where it has none. Released training code gives 0, which punishes the picture for the judge's words;
            by default the sample is unscored.
    """
    score = parse(answer)
    return unparsed if score is None else score


def chat_request(model: str, image: Image, question: str, side: int = 512, max_tokens: int = 512) -> dict[str, Any]:
    """A request to an OpenAI-style chat interface: one picture, one question, temperature 0.

    Args:
        model: name of the model there.
        image: the picture; its longer side is scaled down to `side`.
        question: what the judge is asked.
        side: in pixels.
        max_tokens: of the answer.
    """
    import PIL.Image

    scale = min(1.0, side / max(image.size))
    size = tuple(max(1, round(length * scale)) for length in image.size)
    file = base64.b64encode(encode_image(image.resize((size[0], size[1]), PIL.Image.Resampling.BICUBIC))).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}},
        {"type": "text", "text": question},
    ]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
