"""Plots of an experiment."""

import itertools
import statistics
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..figures import PLAIN_TEXT, write_png
from .schema import COMPARED, START

_INCHES = (4.0, 3.2)  # of one panel
# Over the course of training: the metric and the panel's title.
_CURVES = (
    ("AP", "AP in training"),
    ("assignment/cls_regressed_iou", "IoU of classification's positives, regressed"),
    ("assignment/cls_as_static", "positives of classification as static"),
)


@matplotlib.rc_context({**PLAIN_TEXT, "font.size": 8})
def plot(result: dict, path: Path) -> None:
    """
    Write a picture with a row for each protocol and config: the differences from the static rule
    with their intervals, and over the course of training AP and the labels of classification, where
    they were measured.

    Args:
        result: the JSON of an experiment, as ``tools/experiment.py`` writes it.
    """
    rows = [row for row in result["rows"] if row["variant"] != START]
    places = list(dict.fromkeys((row["protocol"], row["config"]) for row in rows))
    labels = list(dict.fromkeys(map(_label, rows)))
    palette = matplotlib.colormaps["tab10" if len(labels) <= 10 else "tab20"].colors
    colors = dict(zip(labels, itertools.cycle(palette), strict=False))
    columns = 1 + len(_CURVES)
    figure = Figure((columns * _INCHES[0], len(places) * _INCHES[1]), layout="constrained")
    axes = figure.subplots(len(places), columns, squeeze=False)
    for (bars, *curves), (protocol, config) in zip(axes, places, strict=True):
        chosen = [row for row in rows if (row["protocol"], row["config"]) == (protocol, config)]
        _plot_differences(bars, chosen, colors)
        name = config.removeprefix("configs/").removesuffix(".yaml")
        bars.set_title(f"{name}, {protocol}:\ndifference from static, t-interval over runs")
        shared = _of_all(chosen, result["runs"])
        for panel, (metric, title) in zip(curves, _CURVES, strict=True):
            for row in chosen:
                _plot_curve(panel, colors[_label(row)], metric, row, shared)
            panel.set(xlabel="iteration", title=title)
    lines = [Line2D([], [], color=color, marker="o") for color in colors.values()]
    figure.legend(lines, colors, loc="outside lower center", ncols=5)
    write_png(path, figure, dpi=110)


def _label(row: dict) -> str:
    return f"{row['strategy']} {row['variant']}".strip()


def _is_of(run: dict, row: dict) -> bool:
    return all(run[key] == row[key] for key in ("protocol", "config", "variant", "strategy"))


def _of_all(rows: list[dict], runs: list[dict]) -> list[dict]:
    """The runs of the seeds and folds that all rows have: others would lift or lower a curve."""
    pairs = [{(r.get("fold"), r["seed"]) for r in runs if _is_of(r, row)} for row in rows]
    shared = set.intersection(*pairs)
    return [run for run in runs if (run.get("fold"), run["seed"]) in shared]


def _plot_differences(axes: Axes, rows: list[dict], colors: dict[str, str]) -> None:
    """The mean and the interval of each metric, of the rows that are compared."""
    rows = [row for row in rows if "difference" in row["metrics"]["AP"]]
    for i, row in enumerate(rows):
        summaries = [row["metrics"][m] for m in COMPARED]
        means = [s["difference"] for s in summaries]
        axes.errorbar(
            [x + (i + 0.5) * 0.8 / len(rows) - 0.4 for x in range(len(COMPARED))],
            means,
            yerr=[0.0 if s["low"] is None else s["high"] - s["difference"] for s in summaries],
            fmt="o",
            capsize=4,
            color=colors[_label(row)],
        )
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(COMPARED)), COMPARED)


def _plot_curve(axes: Axes, color: str, metric: str, row: dict, runs: list[dict]) -> None:
    """
    The mean of a metric over the seeds, and their standard deviation as a band, at the iterations
    that the histories of all seeds have.
    """
    curves = [
        {point["iteration"]: point[metric] for point in run["history"] if metric in point}
        for run in runs
        if _is_of(run, row)
    ]
    if not curves:
        return
    iterations = sorted(set.intersection(*map(set, curves)))
    at = [[curve[i] for curve in curves] for i in iterations]
    means = [statistics.mean(values) for values in at]
    stds = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in at]
    axes.plot(iterations, means, "o-", markersize=3, color=color)
    low = [m - s for m, s in zip(means, stds, strict=True)]
    high = [m + s for m, s in zip(means, stds, strict=True)]
    axes.fill_between(iterations, low, high, color=color, alpha=0.2)
