"""What files are understood, and what is said of those that are not."""

import json
import math

import pytest

from align.adapter.rows import read_rows
from align.errors import AlignError

NAMES = ("good", "short")
PREFERRED, REJECTED = ((0.9, 0.1), (0.2, 0.8)), ((0.5, 0.3), (0.1, 0.9))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def named(scores):
    return dict(zip(NAMES, scores, strict=True))


SHAPES = {
    "mappings of both sides": lambda p, r: {"chosen_rewards": named(p), "rejected_rewards": named(r)},
    "columns of both sides": lambda p, r: {
        "chosen_good": p[0],
        "chosen_short": p[1],
        "rejected_good": r[0],
        "rejected_short": r[1],
    },
    "columns of align pairs": lambda p, r: {
        f"{name}_{side}": scores[i] for side, scores in (("chosen", p), ("rejected", r)) for i, name in enumerate(NAMES)
    },
    "a mapping": lambda p, r: {"rewards": named(p), "rejected_rewards": named(r)},
    "columns": lambda p, r: {**named(p), "rejected_rewards": named(r)},
    "columns with a prefix": lambda p, r: {"rewards/good": p[0], "rewards/short": p[1], "rejected_rewards": named(r)},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_every_shape_gives_the_same_rows(tmp_path, shape):
    rows = [{"prompt": f"p{i}", **shape(PREFERRED[i], REJECTED[i])} for i in range(2)]
    found = read_rows(write(tmp_path / "a.jsonl", rows), NAMES, rejected=True)
    assert (found.prompts, found.preferred, found.rejected) == (("p0", "p1"), PREFERRED, REJECTED)
    assert read_rows(str(tmp_path / "a.jsonl"), NAMES).rejected is None


def test_parquet_and_conversations(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    turns = [{"role": "user", "content": "hello"}, {"role": "user", "content": "again"}]
    parquet.write_table(pa.Table.from_pylist([{"prompt": turns, "good": 1.0, "short": None}]), tmp_path / "a.parquet")
    write(tmp_path / "b.jsonl", [{"prompt": turns, "good": 1.0, "short": 2.0}])
    with pytest.raises(AlignError, match="has no rewards of the preferred response for all of good, short"):
        read_rows(str(tmp_path / "a.parquet"), NAMES)
    assert read_rows(str(tmp_path / "a.parquet"), ("good",)).prompts == ("hello\nagain",)
    assert read_rows(str(tmp_path / "b.jsonl"), NAMES).prompts == ("hello\nagain",)


def test_what_is_missing_is_not_scored(tmp_path):
    rows = [{"prompt": "a", "good": 1, "short": 2}, {"prompt": "b", "good": 1, "short": None}]
    found = read_rows(write(tmp_path / "a.jsonl", [*rows, {"prompt": "c", "good": float("inf"), "short": 1}]), NAMES)
    assert math.isnan(found.preferred[1][1])
    assert math.isnan(found.preferred[2][0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([{"text": "a", "good": 1, "short": 1}], "expected a column prompt or instruction or question, found text"),
        ([{"prompt": "a", "good": 1}], "for all of good, short; its columns are prompt, good"),
        ([{"prompt": "a", "good": "high", "short": 1}], r"a.jsonl:1: the reward `good` must be a number, found 'high'"),
        ([{"prompt": "a", "good": True, "short": 1}], "must be a number, found True"),
        ([{"prompt": 3, "good": 1, "short": 1}], "`prompt` must be a text or a list of turns, found 3"),
        (
            [{"prompt": "a", "good": 1, "short": 1}, {"prompt": "b", "good": None, "short": None}],
            "a.jsonl:2: no objective is scored",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path, rows, message):
    with pytest.raises(AlignError, match=message):
        read_rows(write(tmp_path / "a.jsonl", rows), NAMES)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(AlignError, match=r"expected a file ending in .jsonl or .parquet"):
        read_rows(str(tmp_path / "no.jsonl"), NAMES)
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"\n')
    with pytest.raises(AlignError, match=r"a.jsonl:1: not valid JSON"):
        read_rows(str(tmp_path / "a.jsonl"), NAMES)
    (tmp_path / "b.jsonl").write_text("[1]\n")
    with pytest.raises(AlignError, match=r"b.jsonl:1: expected an object, found \[1\]"):
        read_rows(str(tmp_path / "b.jsonl"), NAMES)
    with pytest.raises(AlignError, match="of the rejected response"):
        read_rows(write(tmp_path / "c.jsonl", [{"prompt": "a", "good": 1, "short": 1}]), NAMES, rejected=True)
