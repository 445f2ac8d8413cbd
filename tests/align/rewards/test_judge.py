"""What a judge says, as a number."""

import pytest
from PIL import Image

from align.rewards.http_protocol import decode_image
from align.rewards.judge import NO_SCORE, chat_request, final_score, score_of, tagged_score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("It is fine.\nFinal Score: 4", 0.8),
        ("Final Score: 3.5, because", 0.7),
        ("**Final Score:** none. Final Score: **5**", 1.0),
        ("Final Score: 9. Final Score: 2", 0.4),  # the first from 1 to 5
        ("Final Score: 0", None),
        ("Score: 4", None),
        ("", None),
    ],
)
def test_final_score(answer, score):
    assert final_score(answer) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("<Score>4</Score>", 0.8),
        ("I think <score> 0 </score>", 0.0),
        ("<Score>9</Score><Score>3</Score>", 0.6),
        ("<Score>4.5</Score>", None),
        ("Score 4", None),
    ],
)
def test_tagged_score(answer, score):
    assert tagged_score(answer) == score


def test_unparsed_is_unscored_or_what_one_says():
    assert score_of("no idea") == NO_SCORE
    assert score_of("no idea", unparsed=0.0) == 0.0
    assert score_of("<Score>5</Score>", tagged_score) == 1.0


@pytest.mark.parametrize(("size", "sent"), [((1024, 512), (512, 256)), ((300, 200), (300, 200)), ((3000, 2), (512, 1))])
def test_the_request_of_a_chat(size, sent):
    request = chat_request("judge-7b", Image.new("RGB", size, "red"), "How good is it?")
    assert request["temperature"] == 0
    picture, text = request["messages"][0]["content"]
    assert text == {"type": "text", "text": "How good is it?"}
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert decode_image(data).size == sent
