r"""Every accepted format -> one: a prompt and its answers, each a text or a list of messages. Torch-free.

| what a row holds | is taken for |
|---|---|
| texts `prompt`, `chosen`, `rejected` | plain text, no chat template |
| messages `prompt`, `chosen`, `rejected` | a conversation and two ways to go on |
| a text `prompt`, conversations `chosen`, `rejected` | the conversations; what they share is the prompt |
| conversations `chosen`, `rejected` | what they share, turn by turn, is the prompt |
| transcripts (`\n\nHuman: ...\n\nAssistant: ...`) | plain text; the turns they share are the prompt |

A prompt is found by comparing turns, never letters: answers that begin alike keep their beginnings. Only where a person
asks for it (`data.shared_words`) the words with which two plain texts begin are their prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = Mapping[str, Any]  # Any: tool calls and whatever else a template reads
Messages: TypeAlias = tuple[Message, ...]
Text: TypeAlias = str | Messages

_SHARE_GPT = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")


class Unusable(Exception):  # noqa: N818 - named for the row, as its message is
    """A row that cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class TextRow:
    """A prompt and its answers; all texts, or all messages.

    Attributes:
        prompt: the text before the answers, or the turns before them.
        responses: one for each answer: the text after the prompt, or the turns after it.
        tools: descriptions of functions, for the template; None = none.
        template_options: arguments of this row for the template.
    """

    prompt: Text
    responses: tuple[Text, ...] = ()
    tools: tuple[Any, ...] | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_chat(self) -> bool:
        """Whether it goes through the chat template."""
        return not isinstance(self.prompt, str)


def normalise(
    prompt: Any, answers: Sequence[Any], names: Sequence[str], row: Mapping[str, Any], *, shared_words: bool = False
) -> TextRow:
    """One row in the one format.

    Args:
        prompt: what the prompt's column holds, or None if there is no such column (Any: a user's data).
        answers: what the columns of the answers hold.
        names: names of these columns, for messages.
        row: the whole row, for `tools` and `chat_template_kwargs`.
        shared_words: take the words with which plain texts begin alike for the prompt, where there is none.

    Raises:
        Unusable: it cannot be read as any format; the message says what was expected and found.
    """
    given = None if prompt is None else as_text(prompt, "prompt")
    texts = [as_text(answer, name) for answer, name in zip(answers, names, strict=True)]
    if given is None and shared_words:
        given, texts = _split_words(texts)
    shared, responses = _split(given, texts, names)
    for response, name in zip(responses, names, strict=True):
        check_answer(response, name)
    if len(responses) == 2 and responses[0] == responses[1]:
        raise Unusable(f"`{names[0]}` and `{names[1]}` are equal: nothing can be learnt from the pair")
    return TextRow(
        prompt=shared, responses=tuple(responses), tools=_tools(row), template_options=_template_options(row)
    )


def as_text(value: Any, name: str) -> Text:
    """A text, or cleaned messages (Any: a user's data).

    Raises:
        Unusable: neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and ("role" in value or "from" in value):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, bytes) and value:
        return tuple(_message(entry, f"{name}[{i}]") for i, entry in enumerate(value))
    raise Unusable(f"`{name}` must be a text or a list of messages, found {_shown(value)}")


def _message(entry: Any, name: str) -> Message:
    if not isinstance(entry, Mapping):
        raise Unusable(f"`{name}` must be a message {{role, content}}, found {_shown(entry)}")
    # Arrow fills the keys that other messages have with None.
    message = {key: value for key, value in entry.items() if value is not None}
    if "from" in message and "value" in message:
        message = {"role": _SHARE_GPT.get(message["from"], message["from"]), "content": message["value"]}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role.strip():
        raise Unusable(f"`{name}.role` must be a text such as user or assistant, found {_shown(role)}")
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = message["content"] = _joined(content, name)
    if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise Unusable(f"`{name}.content` must be a text, found {_shown(content)}")
    return message


def _joined(parts: Sequence[Any], name: str) -> str:
    """Content given as a list of parts: the texts of it."""
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Unusable(f"`{name}.content` holds a part that is no text (a picture?), found {_shown(parts)}")
    return "".join(str(text) for text in texts)


# --- where the prompt ends --------------------------------------------------------------------------------------------


def _split(prompt: Text | None, answers: list[Text], names: Sequence[str]) -> tuple[Text, list[Text]]:
    chats = [answer for answer in answers if not isinstance(answer, str)]
    if chats and len(chats) < len(answers):
        raise Unusable(f"one of {' and '.join(f'`{name}`' for name in names)} is a text, the other a conversation")
    if not chats:
        return _split_texts(prompt, [str(answer) for answer in answers], names)
    return _split_chats(prompt, chats, names)


def _split_texts(prompt: Text | None, answers: list[str], names: Sequence[str]) -> tuple[Text, list[Text]]:
    if isinstance(prompt, str):
        return prompt, list(answers)
    if prompt is not None:
        return prompt, [({"role": "assistant", "content": answer},) for answer in answers]
    transcripts = [_turns(answer) for answer in answers]
    if not all(transcripts):
        raise Unusable(
            "there is no prompt: no such column, and the answers are no conversations that would show where it ends "
            "(`data.shared_words: true` takes the words with which they begin alike)"
        )
    shared = _shared(transcripts)
    _check_parting([turns[shared:] for turns in transcripts], "Assistant", names)
    start = "".join(f"\n\n{speaker}:{text}" for speaker, text in transcripts[0][:shared]) + "\n\nAssistant:"
    return start, [answer[len(start) :] for answer in answers]


def _split_words(answers: list[Text]) -> tuple[str | None, list[Text]]:
    """The words with which plain texts begin alike, and what follows them, with the space before it.

    Conversations and transcripts, whose turns say where the prompt ends, are left as they are.
    """
    texts = [answer for answer in answers if isinstance(answer, str)]
    if len(texts) < max(2, len(answers)) or any(_turns(text) for text in texts):
        return None, answers
    words = [re.findall(r"\s*\S+|\s+$", text) for text in texts]
    start = "".join(words[0][: _shared(words)])
    if not start.strip():
        raise Unusable("there is no prompt: no such column, and the answers do not begin with the same word")
    return start, [text[len(start) :] for text in texts]


def _turns(transcript: str) -> list[tuple[str, str]]:
    """Speakers and what they say; nothing if it is no transcript."""
    parts = _TURN.split(transcript)
    return [] if parts[0] or len(parts) < 3 else list(zip(parts[1::2], parts[2::2], strict=True))


def _split_chats(prompt: Text | None, answers: list[Messages], names: Sequence[str]) -> tuple[Text, list[Text]]:
    whole = answers[0][0]["role"] != "assistant"
    if not isinstance(prompt, str) and prompt is not None:
        if all(answer[: len(prompt)] == prompt for answer in answers):
            answers = [answer[len(prompt) :] for answer in answers]
        elif whole:
            raise Unusable(f"`{names[0]}` is a whole conversation that does not begin with the turns of `prompt`")
        return prompt, list(answers)
    if isinstance(prompt, str) and not whole:
        return ({"role": "user", "content": prompt},), list(answers)
    # One conversation alone has its prompt before its last turn.
    shared = _shared(answers) if len(answers) > 1 else len(answers[0]) - 1
    rest = [answer[shared:] for answer in answers]
    _check_parting([[(turn["role"], "") for turn in turns] for turns in rest], "assistant", names)
    if not shared:
        raise Unusable("there is no prompt: the conversations share no turn")
    return answers[0][:shared], list(rest)


def _shared(conversations: Sequence[Sequence[Any]]) -> int:
    """How many first turns are the same everywhere."""
    first, shortest = conversations[0], min(len(turns) for turns in conversations)
    return next((i for i in range(shortest) if any(turns[i] != first[i] for turns in conversations)), shortest)


def _check_parting(rests: Sequence[Sequence[tuple[str, str]]], speaker: str, names: Sequence[str]) -> None:
    for rest, name in zip(rests, names, strict=True):
        if not rest:
            raise Unusable(f"`{name}` is empty behind the turns that both share")
        if rest[0][0] != speaker:
            raise Unusable(
                f"`{name}` goes on with a turn of {rest[0][0]!r} where the conversations part; expected {speaker!r}"
            )


# --- what stands beside the texts -------------------------------------------------------------------------------------


def check_answer(answer: Text, name: str) -> None:
    """Refuse an answer that says nothing, or that is not the model's.

    Raises:
        Unusable: with the reason.
    """
    if isinstance(answer, str):
        if not answer.strip():
            raise Unusable(f"`{name}` is empty")
        return
    if not answer:
        raise Unusable(f"`{name}` is empty behind the prompt")
    if answer[0]["role"] != "assistant":
        raise Unusable(f"`{name}` must begin with a turn of 'assistant', found {answer[0]['role']!r}")
    if not any(str(turn.get("content") or "").strip() or turn.get("tool_calls") for turn in answer):
        raise Unusable(f"`{name}` is empty")


def _tools(row: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Column `tools`: a list of JSON schemas, or such a list as JSON text."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise Unusable(f"`tools` is no valid JSON: {error.msg} at column {error.colno}") from error
    if not tools:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str) or not all(isinstance(t, Mapping) for t in tools):
        raise Unusable(f"`tools` must be a list of function descriptions, found {_shown(tools)}")
    return tuple(tools)


def _template_options(row: Mapping[str, Any]) -> Mapping[str, Any]:
    options = row.get("chat_template_kwargs")
    if not options:
        return {}
    if not isinstance(options, Mapping):
        raise Unusable(f"`chat_template_kwargs` must be an object, found {_shown(options)}")
    return {key: value for key, value in options.items() if value is not None}


def as_chat(row: TextRow) -> TextRow:
    """Plain texts as turns of user and assistant; conversations stay."""
    if not isinstance(row.prompt, str):
        return row
    return TextRow(
        prompt=({"role": "user", "content": row.prompt},),
        responses=tuple(({"role": "assistant", "content": response},) for response in row.responses),
        tools=row.tools,
        template_options=row.template_options,
    )


def readable(text: Text) -> str:
    """For people and rewards: a text as it is, one turn (beside system turns) as its content, more with their roles."""
    if isinstance(text, str):
        return text
    spoken = [turn for turn in text if turn["role"] != "system"]
    if len(spoken) == 1:
        return str(spoken[0].get("content") or json.dumps(spoken[0].get("tool_calls")))
    return "\n\n".join(f"{turn['role']}: {turn.get('content') or json.dumps(turn.get('tool_calls'))}" for turn in text)


def _shown(value: Any) -> str:
    return f"{value!r:.40}"
