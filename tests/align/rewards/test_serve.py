"""The example server: any reward of ours behind an address, scored through the HTTP scorer as directly."""

import http.client
import json
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from align.config.shared import RewardConfig
from align.rewards.http import HttpScore
from align.rewards.image import brightness, contrast
from align.rewards.outcome import Unscored
from align.rewards.serve import RewardServer, main

from .servers import running

MY_REWARDS = """
def redness(*, images, **columns):
    return [float(image.convert("RGB").resize((1, 1)).getpixel((0, 0))[0]) for image in images]

def length(*, completions, factor):
    return [len(text) * by for text, by in zip(completions, factor)]

def moody(*, images, prompts):
    if "boom" in prompts:
        raise ValueError("boom")
    return [None if prompt == "dark" else 1.0 for prompt in prompts]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my_rewards.py").write_text(MY_REWARDS)
    return f"{tmp_path / 'my_rewards.py'}"


def pictures(n=5):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(n)]


def score(server, **options):
    return HttpScore(server.url, cache=False, retries=0, timeout=20.0, batch_size=2, **options)


def configs(*functions):
    return [RewardConfig(function=function) for function in functions]


def test_served_scores_are_the_rewards_own():
    images = pictures()
    with running(RewardServer(configs("brightness", "contrast"))) as server:
        prompts = ["a"] * 5
        assert score(server, score="brightness")(prompts=prompts, images=images) == pytest.approx(
            brightness(images=images), rel=1e-6
        )
        assert score(server, score="contrast")(prompts=prompts, images=images) == pytest.approx(
            contrast(images=images), rel=1e-6
        )


def test_a_file_of_ones_own_and_one_name(file):
    with running(RewardServer(configs(f"{file}:redness"))) as server:
        images = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (0, 50, 255)]
        assert score(server)(prompts=list("abc"), images=images) == [0.0, 50.0, 255.0]


def test_texts_and_columns(file):
    with running(RewardServer(configs(f"{file}:length"))) as server:
        scorer = score(server, columns=["factor"])
        assert scorer(prompts=["a", "b"], completions=["xyz", "x"], factor=[2, 5]) == [6.0, 5.0]


def test_what_the_reward_cannot_score_comes_with_its_reason(file):
    with running(RewardServer(configs(f"{file}:moody"))) as server:
        images = pictures(2)
        dark = score(server)(prompts=["bright", "dark"], images=images)
        assert dark == [
            1.0,
            Unscored("could not be scored by the server: returned None: it could not score the sample"),
        ]
        boom = score(server)(prompts=["bright", "boom"], images=images)
        assert boom == [Unscored("could not be scored by the server: raised ValueError: boom")] * 2


def ask(server, method, body=b"", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, "/", body=body, headers=headers or {})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def test_it_says_what_is_here():
    with running(RewardServer(configs("brightness", "contrast"))) as server:
        assert ask(server, "GET") == (200, {"version": 1, "rewards": ["brightness", "contrast"]})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"hello", 400, "the request is no JSON: hello"),
        (b'{"version": 1, "prompts": ["a"], "images": ["?"]}', 400, "an image is not base64"),
        (b'{"version": 1, "prompts": ["a"], "name": "sharp"}', 400, "there is no score `sharp`; here are: brightness"),
        (b'{"version": 1, "prompts": ["a"], "parameters": {"k": 1}}', 400, "this server takes no `parameters`"),
        (b" " * 1001, 413, "the request has 1001 bytes; at most 1000 are read"),
    ],
)
def test_errors_are_json(body, status, message):
    with running(RewardServer(configs("brightness"), body_limit=1000)) as server:
        found, content = ask(server, "POST", body)
        assert found == status
        assert content["error"].startswith(message)
        assert ask(server, "GET")[0] == 200  # and it goes on


def test_a_request_without_a_length():
    with running(RewardServer(configs("brightness"))) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.putrequest("POST", "/")
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (411, {"error": "expected a Content-Length"})
        connection.close()


def test_it_listens_on_this_computer_only():
    server = RewardServer(configs("brightness"))
    assert server.server_address[0] == "127.0.0.1"
    server.server_close()


def test_the_command_line(file):
    command = [sys.executable, "-m", "align.rewards.serve", f"{file}:redness", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            line = child.stdout.readline()
            assert line.startswith("serving redness at http://127.0.0.1:")
            scorer = HttpScore(line.split()[-1], cache=False, retries=0, timeout=20.0)
            assert scorer(prompts=["a"], images=[Image.new("RGB", (2, 2), (7, 0, 0))]) == [7.0]
        finally:
            child.terminate()


@pytest.fixture(autouse=True)
def _never_for_ever(monkeypatch):
    """A command line that should have been refused must not serve in the test's own thread."""
    monkeypatch.setattr("align.rewards.serve.RewardServer.serve_forever", _serve_unless_main)


def _serve_unless_main(self, poll_interval=0.5):
    assert threading.current_thread() is not threading.main_thread(), "serves"
    ThreadingHTTPServer.serve_forever(self, poll_interval)


def test_a_reward_that_is_none(capsys):
    assert main(["brightnes", "--port", "0"]) == 2
    assert "Did you mean `brightness`" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with running(RewardServer(configs("brightness"))) as server:
        assert main(["brightness", "--port", str(server.server_port)]) == 1
    assert "in use" in capsys.readouterr().err


def test_options(capsys):
    assert main(["jpeg_size", "--port", "0", "--options", '{"qualty": 80}']) == 2
    assert "no option `qualty`" in capsys.readouterr().err
