"""The protocol's two sides against each other, and every answer that is none."""

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from align.rewards.http_protocol import (
    ProtocolError,
    Request,
    decode_image,
    encode_image,
    read_answer,
    read_request,
    write_answer,
)
from align.rewards.outcome import Unscored

PLAIN = {"version": 1, "prompts": ["a", "b"]}


def picture(mode="RGB"):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)


def test_a_request_comes_back_as_it_was():
    request = Request(
        prompts=["a", "ü"],
        images=[base64.b64encode(encode_image(picture())).decode()] * 2,
        columns={"tag": ["x", None], "include": [[{"count": 2}], []]},
        name="geneval",
        parameters={"threshold": 0.3},
    )
    assert read_request(request.body()) == request
    texts = Request(prompts=["a"], completions=["b"])
    assert read_request(texts.body()) == texts
    assert json.loads(texts.body()) == {"version": 1, "prompts": ["a"], "completions": ["b"]}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_png_is_exact_in_every_mode(mode):
    image = picture(mode)
    back = decode_image(base64.b64encode(encode_image(image)).decode())
    assert np.array_equal(np.asarray(back), np.asarray(image.convert("RGB")))


def test_jpeg_is_smaller_and_close():
    image = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    file = encode_image(image, "jpeg")
    assert file.startswith(b"\xff\xd8")
    back = decode_image(base64.b64encode(file).decode())
    assert np.abs(np.asarray(back).astype(int) - np.asarray(image)).max() < 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "the request is no JSON: no json"),
        ([], "the request is a list, not an object"),
        ({"prompts": ["a"]}, "expected protocol version 1, found None"),
        ({"version": 2, "prompts": ["a"]}, "expected protocol version 1, found 2"),
        ({**PLAIN, "prompt": []}, "unknown field `prompt`. Did you mean `prompts`"),
        ({"version": 1, "prompts": "ab"}, "`prompts` expects a list of texts"),
        ({"version": 1, "prompts": [1]}, "`prompts` expects a list of texts"),
        ({**PLAIN, "images": ["x"]}, "`images` has 1 entries for 2 prompts"),
        ({**PLAIN, "columns": []}, "`columns` expects an object of lists"),
        ({**PLAIN, "columns": {"tag": ["x"]}}, "column `tag` expects a list with one entry for each of the 2"),
        ({**PLAIN, "name": 3}, "`name` expects a text"),
        ({**PLAIN, "parameters": [1]}, "`parameters` an object"),
    ],
)
def test_requests_that_are_none(content, message):
    body = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(ProtocolError, match=message):
        read_request(body.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("?", "not base64"),
        ("", "no PNG or JPEG"),
        (base64.b64encode(b"GIF89a").decode(), "no PNG or JPEG"),
        (base64.b64encode(encode_image(picture())[:60]).decode(), "no PNG or JPEG"),
    ],
)
def test_pictures_that_are_none(text, message):
    with pytest.raises(ProtocolError, match=message):
        decode_image(text)


@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=False), max_size=5),
    st.sampled_from([{}, {"r": {"was dark": 1}}]),
)
def test_answers_come_back(scores, problems):
    why = ": was dark" if problems else ""
    found = read_answer(write_answer({"r": scores}, problems), len(scores))
    expected = [Unscored(f"could not be scored by the server{why}") if math.isnan(x) else x for x in scores]
    assert found == {"r": expected}


def test_lists_and_names():
    assert read_answer(b'{"scores": [1, 0.5]}', 2) == {"": [1.0, 0.5]}
    assert read_answer(b'{"scores": {"a": [1], "b": [2]}, "more": 1}', 1) == {"a": [1.0], "b": [2.0]}


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        ("null", "could not be scored by the server"),
        ("NaN", "was answered with NaN instead of a number"),
        ("Infinity", "was answered with Infinity instead of a number"),
        ("-Infinity", "was answered with -Infinity instead of a number"),
        ("true", "was answered with a boolean instead of a number"),
        ('"0.5"', "was answered with a text instead of a number"),
        ("[1]", "was answered with a list instead of a number"),
        ("{}", "was answered with an object instead of a number"),
        ("1e999", "was answered with a number beyond float64"),
        ("1" + "0" * 400, "was answered with a number beyond float64"),
    ],
)
def test_a_bad_score_costs_one_sample(score, reason):
    assert read_answer(f'{{"scores": [1, {score}, 3]}}'.encode(), 3) == {"": [1.0, Unscored(reason), 3.0]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<!DOCTYPE html><html>Sign in", "the answer is an HTML page: <!DOCTYPE html><html>Sign in"),
        ("<html>", "an HTML page"),
        ("", "the answer is no JSON: nothing"),
        ('{"scores": [1, 2', 'the answer is no JSON: {"scores": [1, 2'),
        ("\xff\xfe", "the answer is no JSON"),
        ("[" * 100_000, "the answer is no JSON"),
        ("NaN", "the answer is no number, not an object"),
        ("[1, 2]", "the answer is a list, not an object"),
        ('{"score": [1, 2]}', "no list or object `scores`, but: score"),
        ('{"scores": 1}', "no list or object `scores`"),
        ('{"scores": {}}', "no list or object `scores`"),
        ('{"scores": {"a": 1}}', "the scores of `a` are a number, not a list"),
        ('{"scores": [1]}', "answered 1 scores for 2 samples"),
        ('{"scores": [1, 2, 3]}', "answered 3 scores for 2 samples"),
        ('{"scores": {"a": [1, 2], "b": [1]}}', "answered 1 scores of `b` for 2 samples"),
        ('{"error": "no model"}', "but: error"),
    ],
)
def test_answers_that_are_none(body, message):
    with pytest.raises(ProtocolError, match=message.replace("[", r"\[")):
        read_answer(body.encode("latin-1"), 2)
