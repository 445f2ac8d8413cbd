"""Commands of the language branch that are not about texts say what to do instead; the two that are, in tests/runs."""

import pytest

from align.errors import AlignError
from preference import commands
from preference.config import PreferenceRun


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        (lambda: commands.generate(PreferenceRun(), prompts=("a",)), "evaluation.generate"),
        (lambda: commands.score("folder", rewards=()), "evaluation.rewards"),
        (lambda: commands.export(PreferenceRun(), source="run"), "weights/"),
    ],
)
def test_the_way_out_is_named(command, way_out):
    with pytest.raises(AlignError) as found:
        command()
    assert way_out in found.value.way_out
