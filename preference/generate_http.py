"""Answers of a server with an OpenAI-style interface (vLLM, llama.cpp, TGI ...), by JSON over HTTP.

One request for one answer, with a seed of its own, several at once. What may pass is tried again; what will not ends
the command, and the rows that are done stay. Keys are in no message: see `align/rewards/http_client.py`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from align.engine.random import seed_of
from align.errors import AlignError
from align.rewards.http_client import Client, Patience, RequestError, check_url
from align.rewards.http_protocol import excerpt
from align.rewards.options import secret
from preference.candidates import Answer
from preference.config import CandidatesConfig, ServerConfig
from preference.data import Texts
from preference.formats import Text

PLACES = {"chat": "chat/completions", "completions": "completions"}
"""Interface -> end of the address."""
SEEDS = 2**31
"""Servers take seeds of 31 bits."""
DAY = 86_400.0


class ServerAnswers:
    """Answers by HTTP.

    Args:
        server: where, and how patiently.
        settings: how answers are sampled.
        texts: prompts.
        seed: of the run.

    Raises:
        AlignError: an address, a token or a prompt that cannot be used.
    """

    def __init__(self, server: ServerConfig, settings: CandidatesConfig, texts: Texts, seed: int) -> None:
        self._server, self._settings, self._texts, self._seed = server, settings, texts, seed
        self.at_once = 4 * server.in_flight
        url = check_url(server.url).rstrip("/")
        patience = Patience(timeout=server.timeout, retries=server.retries, backoff=server.backoff)
        self._stop = threading.Event()
        token = secret("token_env", server.token_env)
        self._client = Client(url=f"{url}/{PLACES[server.api]}", patience=patience, token=token, stop=self._stop)
        chats = [place for place, row in zip(texts.places, texts.rows, strict=True) if row.is_chat]
        if server.api == "completions" and chats:
            raise AlignError(
                f"{chats[0]}: the prompt is a conversation, but `candidates.server.api: completions` sends plain text.",
                "Set `candidates.server.api: chat`.",
            )

    def identity(self) -> Mapping[str, Any]:
        settings, server = self._settings, self._server
        return {
            "model": server.model,
            "sampling": {
                "max_new_tokens": settings.max_new_tokens,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "api": server.api,
                **server.parameters,
            },
        }

    def usable(self) -> Sequence[int]:
        return range(len(self._texts))

    def answers(self, wanted: Sequence[tuple[int, int]]) -> list[Answer]:
        """In the order of `wanted`.

        Raises:
            AlignError: the server gives no usable answer.
        """
        with (
            urllib3.PoolManager(maxsize=self._server.in_flight) as connections,
            ThreadPoolExecutor(max_workers=self._server.in_flight, thread_name_prefix="candidates") as workers,
        ):
            try:
                asked = [workers.submit(self._ask, connections, place, number) for place, number in wanted]
                return [future.result() for future in asked]
            except BaseException:  # a failure or an interrupt: let no thread sleep on in a pause
                self._stop.set()
                workers.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, connections: urllib3.PoolManager, place: int, number: int) -> Answer:
        body = json.dumps(self.request(place, number)).encode()
        try:
            return read_answer(self._client.post(connections, body, time.monotonic() + DAY))
        except (RequestError, ValueError) as error:
            raise AlignError(
                f"the server at {self._client.url} {error} (prompt: {self._texts.places[place]}).",
                "Repair it and give the same command again: finished prompts are kept.",
            ) from error

    def request(self, place: int, number: int) -> dict[str, Any]:
        """The body of a request."""
        row, settings = self._texts.rows[place], self._settings
        seed = seed_of("candidates", self._seed, self._texts.numbers[place], number) % SEEDS
        fields = {
            "model": self._server.model,
            **_prompt(row.prompt),
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "n": 1,
            "seed": seed,
        }
        tools = {} if row.tools is None else {"tools": [dict(tool) for tool in row.tools]}
        return {**fields, **tools, **self._server.parameters}


def _prompt(prompt: Text) -> dict[str, Any]:
    return {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(turn) for turn in prompt]}


def read_answer(body: bytes) -> Answer:
    """The answer in a response of either interface.

    Raises:
        ValueError: it is none; the text goes on from "the server ...".
    """
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f"answered with no text in `choices`: {excerpt(body)}") from None
    if not isinstance(text, str):
        raise ValueError(f"answered with {type(text).__name__} instead of a text: {excerpt(body)}")
    tokens = (found.get("usage") or {}).get("completion_tokens")
    finish = choice.get("finish_reason")
    return Answer(text=text, finish=str(finish or "unknown"), tokens=tokens if isinstance(tokens, int) else None)
