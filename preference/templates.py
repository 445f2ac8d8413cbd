"""Prompts and answers as the texts that are tokenised: through the chat template, or as they are.

    prompt   template(prompt, with the generation prompt)
    whole    template(prompt + answer)

The template sees every conversation whole and once; nothing is rendered in pieces. Where the answer begins is found
later, by token ids. Here it is only made sure that the template says the same about the prompt both times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from align.errors import AlignError
from preference.formats import Messages, Text, TextRow, Unusable

_AROUND = 30


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Texts of a row.

    Attributes:
        prompt: up to where the model is to answer.
        wholes: prompt and answer, one for each answer.
        is_chat: whether a template has written them; the tokenizer then adds no special tokens of its own.
        own_start: the template begins answers otherwise than its generation prompt promises.
    """

    prompt: str
    wholes: tuple[str, ...]
    is_chat: bool
    own_start: bool = False


@dataclass(frozen=True)
class Templates:
    """The chat template of a tokenizer (Any: transformers' tokenizers have no common type here).

    Attributes:
        tokenizer: a tokenizer of transformers.
        options: arguments for the template; those of a row come on top.
    """

    tokenizer: Any
    options: Mapping[str, Any]

    def render(self, row: TextRow) -> Rendered:
        """The texts of a row.

        Raises:
            Unusable: the template refuses the row, or changes the prompt when an answer stands behind it.
            AlignError: there is no template.
        """
        if isinstance(row.prompt, str):
            wholes = tuple(row.prompt + _plain(response) for response in row.responses)
            return Rendered(prompt=row.prompt, wholes=wholes, is_chat=False)
        prompt = self._prompt(row, row.prompt)
        wholes = tuple(self._apply(row, _joined(row.prompt, response)) for response in row.responses)
        own_start = not all(whole.startswith(prompt) for whole in wholes)
        if own_start:
            self._check_unchanged(row, row.prompt, wholes)
        return Rendered(prompt=prompt, wholes=wholes, is_chat=True, own_start=own_start)

    def _prompt(self, row: TextRow, prompt: Messages) -> str:
        if prompt[-1]["role"] == "assistant":  # the answer goes on with a turn that has been begun
            return self._apply(row, prompt, continue_final_message=True)
        return self._apply(row, prompt, add_generation_prompt=True)

    def _check_unchanged(self, row: TextRow, prompt: Messages, wholes: tuple[str, ...]) -> None:
        """The conversation before the answer must read the same with and without an answer."""
        begun = prompt[-1]["role"] == "assistant"
        bare = self._apply(row, prompt, continue_final_message=True) if begun else self._apply(row, prompt)
        for whole in wholes:
            if not whole.startswith(bare):
                before, after = _difference(bare, whole)
                raise Unusable(
                    f"the chat template changes the prompt when an answer stands behind it: {before!r} becomes "
                    f"{after!r}, so the model would be trained on prompts that it never meets"
                )

    def _apply(self, row: TextRow, messages: Messages, **how: bool) -> str:
        if self.tokenizer.chat_template is None:
            raise AlignError(
                "the data are conversations, but the model's tokenizer has no chat template.",
                "Name a Jinja file in `model.chat_template`, or give plain texts.",
            )
        tools = None if row.tools is None else [dict(tool) for tool in row.tools]
        options = {**self.options, **row.template_options}
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tools=tools, tokenize=False, **how, **options
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise Unusable(f"the chat template refuses it: {error}") from error


def _plain(text: Text) -> str:
    if not isinstance(text, str):
        raise Unusable("the prompt is a text, but an answer is a conversation")
    return text


def _joined(prompt: Messages, response: Text) -> Messages:
    """The whole conversation. An answer to a prompt that has begun it goes on in the same turn."""
    if isinstance(response, str):
        response = ({"role": "assistant", "content": response},)
    last, first = prompt[-1], response[0]
    if last["role"] == first["role"] == "assistant":
        content = f"{last.get('content') or ''}{first.get('content') or ''}"
        return (*prompt[:-1], {**last, **first, "content": content}, *response[1:])
    return (*prompt, *response)


def _difference(before: str, after: str) -> tuple[str, str]:
    """Where two texts part, with what stands around it."""
    shorter = min(len(before), len(after))
    place = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    start = max(0, place - _AROUND)
    return before[start : place + _AROUND], after[start : place + _AROUND]
