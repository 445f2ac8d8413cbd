"""The HTTP scorer against servers that behave, and against every kind that does not."""

import json
import logging
import math
import socket
import threading
import time

import pytest
import torch
from PIL import Image

from align.config.shared import RewardConfig
from align.rewards.find import RewardError
from align.rewards.http import HttpScore
from align.rewards.http_client import Patience
from align.rewards.http_protocol import decode_image
from align.rewards.load import load_reward
from align.rewards.outcome import ScorerStopped, Unscored
from align.rewards.scorer import Scorer
from align.types import Samples

from .servers import serving

FAST = {"backoff": 0.01, "timeout": 5.0, "time_limit": 20.0}


def grey(level):
    return Image.new("RGB", (4, 4), (level,) * 3)


def ask(url, n=4, **options):
    """Scores of n pictures of grey 0, 10, 20, ... with prompts p0, p1, ..."""
    score = HttpScore(url, **{**FAST, "cache": False, **options})
    return score(prompts=[f"p{i}" for i in range(n)], images=[grey(10 * i) for i in range(n)])


def level(_, content):
    """A server whose score is the grey level that it sees in the picture."""
    return {"scores": [decode_image(image).getpixel((0, 0))[0] for image in content["images"]]}


class TestGood:
    def test_scores_are_those_of_the_server_in_order(self):
        """Later requests are answered first."""

        def slow_first(number, content):
            time.sleep(0.1 * max(0, 2 - number))
            return level(number, content)

        with serving(slow_first) as (url, heard):
            assert ask(url, 10, batch_size=3, in_flight=4) == [10.0 * i for i in range(10)]
        assert sorted(len(content["prompts"]) for content in heard.requests) == [1, 3, 3, 3]
        assert 2 <= heard.most_at_once <= 4

    def test_no_more_requests_at_once_than_allowed(self):
        def slow(number, content):
            time.sleep(0.02)
            return level(number, content)

        with serving(slow) as (url, heard):
            ask(url, 8, batch_size=1, in_flight=1)
        assert heard.most_at_once == 1

    def test_what_the_server_hears(self):
        with serving(level) as (url, heard):
            score = HttpScore(url, cache=False, columns=["tag"], parameters={"k": 2}, **FAST)
            score(prompts=["a", "b"], images=[grey(0), grey(1)], tag=["x", [1, None]], other=[1, 2])
        (content,) = heard.requests
        assert content["prompts"] == ["a", "b"]
        assert content["columns"] == {"tag": ["x", [1, None]]}
        assert content["parameters"] == {"k": 2}
        assert "name" not in content
        assert "completions" not in content

    def test_texts(self):
        with serving(lambda _, content: {"scores": [len(text) for text in content["completions"]]}) as (url, heard):
            score = HttpScore(url, cache=False, **FAST)
            assert score(prompts=["a", "b"], completions=["xyz", ""]) == [3.0, 0.0]
        assert "images" not in heard.requests[0]

    def test_equal_samples_are_asked_once(self):
        with serving(level) as (url, heard):
            score = HttpScore(url, cache=False, **FAST)
            assert score(prompts=["a"] * 5, images=[grey(7)] * 5) == [7.0] * 5
        assert len(heard.requests[0]["prompts"]) == 1

    def test_no_samples_no_request(self):
        with serving(level) as (url, heard):
            assert ask(url, 0) == []
        assert len(heard) == 0

    def test_null_is_unscored_and_the_others_count(self):
        with serving(lambda *_: {"scores": [1, None, 3, 4]}) as (url, _):
            assert ask(url) == [1.0, Unscored("could not be scored by the server"), 3.0, 4.0]

    def test_token(self, monkeypatch):
        monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
        with serving(level) as (url, heard):
            ask(url, token_env="JUDGE_TOKEN")
        assert heard.headers[0]["Authorization"] == "Bearer s3cret"


class TestCache:
    @pytest.fixture
    def server(self):
        with serving(level) as (url, heard):
            yield url, heard

    def test_a_sample_is_asked_about_once_in_all_runs(self, server, tmp_path):
        url, heard = server
        file = str(tmp_path / "scores.sqlite")
        first = ask(url, cache=file)
        assert ask(url, cache=file) == first
        assert len(heard) == 1
        assert ask(url, 6, cache=file) == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
        assert heard.requests[1]["prompts"] == ["p4", "p5"]

    def test_what_makes_a_sample_another(self, server, tmp_path):
        url, heard = server
        base = {"prompts": ["a"], "images": [grey(5)], "tag": ["x"]}
        options = {"columns": ["tag"], "cache": str(tmp_path / "scores.sqlite"), **FAST}
        HttpScore(url, **options)(**base)
        for change in (
            {"prompts": ["b"]},
            {"images": [grey(6)]},
            {"images": [Image.new("RGB", (2, 8), (5,) * 3)]},
            {"tag": ["y"]},
        ):
            before = len(heard)
            HttpScore(url, **options)(**{**base, **change})
            assert len(heard) == before + 1, change
        for change in ({"version": "2"}, {"parameters": {"k": 1}}, {"columns": []}, {"image_format": "jpeg"}):
            before = len(heard)
            HttpScore(url, **{**options, **change})(**base)
            assert len(heard) == before + 1, change
        HttpScore(url, **{**options, "batch_size": 3, "timeout": 9.0})(**base, other=["does not count"])
        assert len(heard) == before + 1

    def test_several_scores_of_one_server_cost_one_request(self, tmp_path):
        def both(_, content):
            rows = [prompt == "a" for prompt in content["prompts"]]
            return {"scores": {"up": [1 if a else 2 for a in rows], "down": [-1 if a else None for a in rows]}}

        with serving(both) as (url, heard):
            options = {"cache": str(tmp_path / "scores.sqlite"), **FAST}
            samples = {"prompts": ["a", "b"], "images": [grey(0), grey(1)]}
            assert HttpScore(url, score="up", **options)(**samples) == [1.0, 2.0]
            down = HttpScore(url, score="down", **options)(**samples)
        assert down == [-1.0, Unscored("could not be scored by the server")]
        assert [content["name"] for content in heard.requests] == ["up", "down"]
        assert len(heard.requests[1]["prompts"]) == 1  # only the one that has no score is asked about again

    def test_scores_of_a_call_that_failed_in_part_are_kept(self, tmp_path):
        """The second of two requests is refused; the next call asks about its samples only."""
        healthy = threading.Event()

        def half(number, content):
            return level(number, content) if "p0" in content["prompts"] or healthy.is_set() else (400, {}, "no")

        with serving(half) as (url, heard):
            options = {"cache": str(tmp_path / "scores.sqlite"), "batch_size": 2}
            assert ask(url, **options)[:2] == [0.0, 10.0]
            with pytest.raises(ScorerStopped, match="was refused with status 400: no"):
                ask(url, **options, on_error="stop")
            healthy.set()
            assert ask(url, **options) == [0.0, 10.0, 20.0, 30.0]
        assert heard.requests[-1]["prompts"] == ["p2", "p3"]

    def test_a_broken_cache_costs_no_score(self, server, tmp_path):
        url, heard = server
        (tmp_path / "scores.sqlite").write_text("no database, " * 99)
        for _ in range(2):
            assert ask(url, cache=str(tmp_path / "scores.sqlite")) == [0.0, 10.0, 20.0, 30.0]
        assert len(heard) == 2


def drip(handler):
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def cut(handler):
    """Promises more than it sends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"scores": [1, ')


def silent(handler):
    """Closes without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


ONCE = {"retries": 0}


class TestBad:
    """Each failure has a clear reason, and no exception."""

    @pytest.mark.parametrize(
        ("answer", "options", "reason"),
        [
            ({"scores": [1, 2, 3]}, {}, "answered 3 scores for 4 samples"),
            ({"scores": [1, 2, 3, 4, 5]}, {}, "answered 5 scores for 4 samples"),
            ("<html>Sign in", {}, "the answer is an HTML page: <html>Sign in"),
            ("{'scores': [1]}", {}, "the answer is no JSON: {'scores': [1]}"),
            (
                {"scores": {"a": [1] * 4, "b": [1] * 4}},
                {},
                "was answered with several scores (a, b); choose one by option `score`",
            ),
            (
                {"scores": {"coulor": [1] * 4}},
                {"score": "colour"},
                "was answered without the score `colour`. Did you mean `coulor`? The server has: coulor",
            ),
            (
                {"scores": [1] * 4},
                {"score": "colour"},
                "was answered without the score `colour`. The server has: one without a name",
            ),
            (
                (302, {"Location": "http://127.0.0.1:9/"}, ""),
                {},
                "was redirected (302); redirects are not followed, write the final address",
            ),
            ((404, {}, "nothing here"), {}, "was refused with status 404: nothing here"),
            ((401, {}, ""), {}, "was refused with status 401 (a token is missing or wrong)"),
            ((413, {}, {"error": "too large"}), {}, 'was refused with status 413: {"error": "too large"}'),
            ((500, {}, "bug"), ONCE, "was refused with status 500: bug"),
            ((500, {}, "bug"), {"retries": 2}, "was refused with status 500: bug, 3 times"),
            (
                (429, {"Retry-After": "3600"}, "later"),
                {},
                "was refused with status 429: later; the next try would be after the time limit of the call",
            ),
            (silent, ONCE, "broke the connection (ProtocolError)"),
            (cut, ONCE, "broke the connection (ProtocolError)"),
            (drip, {"timeout": 0.3, **ONCE}, "timed out while it answered"),
            ("x" * 17_000_000, {}, "answered more than 16000000 bytes"),
        ],
    )
    def test_reason(self, answer, options, reason):
        with serving(lambda *_: answer) as (url, _):
            assert ask(url, **options) == [Unscored(reason)] * 4

    @pytest.mark.parametrize(
        ("score", "reason"),
        [
            ("NaN", "was answered with NaN instead of a number"),
            ("-Infinity", "was answered with -Infinity instead of a number"),
            ("true", "was answered with a boolean instead of a number"),
            ('"good"', "was answered with a text instead of a number"),
        ],
    )
    def test_one_bad_score_costs_one_sample(self, score, reason):
        with serving(lambda *_: f'{{"scores": [1, {score}, 3, 4]}}') as (url, _):
            assert ask(url) == [1.0, Unscored(reason), 3.0, 4.0]

    def test_a_server_that_says_nothing(self):
        done = threading.Event()
        with serving(lambda *_: done.wait(5) or {"scores": []}) as (url, _):
            start = time.monotonic()
            assert ask(url, timeout=0.2, retries=1) == [Unscored("timed out, 2 times")] * 4
            assert time.monotonic() - start < 3
            done.set()

    def test_no_server(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        assert (
            ask(f"http://127.0.0.1:{port}/", retries=1)
            == [Unscored("could not be reached (no connection), 2 times")] * 4
        )

    def test_the_call_has_a_time_limit_over_all_its_requests(self):
        with serving(lambda *_: (503, {}, "")) as (url, _):
            start = time.monotonic()
            scores = ask(url, 20, batch_size=1, in_flight=2, retries=1000, backoff=0.05, time_limit=0.5)
            assert time.monotonic() - start < 3
        assert all("time limit" in score.reason for score in scores)

    def test_other_requests_of_the_call_count(self):
        with serving(lambda n, c: (400, {}, "bad") if "p2" in c["prompts"] else level(n, c)) as (url, _):
            found = ask(url, 6, batch_size=2)
        bad = Unscored("was refused with status 400: bad")
        assert found == [0.0, 10.0, bad, bad, 40.0, 50.0]

    def test_reasons_are_counted_and_the_run_goes_on(self):
        samples = Samples(
            index=torch.arange(3), group_ids=torch.arange(3), prompts=list("abc"), images=[grey(i) for i in range(3)]
        )
        with serving(lambda *_: (403, {}, "")) as (url, _):
            judge = RewardConfig(function="http", name="judge", options={"url": url, "cache": False})
            table = Scorer([judge, RewardConfig(function="brightness")]).score(samples)
        assert table.names == ("judge", "brightness")
        assert table.values[:, 0].isnan().all()
        assert not table.values[:, 1].isnan().any()
        assert table.problems == {"judge": {"was refused with status 403 (the token may not do this)": 3}}

    def test_on_error_stop(self):
        with serving(lambda *_: {"scores": [1]}) as (url, _):
            with pytest.raises(ScorerStopped, match=r"answered 1 scores for 4 samples\.") as caught:
                ask(url, on_error="stop")
            assert "on_error: unscored" in caught.value.way_out

    def test_stop_passes_through_the_scorer(self):
        samples = Samples(index=torch.arange(1), group_ids=torch.arange(1), prompts=["a"], images=[grey(1)])
        with serving(lambda *_: (403, {}, "")) as (url, _):
            options = {"url": url, "cache": False, "on_error": "stop"}
            with pytest.raises(ScorerStopped, match=f"the scorer at {url} was refused"):
                Scorer([RewardConfig(function="http", options=options)]).score(samples)

    def test_a_null_does_not_stop(self):
        with serving(lambda *_: {"scores": [1, None, 3, 4]}) as (url, _):
            assert ask(url, on_error="stop")[2] == 3.0


class TestPatience:
    def test_a_server_that_comes_back(self):
        """Dead at first: nothing listens. Then it refuses twice, then it works."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        found = []
        asker = threading.Thread(
            target=lambda: found.extend(ask(f"http://127.0.0.1:{port}/", retries=50, backoff=0.05))
        )
        asker.start()
        time.sleep(0.3)
        with serving(lambda n, c: (502, {}, "") if n < 2 else level(n, c), port) as (_, heard):
            asker.join(20)
        assert found == [0.0, 10.0, 20.0, 30.0]
        assert len(heard) == 3

    def test_the_defaults_outlast_a_minute(self):
        """1 + 2 + 4 + 8 + 16 + 30 + 30 + 30 = 121 s; at least half of each pause is kept."""
        patience = Patience()
        for _ in range(20):
            pauses = [patience.pause(tries) for tries in range(1, patience.retries + 1)]
            assert 60.5 <= sum(pauses) <= 121
        assert all(0.5 <= patience.pause(1) <= 1 for _ in range(100))
        assert len({patience.pause(1) for _ in range(10)}) > 1

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_kept(self, status):
        times = []

        def later(number, content):
            times.append(time.monotonic())
            return (status, {"Retry-After": "1"}, "") if number == 0 else level(number, content)

        with serving(later) as (url, _):
            assert ask(url) == [0.0, 10.0, 20.0, 30.0]
        assert times[1] - times[0] >= 1.0

    @pytest.mark.parametrize("text", ["soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "nan"])
    def test_a_useless_retry_after_is_ignored(self, text):
        with serving(lambda n, c: (503, {"Retry-After": text}, "") if n == 0 else level(n, c)) as (url, _):
            start = time.monotonic()
            assert ask(url) == [0.0, 10.0, 20.0, 30.0]
            assert time.monotonic() - start < 4

    def test_what_cannot_pass_is_not_tried_again(self):
        with serving(lambda *_: (400, {}, "")) as (url, heard):
            ask(url, 1)
        assert len(heard) == 1


class TestSecrets:
    def test_the_token_is_nowhere(self, monkeypatch, caplog):
        """Even a server that echoes it does not get it into a message."""
        monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
        config = RewardConfig(function="http", options={"url": "http://x/", "token_env": "JUDGE_TOKEN"})
        score = load_reward(config).function
        samples = Samples(index=torch.arange(1), group_ids=torch.arange(1), prompts=["a"], images=[grey(1)])
        with serving(lambda *_: (403, {}, "bad token s3cret")) as (url, _), caplog.at_level(logging.DEBUG):
            options = {"url": url, "token_env": "JUDGE_TOKEN", "cache": False}
            table = Scorer([RewardConfig(function="http", options=options)]).score(samples)
        assert "bad token ***" in next(iter(table.problems["http"]))
        assert "s3cret" not in caplog.text + repr(vars(score).get("patience")) + repr(config) + repr(score)

    def test_a_redirect_does_not_carry_it_on(self, monkeypatch):
        monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
        with (
            serving(level) as (other, heard),
            serving(lambda *_: (307, {"Location": other}, "")) as (url, _),
        ):
            ask(url, token_env="JUDGE_TOKEN")
        assert len(heard) == 0


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "`http` cannot be made.*url"),
            ({"url": "localhost:8000"}, "`url` expects an http or https address, found 'localhost:8000'"),
            ({"url": "http://a:b@host/"}, "`url` holds a user name or password"),
            ({"url": "http://host:99999/"}, "`url` is 'http://host:99999/'"),
            ({"url": "http://host/", "on_error": "stopp"}, "`on_error` expects one of .*Did you mean `stop`"),
            ({"url": "http://host/", "image_format": "webp"}, "`image_format` expects one of png, jpeg"),
            ({"url": "http://host/", "batch_size": 0}, "`batch_size` expects a whole number from 1"),
            ({"url": "http://host/", "retries": -1}, "`retries` expects a whole number from 0"),
            ({"url": "http://host/", "timeout": 0.0}, "`timeout` expects a positive number"),
            ({"url": "http://host/", "time_limit": math.inf}, "`time_limit` expects a positive number"),
            ({"url": "http://host/", "columns": "tag"}, "`columns` expects a list of names"),
            ({"url": "http://host/", "token_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, but it is empty or not set"),
            ({"url": "http://host/", "batchsize": 1}, "no option `batchsize`. Did you mean `batch_size`"),
        ],
    )
    def test_are_checked_at_the_start(self, options, message):
        with pytest.raises(RewardError, match=message) as caught:
            load_reward(RewardConfig(function="http", options=options))
        assert caught.value.way_out

    def test_columns_are_checked_before_a_run(self):
        judge = RewardConfig(function="http", options={"url": "http://host/", "columns": ["inclued"]})
        scorer = Scorer([judge])
        with pytest.raises(RewardError, match=r"names `inclued`, but the prompts' columns are: include. Did you mean"):
            scorer.check_rows({"prompts": ["a"], "include": [[]]})
        scorer.check_rows({"prompts": ["a"], "inclued": [[{"class": "dog"}]]})
        with pytest.raises(RewardError, match="column `inclued` is not JSON"):
            scorer.check_rows({"prompts": ["a"], "inclued": [{1, 2}]})


def test_a_request_is_plain_json():
    """No pickle anywhere: the body is text that any JSON reader takes."""
    with serving(level) as (url, heard):
        ask(url, 1)
    assert set(heard.requests[0]) == {"version", "prompts", "images"}
    assert json.loads(json.dumps(heard.requests[0])) == heard.requests[0]
