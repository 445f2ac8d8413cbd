"""Serve rewards by the protocol of the HTTP scorer.

    python -m align.rewards.serve my_rewards.py:redness --port 8000
    python -m align.rewards.serve aesthetic clip_score --options '{"device": "cuda:1"}'

Any reward of this project: built in, an import path, or a file. With several, an answer holds all of them by name. The
server listens on this computer only, unless `--host` says otherwise; it has no access control.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from align.config.shared import RewardConfig
from align.errors import AlignError
from align.rewards.http_protocol import VERSION, ProtocolError, Request, decode_image, read_request, write_answer
from align.rewards.scorer import Scorer
from align.types import Samples

logger = logging.getLogger(__name__)

BODY_LIMIT = 256_000_000
IDLE_S = 60.0


class RewardServer(ThreadingHTTPServer):
    """A server of rewards; requests are read at once and scored one after the other.

    Args:
        rewards: which; their weights play no part.
        host: address to listen on.
        port: 0 takes a free one; `server_port` says which.
        body_limit: largest request, in bytes.

    Raises:
        RewardError: a reward cannot be found or used.
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(
        self, rewards: Sequence[RewardConfig], host: str = "127.0.0.1", port: int = 0, body_limit: int = BODY_LIMIT
    ) -> None:
        self.scorer, self.body_limit = Scorer(rewards), body_limit
        self.lock = threading.Lock()  # rewards need not be safe for threads
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/"

    def answer(self, body: bytes) -> bytes:
        """The answer to a request's body.

        Raises:
            ProtocolError: the request is not what the protocol says, or asks for what is not here.
        """
        request = read_request(body)
        names = self.scorer.names
        if request.name is not None and request.name not in names:
            raise ProtocolError(f"there is no score `{request.name}`; here are: {', '.join(names)}")
        if request.parameters:
            raise ProtocolError("this server takes no `parameters`; give options on its command line")
        samples = _samples(request)
        with self.lock:
            table = self.scorer.score(samples)
        return write_answer(dict(zip(names, table.values.T.tolist(), strict=True)), table.problems)


class _Handler(BaseHTTPRequestHandler):
    """POST scores, GET says what is served; every answer is JSON."""

    server: RewardServer  # type: ignore  # the base class types it more widely
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def do_GET(self) -> None:
        """What is here."""
        self._send(200, json.dumps({"version": VERSION, "rewards": self.server.scorer.names}).encode())

    def do_POST(self) -> None:
        """Score the request's samples."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self._refuse(411, "expected a Content-Length")
        if int(length) > self.server.body_limit:
            return self._refuse(413, f"the request has {length} bytes; at most {self.server.body_limit} are read")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return self._refuse(400, "the request ended early")
        try:
            answer = self.server.answer(body)
        except ProtocolError as error:
            return self._refuse(400, str(error))
        except Exception as error:
            logger.exception("a request could not be answered")
            return self._refuse(500, f"{type(error).__name__}: {error}")
        return self._send(200, answer)

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send(status, json.dumps({"error": message}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.info("%s %s", self.address_string(), format % args)


def _samples(request: Request) -> Samples:
    n = len(request.prompts)
    return Samples(
        index=torch.arange(n),
        group_ids=torch.arange(n),
        prompts=request.prompts,
        images=None if request.images is None else [decode_image(image) for image in request.images],
        completions=request.completions,
        columns=request.columns,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m align.rewards.serve", description="Serve rewards over HTTP.")
    parser.add_argument("rewards", nargs="+", help="built-in name, my_rewards.py:function or package.module:function")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--options", type=json.loads, default={}, help="options of every reward, as JSON")
    parser.add_argument("--body-limit", type=int, default=BODY_LIMIT, help="largest request in bytes")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        configs = [RewardConfig(function=name, options=given.options) for name in given.rewards]
        server = RewardServer(configs, given.host, given.port, given.body_limit)
    except (AlignError, OSError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 1)
    with server:
        print(f"serving {', '.join(server.scorer.names)} at {server.url}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
