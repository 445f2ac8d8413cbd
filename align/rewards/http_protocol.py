"""The JSON that a scorer's client and server exchange: written and read here, on both sides. Torch-free.

Request: `{"version": 1, "prompts": [..], "images": [base64, ..], "completions": [..], "columns": {name: [..]},
"name": "geneval", "parameters": {..}}`. Only `version` and `prompts` are always there.
Answer: `{"scores": [0.5, null]}` or `{"scores": {name: [..], ..}}`; `null` is a sample that cannot be scored.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from align.errors import did_you_mean
from align.rewards.outcome import Unscored

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
FORMATS = ("png", "jpeg")
EXCERPT = 80
Scores = Mapping[str, Sequence[float | Unscored]]
"""Per name one entry a sample; a server with one unnamed reward answers under the name ``.``"""


class ProtocolError(Exception):
    """A request or an answer is not what the protocol says; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Samples to score, JSON-ready.

    Attributes:
        prompts: one text a sample.
        images: files of pictures, base64, or None.
        completions: texts, or None.
        columns: columns of the prompt's data-set row, one entry a sample.
        name: of the wanted score, None where the server has one.
        parameters: constants for the server.
    """

    prompts: Sequence[str]
    images: Sequence[str] | None = None
    completions: Sequence[str] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    name: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> bytes:
        """The request's body."""
        given = {
            "images": self.images,
            "completions": self.completions,
            "columns": dict(self.columns),
            "name": self.name,
            "parameters": dict(self.parameters),
        }
        content = {"version": VERSION, "prompts": list(self.prompts)}
        return json.dumps({**content, **{key: value for key, value in given.items() if value}}).encode()


def encode_image(image: Image, kind: str = "png", quality: int = 95) -> bytes:
    """A picture as a file: RGB, png (exact) or jpeg."""
    buffer = io.BytesIO()
    options = {"quality": quality} if kind == "jpeg" else {"compress_level": 1}
    image.convert("RGB").save(buffer, format=kind.upper(), **options)
    return buffer.getvalue()


def decode_image(text: str) -> Image:
    """A picture of a request.

    Raises:
        ProtocolError: not base64, or no PNG or JPEG.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG", "JPEG"))
        return image.convert("RGB")
    except (binascii.Error, TypeError, ValueError) as error:
        raise ProtocolError(f"an image is not base64 ({error})") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError) as error:
        raise ProtocolError(f"an image is no PNG or JPEG that can be read ({type(error).__name__})") from error


def read_request(body: bytes) -> Request:
    """A request's body, checked: every list has one entry a sample.

    Raises:
        ProtocolError: says what is wrong.
    """
    content = _object(body, "the request")
    version = content.pop("version", None)
    if version != VERSION:
        raise ProtocolError(f"expected protocol version {VERSION}, found {version!r}")
    fields = Request.__dataclass_fields__
    unknown = [key for key in content if key not in fields]
    if unknown:
        raise ProtocolError(f"unknown field `{unknown[0]}`.{did_you_mean(unknown[0], fields)}")
    prompts = _texts(content, "prompts", None)
    columns = content.get("columns", {})
    if not isinstance(columns, dict):
        raise ProtocolError("`columns` expects an object of lists")
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != len(prompts):
            raise ProtocolError(f"column `{name}` expects a list with one entry for each of the {len(prompts)} prompts")
    if not isinstance(content.get("name", ""), str) or not isinstance(content.get("parameters", {}), dict):
        raise ProtocolError("`name` expects a text, `parameters` an object")
    return Request(
        prompts=prompts,
        images=_texts(content, "images", len(prompts)) if "images" in content else None,
        completions=_texts(content, "completions", len(prompts)) if "completions" in content else None,
        columns=columns,
        name=content.get("name"),
        parameters=content.get("parameters", {}),
    )


def write_answer(scores: Mapping[str, Sequence[float]], problems: Mapping[str, Mapping[str, int]]) -> bytes:
    """An answer's body; NaN becomes null, `problems` says why."""
    numbers = {name: [None if math.isnan(x) else x for x in values] for name, values in scores.items()}
    return json.dumps({"scores": numbers, "problems": problems}, allow_nan=False).encode()


def read_answer(body: bytes, n: int) -> Scores:
    """Scores of an answer, by name. What is wrong with one score costs that sample only.

    Args:
        body: of the answer.
        n: how many samples were asked about.

    Raises:
        ProtocolError: no JSON, no scores, or another number of them than of samples.
    """
    content = _object(body, "the answer")
    scores = content.get("scores")
    named = {"": scores} if isinstance(scores, list) else scores
    if not isinstance(named, dict) or not named:
        raise ProtocolError(
            f"the answer has no list or object `scores`, but: {', '.join(map(str, list(content)[:5])) or 'nothing'}"
        )
    problems = content.get("problems")
    read = {}
    for name, values in named.items():
        if not isinstance(values, list):
            raise ProtocolError(f"the scores of `{name}` are {_json_kind(values)}, not a list")
        if len(values) != n:
            what = f" of `{name}`" if name else ""
            raise ProtocolError(f"answered {len(values)} scores{what} for {n} samples")
        why = _only_problem(problems.get(name) if isinstance(problems, dict) else None)
        read[name] = [_score(value, why) for value in values]
    return read


def excerpt(body: bytes) -> str:
    """The beginning of a body, for a message."""
    text = " ".join(body[: 4 * EXCERPT].decode("utf-8", "replace").split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def _score(value: object, why: str) -> float | Unscored:
    if value is None:
        return Unscored(f"could not be scored by the server{why}")
    if isinstance(value, _NoNumber):
        return Unscored(f"was answered with {value.literal} instead of a number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Unscored(f"was answered with {_json_kind(value)} instead of a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else Unscored("was answered with a number beyond float64")


@dataclass(frozen=True)
class _NoNumber:
    """NaN, Infinity, -Infinity: Python's JSON accepts them, JSON does not."""

    literal: str


def _json_kind(value: object) -> str:
    kinds = {bool: "a boolean", str: "a text", list: "a list", dict: "an object", _NoNumber: "no number"}
    return kinds.get(type(value), "a number")


def _only_problem(counts: object) -> str:
    messages = [str(message) for message in counts] if isinstance(counts, dict) else []
    return f": {messages[0]}" if len(messages) == 1 else ""


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        content = json.loads(body, parse_constant=_NoNumber)
    except (ValueError, RecursionError):
        html = body.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))
        kind = "an HTML page" if html else "no JSON"
        raise ProtocolError(f"{what} is {kind}: {excerpt(body) or 'nothing'}") from None
    if not isinstance(content, dict):
        raise ProtocolError(f"{what} is {_json_kind(content)}, not an object")
    return content


def _texts(content: Mapping[str, Any], key: str, n: int | None) -> list[str]:
    values = content.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        _refuse(f"`{key}` expects a list of texts")
    if n is not None and len(values) != n:
        _refuse(f"`{key}` has {len(values)} entries for {n} prompts")
    return values


def _refuse(message: str) -> NoReturn:
    raise ProtocolError(message)
