"""One request to a scorer's server, with patience: what may pass is tried again, what will not is reported at once.

Tried again, after a pause that doubles: no connection, a broken one, a time-out, 429 and 5xx. Not: any other status, a
redirect (a token must not travel on), an answer that breaks the protocol.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import urllib3

from align.errors import AlignError
from align.rewards.http_protocol import excerpt

AGAIN = frozenset({408, 425, 429, *range(500, 600)})
CHUNK = 64 * 1024


class RequestError(Exception):
    """No usable answer; the text is the reason that is counted."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often.

    Attributes:
        timeout: seconds for one request, connecting included.
        retries: further tries after the first.
        backoff: seconds before the first further try; doubled each time, up to `longest`. The pause is drawn between
            half of that and all of it, so that many clients do not come back at once.
        longest: seconds.
        answer_limit: largest answer that is read, in bytes.
    """

    timeout: float | int = 60.0
    retries: int = 8
    backoff: float | int = 1.0
    longest: float = 30.0
    answer_limit: int = 16_000_000

    def pause(self, tries: int) -> float:
        """Seconds to wait after so many failed tries (from 1)."""
        full = min(self.backoff * 2.0 ** (tries - 1), self.longest)
        return full * random.SystemRandom().uniform(0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Client:
    """Posts bodies to one address.

    Attributes:
        url: http or https.
        patience: when to give up on a request.
        token: bearer token, None for none. It is in no message and no repr.
        stop: set from another thread, it ends all pauses.
    """

    url: str
    patience: Patience
    token: str | None = field(default=None, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def post(self, pool: urllib3.PoolManager, body: bytes, deadline: float) -> bytes:
        """The body of a successful answer.

        Args:
            pool: its connections.
            body: JSON.
            deadline: `time.monotonic()` at which to give up.

        Raises:
            RequestError: why there is none.
        """
        reason, tries = "", 0
        for tries in range(1, self.patience.retries + 2):
            left = deadline - time.monotonic()
            if left <= 0 or self.stop.is_set():
                raise RequestError("was given up: the time limit of the call is over")
            status, headers, answer, trouble = self._try(pool, body, min(self.patience.timeout, left))
            if status is not None and 200 <= status < 300 and not trouble:
                return answer
            reason = self._without_token(trouble or _refusal(status or 0, headers, answer))
            if status is not None and status not in AGAIN:
                raise RequestError(reason)
            if tries > self.patience.retries:
                break
            pause = max(self.patience.pause(tries), _retry_after(headers))
            if time.monotonic() + pause >= deadline:
                raise RequestError(f"{reason}; the next try would be after the time limit of the call")
            self.stop.wait(pause)
        raise RequestError(f"{reason}, {tries} times" if tries > 1 else reason)

    def _try(
        self, pool: urllib3.PoolManager, body: bytes, timeout: float
    ) -> tuple[int | None, Mapping[str, str], bytes, str]:
        """Status (None without an answer), headers, body, and what went wrong on the way."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        until = time.monotonic() + timeout
        try:
            response = pool.request(
                "POST",
                self.url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                answer, trouble = self._read(response, until)
            finally:
                response.close()  # a fully read answer has given its connection back already
            return (None if trouble == _SLOW else response.status), response.headers, answer, trouble
        except urllib3.exceptions.HTTPError as error:
            return None, {}, b"", _connection_trouble(error)

    def _read(self, response: urllib3.BaseHTTPResponse, until: float) -> tuple[bytes, str]:
        """An answer piece by piece: one that drips or never ends must not hold the run."""
        parts, size = [], 0
        while part := response.read1(CHUNK, decode_content=True):  # what has arrived, without waiting for all of it
            size += len(part)
            if size > self.patience.answer_limit:
                return b"", f"answered more than {self.patience.answer_limit} bytes"
            if time.monotonic() > until:
                return b"", _SLOW
            parts.append(part)
        return b"".join(parts), ""

    def _without_token(self, reason: str) -> str:
        return reason.replace(self.token, "***") if self.token else reason


_SLOW = "timed out while it answered"


def check_url(url: str) -> str:
    """An address that can be asked.

    Raises:
        AlignError: no http or https address, or one that holds a password.
    """
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AlignError(
            f"option `url` expects an http or https address, found {url!r}.", "For example `http://localhost:8000/`."
        )
    try:
        _ = parts.port
    except ValueError as error:
        raise AlignError(f"option `url` is {url!r}: {error}.", "For example `http://localhost:8000/`.") from None
    if parts.username or parts.password:
        raise AlignError(
            "option `url` holds a user name or password, which would be saved with the config.",
            "Put a token into an environment variable and its name into `token_env`.",
        )
    return url


def _refusal(status: int, headers: Mapping[str, str], answer: bytes) -> str:
    if 300 <= status < 400:
        return f"was redirected ({status}); redirects are not followed, write the final address"
    hint = {401: " (a token is missing or wrong)", 403: " (the token may not do this)"}.get(status, "")
    said = excerpt(answer)
    return f"was refused with status {status}{hint}" + (f": {said}" if said else "")


def _connection_trouble(error: urllib3.exceptions.HTTPError) -> str:
    """Without addresses of objects or ports of ours: equal troubles are counted together."""
    if isinstance(error, urllib3.exceptions.SSLError):
        return "could not be reached (TLS: the certificate or the encryption was refused)"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "could not be reached (the host's name is unknown)"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "could not be reached (no connection)"
    if isinstance(error, urllib3.exceptions.TimeoutError):  # after the two before, which are time-outs to urllib3
        return "timed out"
    return f"broke the connection ({type(error).__name__})"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: a number or a date; 0 without a usable one."""
    text = headers.get("Retry-After", "")
    try:
        return max(0.0, min(float(text), 1e6))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
