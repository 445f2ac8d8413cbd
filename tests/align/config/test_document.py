"""YAML -> plain data and the place of every key."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from align.config.document import Dumper, Loader, dotted, read_document, read_scalar
from align.config.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("12", 12),
        ("1_000", 1000),
        ("010", 10),  # YAML 1.1 would read octal 8
        ("no", "no"),  # YAML 1.1 would read false
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("2024-01-31", "2024-01-31"),  # no dates
        ("1:30", "1:30"),  # no base-60 numbers
        ("'8'", "8"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
        ("{a: 1, b: {c: no}}", {"a": 1, "b": {"c": "no"}}),
        ("1.5.2", "1.5.2"),
    ],
)
def test_scalars(text, value):
    found = read_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_places_are_line_numbers():
    document = read_document("a: 1\nb:\n  c: 2\n\n  d: [x, y]\nr:\n- {w: 1}\n- {w: 2}\n", "my.yaml")
    assert document.data == {"a": 1, "b": {"c": 2, "d": ["x", "y"]}, "r": [{"w": 1}, {"w": 2}]}
    assert document.place(("a",)) == "my.yaml, line 1"
    assert document.place(("b", "d")) == "my.yaml, line 5"
    assert document.place(("r", 1, "w")) == "my.yaml, line 8"
    assert document.place(("b", "c", "unset")) == "my.yaml, line 3"  # the nearest parent
    assert document.place(("unset",)) == "my.yaml"


def test_duplicate_keys_are_reported_with_both_lines_all_together():
    with pytest.raises(ConfigError) as caught:
        read_document("a: 1\nb: {x: 1, x: 2}\na: 3\n", "my.yaml")
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "`b.x` is set twice" in text
    assert "my.yaml, line 3: `a` is set twice (first in my.yaml, line 1)" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "an empty file"),
        ("# only a comment\n", "an empty file"),
        ("- a\n- b\n", "list"),
        ("just words", "str"),
        ("a: [1, 2\nb: 3\n", "line 2"),
        ("a: b: c\n", "line 1"),
        ("a: &x 1\nb: *x\n", "anchors and aliases are not read"),
        ("a: !!python/object/apply:os.system [ls]\n", "is not read"),
        ("? [a, b]\n: 1\n", "plain word"),
    ],
)
def test_files_that_are_no_configuration(text, expected):
    with pytest.raises(ConfigError, match=r"my\.yaml") as caught:
        read_document(text, "my.yaml")
    assert expected in str(caught.value)


def test_dotted():
    assert dotted(("rewards", 0, "weight")) == "rewards.0.weight"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
@example("\x85")
@example("a\u2028 b")
def test_what_is_written_is_read_again(value):
    """Whatever is dumped loads to the same value and type, also texts that look like numbers or YAML 1.1 booleans."""
    text = yaml.dump({"value": value}, Dumper=Dumper, allow_unicode=True, width=120)
    assert yaml.load(text, Loader=Loader) == {"value": value}
    if not isinstance(value, dict):
        assert read_document(text, "x").data == {"value": value}
