"""Servers on this computer that do as they are told, wrong things above all; each stops with its `with` block."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Heard:
    """What a server heard, and how many requests it had at once."""

    def __init__(self):
        self.requests, self.headers, self.at_once, self.most_at_once = [], [], 0, 0
        self.lock = threading.Lock()

    def __len__(self):
        return len(self.requests)


@contextmanager
def serving(behave, port=0):
    """A server that answers request number i (from 0) with `behave(i, content)`: (status, headers, body) or a body.

    Yields:
        its address, and what it heard.
    """
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            content = json.loads(body)
            with heard.lock:
                number = len(heard.requests)
                heard.requests.append(content)
                heard.headers.append(dict(self.headers))
                heard.at_once += 1
                heard.most_at_once = max(heard.most_at_once, heard.at_once)
            try:
                answer = behave(number, content)
            finally:
                with heard.lock:
                    heard.at_once -= 1
            if callable(answer):
                self.close_connection = True
                answer(self)
                return
            status, headers, text = answer if isinstance(answer, tuple) else (200, {}, answer)
            text = text if isinstance(text, bytes) else (text if isinstance(text, str) else json.dumps(text)).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # a client that has gone away is part of the test
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def running(server):
    """A `RewardServer` in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
