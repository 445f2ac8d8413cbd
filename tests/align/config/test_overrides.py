"""Dotted overrides."""

import pytest

from align.config.errors import ConfigError
from align.config.overrides import parse_override

TEXT = """\
branch: toy
sampler: {kind: wild, draws: 7, noise_level: 0.9}
average: null
items:
- function: f
- function: g
  weight: 3
"""


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("rate=1e-4", ("rate",), 1e-4),
        ("items.0.weight=2", ("items", 0, "weight"), 2),
        ("average=null", ("average",), None),
        ("name='8'", ("name",), "8"),
        ("name=a=b", ("name",), "a=b"),
        ("betas=[1, 2]", ("betas",), [1, 2]),
        ("items=[{function: f}]", ("items",), [{"function": "f"}]),
    ],
)
def test_parse(text, path, value):
    override = parse_override(text)
    assert (override.path, override.value) == (path, value)
    assert type(override.value) is type(value)


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=1", "seed=", "seed= ", "betas=[1, 2"])
def test_parse_refuses(text):
    with pytest.raises(ConfigError, match="override") as caught:
        parse_override(text)
    assert text in str(caught.value)


def test_values_win_over_the_file_and_the_last_one_wins(toy):
    run = toy.load(TEXT, "seed=1", "items.1.weight=5", "seed=2", "sampler.draws=1")
    assert run.seed == 2
    assert [item.weight for item in run.items] == [1.0, 5.0]
    assert run.sampler == toy.Wild(draws=1, noise_level=0.9)


def test_into_null_and_missing_sections(toy):
    assert toy.load(TEXT, "average.decay=0.5").average == toy.Average(decay=0.5)
    assert toy.load("branch: toy", "average.decay=0.5").average == toy.Average(decay=0.5)
    assert toy.load("branch: toy", "average=null").average is None


def test_an_entry_may_be_added_at_the_end_of_a_list(toy):
    run = toy.load(TEXT, "items.2.function=h", "items.2.weight=0")
    assert run.items[2] == toy.Item(function="h", weight=0.0)
    assert toy.load("branch: toy", "items.0.function=h").items == (toy.Item(function="h"),)


def test_another_kind_drops_the_files_settings_that_it_does_not_have(toy):
    assert toy.load(TEXT, "sampler.kind=calm").sampler == toy.Calm(draws=7)  # noise_level is wild's alone


def test_but_not_those_that_were_overridden_too(toy):
    with pytest.raises(ConfigError, match="`noise_level` is not a setting of `calm`"):
        toy.load(TEXT, "sampler.kind=calm", "sampler.noise_level=1")


def test_the_same_kind_keeps_everything(toy):
    assert toy.load(TEXT, "sampler.kind=wild").sampler == toy.Wild(draws=7, noise_level=0.9)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("items.5.weight=1", "`items` has 2 entries; the next free number is 2."),
        ("items.first.weight=1", "`items` is a list, whose entries have numbers."),
        ("sampler.0=1", "`sampler` is no list."),
        ("branch.x=1", "`branch` is the single value 'toy', not a section."),
    ],
)
def test_paths_that_lead_nowhere(toy, override, expected):
    with pytest.raises(ConfigError) as caught:
        toy.load(TEXT, override)
    assert str(caught.value.problems[0]) == f"override `{override}`: {expected}"


def test_bad_overrides_are_reported_together(toy):
    with pytest.raises(ConfigError) as caught:
        toy.load(TEXT, "seed", "items.9.weight=1", "rate=")
    assert len(caught.value.problems) == 2  # what cannot be parsed comes first
    with pytest.raises(ConfigError) as caught:
        toy.load(TEXT, "branch.y=2", "items.9.weight=1")
    assert len(caught.value.problems) == 2


def test_the_place_of_a_wrong_value_is_the_override(toy):
    with pytest.raises(ConfigError) as caught:
        toy.load(TEXT, "steps=ten")
    assert str(caught.value.problems[0]) == "override `steps=ten`: `steps` expects a whole number, found 'ten' (text)."
