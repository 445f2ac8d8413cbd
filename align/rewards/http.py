"""Any scorer behind an address: heavy networks, packages that do not fit into this environment, judges.

Samples go out as JSON in batches, several at once; scores come back and stay in a cache on disk. The protocol is in
`http_protocol.py`; `python -m align.rewards.serve` serves any reward by it. What a server does wrong leaves samples
unscored, with the reason; nothing that it did right is lost.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from align.errors import AlignError, did_you_mean
from align.rewards.http_cache import ScoreCache, as_text, default_path
from align.rewards.http_client import Client, Patience, RequestError, check_url
from align.rewards.http_protocol import FORMATS, ProtocolError, Request, encode_image, read_answer
from align.rewards.options import one_of, positive, secret, whole
from align.rewards.outcome import ScorerStopped, Unscored

if TYPE_CHECKING:
    from PIL.Image import Image

ON_ERROR = ("unscored", "stop")
Named = Mapping[str, "float | Unscored"]


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """What a server hears of a sample."""

    prompt: str
    image: Image | None
    completion: str | None
    columns: Mapping[str, Any]  # Any: the user's own data, JSON


class HttpScore:
    """Whatever the server at an address measures: ImageReward, GenEval, a VLM judge, your own.

    Args:
        url: of the server, http or https.
        score: which score, where the server gives several. Entries for one server that differ in this and `name` only
            share its answers through the cache.
        columns: data-set columns that the server gets, beside prompts and pictures or texts.
        parameters: constants for the server, as JSON.
        image_format: png (exact) or jpeg (quality 95; smaller).
        batch_size: samples in one request.
        in_flight: requests at once.
        timeout: seconds for one request.
        retries: further tries after the first, on broken connections, time-outs, 429 and 5xx. Pauses double from
            `backoff` to 30 s; the defaults outlast a server that is gone for a minute.
        backoff: seconds before the first further try.
        time_limit: seconds for one call, all its samples and tries together.
        on_error: `unscored` goes on without these samples, `stop` ends the run.
        cache: `true` is a file in the user's cache folder, `false` none, a text its path.
        cache_rows: at most so many scores stay on disk.
        version: change it when the server's model changes; older scores in the cache no longer count then.
        token_env: environment variable with a bearer token. The token itself is in no config and no log.
    """

    def __init__(
        self,
        url: str,
        score: str | None = None,
        columns: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        image_format: str = "png",
        batch_size: int = 8,
        in_flight: int = 4,
        timeout: float | int = 60.0,
        retries: int = 8,
        backoff: float | int = 1.0,
        time_limit: float | int = 600.0,
        on_error: str = "unscored",
        cache: bool | str | None = True,
        cache_rows: int = 1_000_000,
        version: str = "",
        token_env: str | None = None,
    ) -> None:
        one_of("on_error", on_error, ON_ERROR)
        one_of("image_format", image_format, FORMATS)
        for name, value in (("batch_size", batch_size), ("in_flight", in_flight), ("cache_rows", cache_rows)):
            whole(name, value)
        whole("retries", retries, least=0)
        positive("timeout", timeout)
        positive("time_limit", time_limit)
        positive("backoff", backoff, zero=True)
        if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
            raise AlignError(f"option `columns` expects a list of names, found {columns!r}.", "Write [tag, include].")
        self.url, self.score, self.columns, self.parameters = check_url(url), score, tuple(columns), parameters or {}
        self.image_format, self.batch_size, self.in_flight = image_format, batch_size, in_flight
        self.time_limit, self.stops, self.version = time_limit, on_error == "stop", version
        self.patience = Patience(timeout=timeout, retries=retries, backoff=backoff)
        path = Path(cache).expanduser() if isinstance(cache, str) else default_path()
        self.cache = ScoreCache(path, cache_rows) if cache else None
        self._token = secret("token_env", token_env)

    def __call__(
        self,
        *,
        prompts: Sequence[str],
        images: Sequence[Image] | None = None,
        completions: Sequence[str] | None = None,
        **columns: Sequence[Any],
    ) -> list[float | Unscored]:
        """One score per sample, or why there is none.

        Raises:
            ScorerStopped: a request failed and `on_error` is `stop`. All requests have been made by then.
        """
        self._check_columns(columns)
        samples = [
            _Sample(
                prompt=prompt,
                image=None if images is None else images[row],
                completion=None if completions is None else completions[row],
                columns={name: columns[name][row] for name in self.columns},
            )
            for row, prompt in enumerate(prompts)
        ]
        keys = [self._key(sample) for sample in samples]
        answers: dict[bytes, Named] = dict(self.cache.get(list(dict.fromkeys(keys)))) if self.cache else {}
        wanted = dict(zip(keys, samples, strict=True))
        wanted = {key: sample for key, sample in wanted.items() if not self._is_scored(answers.get(key))}
        failures = self._ask(wanted, answers)
        if failures and self.stops:
            raise ScorerStopped(
                f"the scorer at {self.url} {failures[0]}.",
                "Repair the server, or go on without these samples by `on_error: unscored`. Scores so far are cached.",
            )
        return [self._chosen(answers[key]) for key in keys]

    def check_rows(self, *, prompts: Sequence[str], **columns: Sequence[Any]) -> None:
        """Refuse columns that are missing or are not JSON.

        Raises:
            AlignError: names the column.
        """
        self._check_columns(columns)
        for name in self.columns:
            try:
                as_text(columns[name])
            except (TypeError, ValueError) as error:
                raise AlignError(f"column `{name}` is not JSON ({error}).", "Leave it out of `columns`.") from None

    def _ask(self, wanted: Mapping[bytes, _Sample], answers: dict[bytes, Named]) -> list[str]:
        """Fill `answers` for the wanted samples; the reasons of the requests that failed."""
        rows, failures = list(wanted.items()), []
        if not rows:
            return failures
        deadline, stop = time.monotonic() + self.time_limit, threading.Event()
        client = Client(url=self.url, patience=self.patience, token=self._token, stop=stop)
        parts = [dict(rows[start : start + self.batch_size]) for start in range(0, len(rows), self.batch_size)]
        with (
            urllib3.PoolManager(maxsize=self.in_flight) as connections,
            ThreadPoolExecutor(max_workers=self.in_flight, thread_name_prefix="http_scorer") as workers,
        ):
            try:
                asked = [workers.submit(self._ask_part, client, connections, part, deadline) for part in parts]
                for part, future in zip(parts, asked, strict=True):
                    found, reason = future.result()
                    answers.update(found)
                    if reason:
                        failures.append(reason)
                        answers.update({key: {"": Unscored(reason)} for key in part})
            except BaseException:  # an interrupt: let no thread sleep on in a pause
                stop.set()
                workers.shutdown(wait=False, cancel_futures=True)
                raise
        return failures

    def _ask_part(
        self, client: Client, connections: urllib3.PoolManager, part: Mapping[bytes, _Sample], deadline: float
    ) -> tuple[dict[bytes, Named], str]:
        """One request: its scores, cached before anything else happens, or why there are none."""
        try:
            answer = client.post(connections, self._request(list(part.values())).body(), deadline)
            scores = read_answer(answer, len(part))
        except (RequestError, ProtocolError) as error:
            return {}, str(error)
        if len(scores) == 1:  # its name does not matter to an entry that names none
            scores = {**scores, "": next(iter(scores.values()))}
        found = {key: {name: values[row] for name, values in scores.items()} for row, key in enumerate(part)}
        if self.cache:
            self.cache.put(
                {
                    key: {name: score for name, score in named.items() if not isinstance(score, Unscored)}
                    for key, named in found.items()
                }
            )
        chosen = self._chosen(next(iter(found.values())))
        missing = isinstance(chosen, _Missing)
        return ({}, chosen.reason) if missing else (dict(found), "")

    def _request(self, samples: Sequence[_Sample]) -> Request:
        images = [sample.image for sample in samples if sample.image is not None]
        texts = [sample.completion for sample in samples if sample.completion is not None]
        return Request(
            prompts=[sample.prompt for sample in samples],
            images=[base64.b64encode(encode_image(image, self.image_format)).decode() for image in images],
            completions=texts,
            columns={name: [sample.columns[name] for sample in samples] for name in self.columns},
            name=self.score,
            parameters=self.parameters,
        )

    def _key(self, sample: _Sample) -> bytes:
        """What decides a score: who is asked, and all that it hears. Not: which of its scores."""
        image = sample.image.convert("RGB") if sample.image is not None else None
        size = image.size if image is not None else None
        heard = [sample.prompt, sample.completion, dict(sample.columns), size, self.image_format]
        digest = hashlib.sha256(as_text([self.url, self.version, dict(self.parameters), heard]))
        digest.update(image.tobytes() if image is not None else b"")
        return digest.digest()

    def _chosen(self, named: Named) -> float | Unscored:
        """The wanted one of a sample's scores."""
        if self.score is None:
            if "" in named:
                return named[""]
            return _Missing(f"was answered with several scores ({', '.join(named)}); choose one by option `score`")
        if self.score in named:
            return named[self.score]
        if isinstance(named.get(""), Unscored):
            return named[""]
        names = ", ".join(name for name in named if name) or "one without a name"
        return _Missing(
            f"was answered without the score `{self.score}`.{did_you_mean(self.score, named)} The server has: {names}"
        )

    def _is_scored(self, named: Named | None) -> bool:
        return bool(named) and not isinstance(self._chosen(named or {}), Unscored)

    def _check_columns(self, columns: Mapping[str, Sequence[Any]]) -> None:
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise AlignError(
                f"option `columns` names `{missing[0]}`, but the prompts' columns are: {', '.join(columns) or 'none'}."
                f"{did_you_mean(missing[0], columns)}",
                "Correct it, or add the column to the prompt file.",
            )


class _Missing(Unscored):
    """The server answered, but not with the score that is wanted: no other sample will have it either."""
