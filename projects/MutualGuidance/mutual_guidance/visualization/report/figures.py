"""The charts of the report, as data URIs of SVG."""

import base64
import io
import math
import warnings
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...figures import PLAIN_TEXT
from .files import thinned

# The same bytes each time, in the reader's fonts, which may have letters that Matplotlib's lacks.
_STYLE = {
    **PLAIN_TEXT,
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "font.size": 9,
}
# Points of a curve that a chart holds at most.
_MAX_POINTS = 500
# Of a curve on which each is marked.
_FEW_POINTS = 12


def legend_label(name: str) -> str:
    """A name as Matplotlib shows it, which leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def chart(draw: Callable[[Axes], None], height: float = 2.6, width: float = 4.2) -> str:
    """The data URI of what ``draw`` draws; sides in inches."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}"


def bars(values: dict[str, dict[str, float]], names: list[str]) -> str:
    """
    Grouped bars with their numbers.

    Args:
        values: run to name to percent, NaN where it is not defined. names: a group each.
    """
    thickness = 0.8 / len(values)

    def draw(axes: Axes) -> None:
        for i, (run, by_name) in enumerate(values.items()):
            for j, name in enumerate(names):
                value, y = by_name.get(name, math.nan), j + (i + 0.5) * thickness - 0.4
                defined = math.isfinite(value)
                axes.barh(y, value if defined else 0, thickness, color=f"C{i}")
                text, end = f"{value:.1f}" if defined else "–", (value if defined else 0, y)
                axes.annotate(text, end, (3, 0), textcoords="offset points", va="center")
            axes.barh(0, 0, color=f"C{i}", label=legend_label(run))
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel="AP (%)")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        if len(values) > 1:
            axes.figure.legend(loc="outside lower center", fontsize="small")

    return chart(draw, height=0.9 + 0.22 * len(names) * max(len(values), 1.5))


def curve(runs: dict[str, dict[int, float]], name: str) -> str:
    """One scalar over the iterations, a line a run; a run may lack it."""

    def draw(axes: Axes) -> None:
        for i, (run, values) in enumerate(runs.items()):
            points = thinned(list(values.items()), _MAX_POINTS)
            if not points:
                continue
            style = ".-" if len(points) <= _FEW_POINTS else "-"
            label = legend_label(run)
            axes.plot(*zip(*points, strict=True), style, color=f"C{i}", label=label, linewidth=1.2)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend(fontsize="x-small")

    return chart(draw)


def lines(
    series: dict[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str, mark: float = -1
) -> str:
    """Shares over shares, a line a name; a vertical line at ``mark``."""

    def draw(axes: Axes) -> None:
        for name, points in series.items():
            points = thinned(list(zip(*points, strict=True)), _MAX_POINTS)
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.plot(xs, ys, label=legend_label(name), linewidth=1.2)
        if mark >= 0:
            axes.axvline(mark, color="#888", linestyle=":", linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.figure.legend(loc="outside right upper", fontsize="x-small")

    return chart(draw, height=3.0, width=4.8)
