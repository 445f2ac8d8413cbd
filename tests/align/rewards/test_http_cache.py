"""The cache on disk: what was put comes back, with several threads and processes, and trouble never costs a score."""

import logging
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from align.rewards.http_cache import ScoreCache, default_path


def key(number):
    return number.to_bytes(32, "big")


@pytest.fixture
def cache(tmp_path):
    return ScoreCache(tmp_path / "deep" / "scores.sqlite")


def test_what_was_put_comes_back(cache):
    assert cache.get([key(1)]) == {}
    cache.put({key(1): {"": 0.1}, key(2): {"a": 1.0, "b": -2.5}})
    cache.put({key(2): {"c": 3.0}, key(3): {}})
    assert cache.get([key(1), key(2), key(3)]) == {key(1): {"": 0.1}, key(2): {"a": 1.0, "b": -2.5, "c": 3.0}}
    assert ScoreCache(cache.path).get([key(1)]) == {key(1): {"": 0.1}}


def test_more_keys_than_one_query_takes(cache):
    cache.put({key(i): {"": float(i)} for i in range(1234)})
    assert cache.get([key(i) for i in range(1234)]) == {key(i): {"": float(i)} for i in range(1234)}


def test_the_ones_unused_for_longest_go_first(tmp_path):
    """Room for 10: the eleventh leaves 9. Number 0 was looked at last, so 1 and 2 go."""
    cache = ScoreCache(tmp_path / "scores.sqlite", rows=10)
    for number in range(10):
        cache.put({key(number): {"": 1.0}})
    cache.get([key(0)])
    cache.put({key(10): {"": 1.0}})
    left = cache.get([key(i) for i in range(11)])
    assert sorted(int.from_bytes(found, "big") for found in left) == [0, 3, 4, 5, 6, 7, 8, 9, 10]


def test_write_ahead_log(cache):
    cache.put({key(1): {"": 0.1}})
    with closing(sqlite3.connect(cache.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_threads(cache):
    def work(worker):
        for i in range(10):
            cache.put({key(100 * worker + i): {"": float(i)}})
            assert cache.get([key(100 * worker + i)]) == {key(100 * worker + i): {"": float(i)}}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(cache.get([key(100 * worker + i) for worker in range(8) for i in range(10)])) == 80


def test_processes_make_and_fill_one_file_at_once(tmp_path):
    code = (
        "import sys, logging, pathlib; from align.rewards.http_cache import ScoreCache\n"
        "logging.basicConfig(); cache = ScoreCache(pathlib.Path(sys.argv[1])); w = int(sys.argv[2])\n"
        "for i in range(40): cache.put({(1000 * w + i).to_bytes(32, 'big'): {'': float(i)}})\n"
    )
    path = tmp_path / "scores.sqlite"
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(worker)], stderr=subprocess.PIPE, text=True)
        for worker in range(4)
    ]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert said == [""] * 4
    found = ScoreCache(path).get([key(1000 * worker + i) for worker in range(4) for i in range(40)])
    assert len(found) == 160


def test_a_file_that_is_no_database_is_told_once_and_left_alone(tmp_path, caplog):
    path = tmp_path / "scores.sqlite"
    path.write_text("my diary, " * 500)
    cache = ScoreCache(path)
    with caplog.at_level(logging.WARNING, "align.rewards"):
        cache.put({key(1): {"": 1.0}})
        assert cache.get([key(1)]) == {}
    assert [record.getMessage().startswith("scores are not cached") for record in caplog.records] == [True]
    assert path.read_text() == "my diary, " * 500


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = ScoreCache(tmp_path / "file" / "scores.sqlite")
    with caplog.at_level(logging.WARNING, "align.rewards"):
        cache.put({key(1): {"": 1.0}})
    assert "scores are not cached" in caplog.text


def test_the_users_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_path() == Path("/somewhere/align-suite/http_scores.sqlite")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_path() == Path.home() / ".cache/align-suite/http_scores.sqlite"
