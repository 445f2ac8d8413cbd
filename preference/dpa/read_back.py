"""Does the model read the direction? The control text must come back out of the tokens of a prompt.

It does not where a chat template drops system turns, where a tokenizer has no tokens for some character, or where a
long prompt is cut at its start, which is where the control text stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.control import Vector
from align.errors import AlignError
from preference.data import Texts
from preference.dpa.control import Control
from preference.dpa.steering import under_directions
from preference.tokenise import tokenise_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from preference.config.data import TokensConfig

SHOWN = 160
"""Characters of what came back that a message quotes."""


def check_read_back(
    control: Control, vectors: Sequence[Vector], prompts: Texts, tokenizer: Any, settings: TokensConfig
) -> None:
    """Refuse directions that do not reach the model; spaces and case may differ.

    Args:
        control: puts directions into words.
        vectors: directions; each is tried on the first prompt, the first of them on every prompt that is cut.
        prompts: without a direction in them.
        tokenizer: of the model (Any: transformers').
        settings: how texts become tokens.

    Raises:
        AlignError: prompts that cannot be used, or a control text that does not come back; quotes what does.
    """
    asked = tokenise_prompts(under_directions(prompts, control, vectors[:1]), tokenizer, settings)
    if control.placement == "none" or len(prompts) == 0:
        return
    for vector in vectors:
        first = tokenise_prompts(under_directions(prompts.select([0]), control, [vector]), tokenizer, settings)
        for ids in first.prompt_ids:
            decoded = _decoded(tokenizer, ids)
            if not _holds(decoded, control.text(vector)):
                raise AlignError(
                    f"the control text `{control.text(vector)}` does not come back out of the tokens of a prompt: "
                    f"`{decoded[:SHOWN]}`.",
                    "If the chat template drops system turns, use `algorithm.placement: prefix`; if the tokenizer has "
                    "no tokens for some character, write `algorithm.template` in others; if the prompt is cut, raise "
                    "`data.max_prompt_length`.",
                )
    cut = [row for row, ids in enumerate(asked.prompt_ids) if len(ids) >= settings.max_prompt_length]
    lost = [row for row in cut if not _holds(_decoded(tokenizer, asked.prompt_ids[row]), control.text(vectors[0]))]
    if lost:
        raise AlignError(
            f"{len(lost)} of {len(asked)} prompts of {prompts.report.source} are cut at {settings.max_prompt_length} "
            "tokens and lose their direction, which stands at their start; the first is "
            f"`{asked.prompts[lost[0]][:60]}`.",
            "Raise `data.max_prompt_length`, leave them out (`data.long_prompts: skip`), or keep their start "
            "(`data.long_prompts: keep_start`).",
        )


def _decoded(tokenizer: Any, ids: Tensor) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _holds(decoded: str, text: str) -> bool:
    return _squeezed(text) in _squeezed(decoded)


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()
