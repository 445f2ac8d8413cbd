"""The pages on rewards keep their word: the table is the code's, and the servers that they print serve."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from align.config.shared import RewardConfig
from align.rewards.http import HttpScore
from align.rewards.outcome import Unscored
from align.rewards.serve import RewardServer
from align.rewards.table import markdown

from .servers import running, serving

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_table_is_that_of_the_code():
    page = (DOCS / "rewards.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"<!-- table -->\n(.*?)<!-- /table -->", page, re.S)
    assert found == markdown(), "put what `python -m align.rewards.table` prints between the marks of docs/rewards.md"


@pytest.fixture
def printed(tmp_path):
    """The server of the page with this file name, as a file."""

    def write(name):
        blocks = re.findall(
            r"```python\n(# \w+\.py:.*?)```", (DOCS / "http_scorer.md").read_text(encoding="utf-8"), re.S
        )
        (block,) = [block for block in blocks if block.startswith(f"# {name}:")]
        (tmp_path / name).write_text(block)
        return tmp_path / name

    return write


def server_of(file, *functions):
    return RewardServer([RewardConfig(function=f"{file}:{function}") for function in functions])


def test_imagereward_with_a_stand_in(printed, monkeypatch):
    """Its score here: length of the prompt plus the picture's width."""

    class Model:
        def score(self, prompt, image):
            return len(prompt) + image.width

    package = ModuleType("ImageReward")
    package.load = {"ImageReward-v1.0": Model()}.__getitem__
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    with running(server_of(printed("imagereward_server.py"), "ImageReward")) as server:
        images = [Image.new("RGB", (10, 4)), Image.new("RGB", (20, 4))]
        assert HttpScore(server.url, cache=False)(prompts=["abc", ""], images=images) == [13.0, 20.0]


def test_geneval_with_a_stand_in(printed, monkeypatch, tmp_path):
    """The detector sees a cat at the left and two dogs at the right, one of them unsure; the classifier sees red."""
    looks = []

    def detect(image, names):
        looks.append(image.size)
        mask = np.ones(image.size[::-1], dtype=bool)
        seen = {"cat": ([(0, 0, 8, 8)], [0.9]), "dog": ([(40, 0, 48, 8), (50, 0, 58, 8)], [0.8, 0.2])}
        return {name: (boxes, sure, [mask] * len(boxes)) for name, (boxes, sure) in seen.items() if name in names}

    detector = ModuleType("my_detector")
    detector.detect, detector.colour_of = detect, lambda crop, name: "red"
    monkeypatch.setitem(sys.modules, "my_detector", detector)
    wanted = [
        [{"class": "cat", "count": 1, "color": "red"}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        [{"class": "cat", "count": 1, "color": "blue"}],
    ]
    samples = {"prompts": ["a", "b"], "images": [Image.new("RGB", (64, 8)), Image.new("RGB", (64, 9))]}
    options = {"columns": ["include", "tag"], "cache": str(tmp_path / "scores.sqlite")}
    with running(server_of(printed("geneval_server.py"), "dense", "correct")) as server:
        dense = HttpScore(server.url, score="dense", **options)
        assert dense(**samples, include=wanted, tag=["position", "colors"]) == [1.0, 0.5]
        correct = HttpScore(server.url, score="correct", **options)
        assert correct(**samples, include=wanted, tag=["position", "colors"]) == [1.0, 0.0]
    assert looks == [(64, 8), (64, 9)]  # once a picture, for both scores


def test_a_judge_with_a_stand_in(printed, monkeypatch):
    """A chat server that rates pictures of prompts with `good` 4 and says nothing useful on the others."""

    def chat(_, content):
        _, question = content["messages"][0]["content"]
        text = "Fine.\nFinal Score: 4" if "good" in question["text"] else "I cannot tell."
        return {"choices": [{"message": {"content": text}}]}

    with serving(chat) as (url, heard):
        monkeypatch.setenv("JUDGE_URL", url)
        with running(server_of(printed("judge_server.py"), "judge")) as server:
            images = [Image.new("RGB", (8, 8), level) for level in ("red", "blue")]
            first, second = HttpScore(server.url, cache=False)(prompts=["good", "bad"], images=images)
    assert first == pytest.approx(0.8)
    assert second == Unscored("could not be scored by the server: was answered by the judge without a score")
    assert [content["temperature"] for content in heard.requests] == [0, 0]
