"""Charts: colours of the page, unique ids, the running mean."""

import re
from xml.etree import ElementTree

import pytest

from align.report.curves import Series, line_chart, running_mean

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def series(count, **intervals):
    return Series(label="reward", steps=range(count), values=[0.1 * step for step in range(count)], **intervals)


def test_running_mean_by_hand():
    """Width 3: (1+2)/2, (1+2+6)/3, (2+6+4)/3, (6+4)/2."""
    assert running_mean([1.0, 2.0, 6.0, 4.0], 3) == [1.5, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("count", [1, 2, 59, 60, 500])
def test_a_chart_takes_its_colours_from_the_page(count):
    svg = line_chart([series(count)], salt="a")
    assert svg.startswith("<svg")
    assert "var(--series-1)" in svg
    assert not re.search(r"#0102", svg)
    assert "<metadata" not in svg
    ElementTree.fromstring(svg)


def test_points_with_intervals_are_drawn():
    svg = line_chart([series(3, low=[0, 0, 0], high=[1, 1, 1])], salt="a")
    assert "var(--series-1)" in svg


def test_charts_of_one_page_share_no_id():
    found = [set(re.findall(r' id="([^"]+)"', line_chart([series(5)], salt=salt))) for salt in "ab"]
    assert found[0]
    assert not found[0] & found[1]


def test_the_same_chart_is_drawn_twice_alike():
    assert line_chart([series(5)], salt="a") == line_chart([series(5)], salt="a")


def test_settings_of_matplotlib_stay_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    line_chart([series(5)], salt="a")
    assert dict(matplotlib.rcParams) == before
