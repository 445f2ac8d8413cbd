"""The OCR reward: its formula by hand, and the real recogniser on rendered text."""

import logging
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from align.config.shared import RewardConfig
from align.rewards.find import RewardError
from align.rewards.load import load_reward
from align.rewards.ocr import OcrScore, joined, plain, quoted, text_score
from align.rewards.outcome import Unscored
from align.rewards.scorer import Scorer
from align.types import Samples

TEXT = st.text("abcde ", min_size=0, max_size=8)


def rendered(text, size=48):
    image = Image.new("RGB", (384, 128), "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(size))
    return image


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('A sign that says "OPEN"', "OPEN"),
        ('"first" and "second"', "first"),
        ('one " only', None),
        ("none at all", None),
        ('empty ""', ""),
        ('over "two\nlines"', "two\nlines"),
    ],
)
def test_quoted(prompt, expected):
    assert quoted(prompt) == expected


@pytest.mark.parametrize(
    ("found", "target", "score"),
    [
        ("OPEN", "open", 1.0),
        ("we are OPEN now", "Open", 1.0),  # part of what was read
        ("O P E N", "op en", 1.0),  # spaces do not count
        ("OPN", "OPEN", 0.75),  # one missing letter of four
        ("0PEM", "OPEN", 0.5),  # two wrong letters
        ("", "OPEN", 0.0),
        ("something else entirely", "OPEN", 0.0),  # 20 edits, capped at 4
    ],
)
def test_score_by_hand(found, target, score):
    assert text_score(found, target) == score


def distance(a, b):
    """Edit distance by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


@given(found=st.text("abc ", max_size=5), target=st.text("abc", min_size=1, max_size=5))
def test_score_against_the_recursion(found, target):
    read = found.replace(" ", "")
    edits = 0 if target in read else min(distance(read, target), len(target))
    assert text_score(found, target) == pytest.approx(1 - edits / len(target))


@given(found=TEXT, target=TEXT.filter(str.strip))
def test_score_is_a_share_and_ignores_case_and_spaces(found, target):
    score = text_score(found, target)
    assert 0 <= score <= 1
    assert text_score(found.upper(), " ".join(target)) == score
    assert (score == 1) == (plain(target) in plain(found))


def test_nothing_to_look_for():
    with pytest.raises(ValueError, match="expected a text to look for"):
        text_score("a", "  ")


def test_detections_without_confidence_do_not_count():
    assert joined([("AB", 0.9), ("CD", 0.0), ("E", 0.01)]) == "ABE"


@pytest.fixture(scope="module")
def ocr():
    return OcrScore()


class TestRecogniser:
    def test_reads_rendered_text(self, ocr):
        images = [rendered("HELLO"), rendered("Hello World"), rendered("OPEN"), rendered("HELO"), rendered("")]
        prompts = ['"hello"', 'a sign "HELLO world" here', '"OPEN 24"', '"HELLO"', '"x"']
        assert ocr(images=images, prompts=prompts) == pytest.approx([1.0, 1.0, 4 / 6, 4 / 5, 0.0])

    def test_two_lines_are_joined(self, ocr):
        assert ocr(images=[rendered("GOOD\nDAY", 40)], prompts=['"Good day"']) == [1.0]

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
    def test_modes(self, ocr, mode):
        assert ocr(images=[rendered("CAT").convert(mode)], prompts=['"cat"']) == [1.0]

    def test_the_text_may_be_in_a_column(self):
        score = OcrScore(column="text")
        assert score(images=[rendered("CAT")], prompts=["no quotes"], text=["cat"]) == [1.0]

    def test_nothing_is_said(self, capfd):
        assert OcrScore()(images=[rendered("CAT"), rendered("")], prompts=['"cat"', '"dog"']) == [1.0, 0.0]
        out = capfd.readouterr()
        assert out.out + out.err == ""

    def test_models_are_those_of_the_wheel(self, monkeypatch):
        from rapidocr.utils import download_file

        def no_download(*args, **kwargs):
            raise AssertionError("a download")

        monkeypatch.setattr(download_file.DownloadFile, "run", no_download)
        assert OcrScore()(images=[rendered("CAT")], prompts=['"cat"']) == [1.0]


class TestFailures:
    def test_a_failing_reader_leaves_the_sample_unscored(self, monkeypatch):
        score = OcrScore()

        def read(image):
            raise OSError("no camera")

        monkeypatch.setattr(score, "_read", lambda: read)
        assert score(images=[rendered("A")], prompts=['"a"']) == [
            Unscored("could not read the picture (OSError: no camera)")
        ]

    def test_a_prompt_without_quotes_is_unscored_among_others(self):
        samples = Samples(
            index=torch.arange(2),
            group_ids=torch.arange(2),
            prompts=['"cat"', "no quotes"],
            images=[rendered("CAT"), rendered("CAT")],
        )
        table = Scorer([RewardConfig(function="ocr")]).score(samples)
        assert table.values[0].item() == 1.0
        assert table.values[1].isnan()
        assert table.problems == {
            "ocr": {"has no text to look for: no double quotes in the prompt, or an empty column": 1}
        }

    @pytest.mark.parametrize(
        ("options", "rows", "message"),
        [
            ({}, {"prompts": ['"a"', "b", 'c "']}, "reward `ocr`: row 2 and 1 more of 3: no text .* double quotes"),
            (
                {"column": "text"},
                {"prompts": ["a"], "text": [" "]},
                "row 1 of 1: no text .* in the column `text`",
            ),
            ({"column": "text"}, {"prompts": ["a"], "text": [None]}, "row 1 of 1"),
            (
                {"column": "txt"},
                {"prompts": ["a"], "text": ["a"]},
                "is `txt`, but the prompts' columns are: text",
            ),
        ],
    )
    def test_prompts_are_checked_before_a_run(self, options, rows, message):
        with pytest.raises(RewardError, match=message):
            Scorer([RewardConfig(function="ocr", options=options)]).check_rows(rows)

    def test_good_prompts_pass(self):
        Scorer([RewardConfig(function="ocr")]).check_rows({"prompts": ['"a"', 'the "b"'], "text": [None, None]})

    def test_threads(self):
        with pytest.raises(RewardError, match="option `threads` expects a whole number from 0, found -1"):
            load_reward(RewardConfig(function="ocr", options={"threads": -1}))

    def test_without_the_extra(self):
        code = (
            "import importlib.util as u, sys; find = u.find_spec\n"
            "u.find_spec = lambda name, *rest: None if name == 'rapidocr' else find(name, *rest)\n"
            "from align.config.shared import RewardConfig; from align.rewards.load import load_reward\n"
            "load_reward(RewardConfig(function='ocr'))"
        )
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert "reward `ocr`: the reward `ocr` needs rapidocr, which is not installed." in done.stderr
        assert "pip install 'align-suite[ocr]'" in done.stderr


def test_the_engines_logger_is_quiet(ocr):
    ocr(images=[rendered("A")], prompts=['"a"'])
    assert logging.getLogger("RapidOCR").level == logging.CRITICAL
