"""Charts as inline SVG that takes its colours from the page: readable in light, in dark and on paper.

matplotlib draws with placeholder colours, and these are replaced by CSS variables afterwards. Text stays text, in the
font of the page. The four series colours are Okabe and Ito's, which colour-blind people can tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.report.gains import Gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#010203", "#010204", "#010205"
SERIES = ("#0102a1", "#0102a2", "#0102a3", "#0102a4")
CSS = {INK: "--ink", FAINT: "--faint", GRID: "--grid"} | {color: f"--series-{i}" for i, color in enumerate(SERIES, 1)}
SMOOTH_FROM = 60  # steps from which a curve is drawn faint, with its running mean over it
POINTS = 1.0 / 72.0  # inches

STYLE: dict[Any, Any] = {  # Any: matplotlib's own keys and values
    "svg.fonttype": "none",
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.formatter.limits": (-3, 5),
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line. With `low` and `high` it is drawn as points with their intervals, otherwise as a curve."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean over a window of `width` centred on each value, shorter at both ends; as long as `values`."""
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def line_chart(series: Sequence[Series], *, salt: str, width: float = 340, height: float = 170) -> str:
    """Values over steps.

    Args:
        series: at most four lines.
        salt: distinguishes the ids of this chart from those of the others on the page.
        width: points.
        height: points.
    """
    with figure(salt, width, height) as (drawn, axes):
        for color, one in zip(SERIES, series, strict=False):
            if one.low is not None and one.high is not None:
                _points(axes, one, color)
            else:
                _curve(axes, one, color)
        axes.margins(x=0.03, y=0.12)
        _whole_steps(axes)
        axes.set_xlabel("step")
        return svg(drawn)


def gain_chart(gains: Sequence[Gain], *, salt: str, width: float = 330) -> str:
    """Before (hollow) and after (filled) of each group of prompts, with intervals; one row a group, first on top."""
    height = 30 + 24 * len(gains)
    with figure(salt, width, height) as (drawn, axes):
        scale = 100.0 if all(gain.is_rate for gain in gains) else 1.0
        for row, gain in enumerate(gains):
            for side, offset, filled in ((gain.before, -0.14, False), (gain.after, 0.14, True)):
                color = SERIES[0] if filled else FAINT
                axes.plot([side.low * scale, side.high * scale], [row + offset] * 2, color=color, linewidth=1.4)
                axes.plot(
                    [side.mean * scale],
                    [row + offset],
                    "o",
                    color=color,
                    markersize=5.5,
                    markerfacecolor=color if filled else "none",
                )
        axes.set_yticks(range(len(gains)), [gain.group for gain in gains])
        axes.tick_params(axis="y", colors=INK)
        axes.set_ylim(len(gains) - 0.5, -0.5)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("success, %" if scale == 100.0 else "mean reward")
        return svg(drawn)


def _curve(axes: Axes, series: Series, color: str) -> None:
    steps, values = list(series.steps), list(series.values)
    if len(values) < SMOOTH_FROM:
        mark = "o" if len(values) == 1 else None
        axes.plot(steps, values, color=color, linewidth=1.5, marker=mark, markersize=4)
        return
    axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.35)
    axes.plot(steps, running_mean(values, max(5, len(values) // 20)), color=color, linewidth=1.7)


def _points(axes: Axes, series: Series, color: str) -> None:
    axes.plot(series.steps, series.values, color=color, linewidth=1.5, marker="o", markersize=4)
    axes.vlines(series.steps, series.low or (), series.high or (), color=color, linewidth=1.1, alpha=0.6)


def _whole_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = axes.dataLim.intervalx
    if low == high:
        axes.set_xlim(low - 1, low + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))


@contextmanager
def figure(salt: str, width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in our style; matplotlib's own settings are as before on leaving."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        drawn = Figure(figsize=(width * POINTS, height * POINTS), layout="constrained")
        drawn.patch.set_alpha(0.0)
        axes = drawn.add_subplot()
        axes.patch.set_alpha(0.0)
        yield drawn, axes


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element: no XML head, no fixed size, no metadata, colours of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(
        r' id="[A-Za-z0-9.]+_\d+"', "", text
    )  # names of groups: nothing refers to them, and charts share them
    for color, variable in CSS.items():
        text = text.replace(color, f"var({variable})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()
