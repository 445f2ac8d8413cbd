"""Numbers and names as people write them; the terminal and the page use the same ones."""

from __future__ import annotations

import math
import re

from align.report.gains import Gain
from align.report.records import Interval

DASH = "–"


def number(value: float | None) -> str:
    """Three significant digits, no exponent where none is needed, a dash for a missing value."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"


def score(value: float | None) -> str:
    """A reward under a picture: two decimals, or three significant digits for large ones."""
    return f"{value:.2f}" if value is not None and math.isfinite(value) and abs(value) < 100 else number(value)


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else DASH


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{number(seconds)} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def level(value: float, gain: Gain) -> str:
    """A mean reward, as a percentage where it is a success rate."""
    if gain.is_rate:
        return percent(value)
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 else number(value)


def signed(value: float, gain: Gain) -> str:
    """A difference with its sign, in percentage points where it is one of success rates.

    The difference of a gain and both ends of its interval have equally many decimals.
    """
    if not math.isfinite(value):
        return DASH
    if gain.is_rate:
        return f"{100 * value:+.1f}"
    ends = (gain.difference.mean, gain.difference.low, gain.difference.high)
    largest = max((abs(end) for end in ends if math.isfinite(end)), default=0.0)
    if largest == 0 or 1e-3 <= largest < 1e5:
        digits = max(0, 2 - math.floor(math.log10(largest))) if largest else 3
        return f"{value:+,.{digits}f}"
    return f"{value:+.2e}"


def change(gain: Gain) -> str:
    """The difference with its unit and its 95 % interval."""
    interval = interval_of(gain)
    return difference(gain) + (f" ({interval})" if interval else "")


def difference(gain: Gain) -> str:
    """The difference with its unit."""
    return signed(gain.difference.mean, gain) + (" points" if gain.is_rate else "")


def interval_of(gain: Gain) -> str:
    """The 95 % interval of the difference in words; empty if there is none."""
    if not has_interval(gain.difference):
        return ""
    return f"95 % interval {signed(gain.difference.low, gain)} to {signed(gain.difference.high, gain)}"


def verdict(gain: Gain) -> str:
    """What the interval of the difference allows us to say."""
    if not has_interval(gain.difference):
        return "too few rows to tell"
    if gain.difference.low > 0:
        return "improved"
    if gain.difference.high < 0:
        return "got worse"
    return "no clear change"


def has_interval(interval: Interval) -> bool:
    """Whether both ends are numbers."""
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def unbroken(text: str) -> str:
    """The text with no line break between a number and its unit."""
    return re.sub(r"(\d) (?=(?:%|s|min|h|points)\b|%)", "\\1\u00a0", text)


def shortened(text: str, length: int) -> str:
    """The text, or its first `length` characters and an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def plural(count: int, noun: str) -> str:
    """The count and its noun: "1 step", "1,200 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
