"""Plots of an experiment."""

import statistics
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .grid import START
from .report import COMPARED

_INCHES = (4.0, 3.2)  # of one panel
# Over the course of training: the metric and the panel's title.
_CURVES = (
    ("AP", "AP in training"),
    ("assignment/cls_regressed_iou", "IoU of classification's positives, regressed"),
    ("assignment/cls_as_static", "positives of classification as static"),
)


def plot(result: dict, path: Path) -> None:
    """
    Write a picture with a row for each protocol and config: the final figures with their standard
    deviation over the seeds as error bars, and over the course of training AP and the labels of
    classification, where they were measured.

    Args:
        result: the JSON of an experiment, as ``tools/experiment.py`` writes it.
    """
    rows = [row for row in result["rows"] if row["variant"] != START]
    places = list(dict.fromkeys((row["protocol"], row["config"]) for row in rows))
    with matplotlib.rc_context({"font.size": 8}):
        columns = 1 + len(_CURVES)
        figure = Figure((columns * _INCHES[0], len(places) * _INCHES[1]), layout="constrained")
        axes = figure.subplots(len(places), columns, squeeze=False)
        for (bars, *curves), (protocol, config) in zip(axes, places, strict=True):
            chosen = [row for row in rows if (row["protocol"], row["config"]) == (protocol, config)]
            _plot_final(bars, chosen)
            bars.set_title(f"{config.removeprefix('configs/').removesuffix('.yaml')}, {protocol}")
            for panel, (metric, title) in zip(curves, _CURVES, strict=True):
                for i, row in enumerate(chosen):
                    _plot_curve(panel, i, metric, row, result["runs"])
                panel.set(xlabel="iteration", title=title)
            bars.legend()
        figure.savefig(path, dpi=110)


def _label(row: dict) -> str:
    return f"{row['strategy']} {row['variant']}".strip()


def _plot_final(axes: Axes, rows: list[dict]) -> None:
    step = 0.8 / len(rows)
    for i, row in enumerate(rows):
        summaries = [row["metrics"][m] for m in COMPARED]
        axes.errorbar(
            [x + (i + 0.5) * step - 0.4 for x in range(len(COMPARED))],
            [s["mean"] for s in summaries],
            yerr=[s["std"] or 0.0 for s in summaries],
            fmt="o",
            capsize=4,
            color=f"C{i}",
            label=_label(row),
        )
    axes.set_xticks(range(len(COMPARED)), COMPARED)


def _plot_curve(axes: Axes, color: int, metric: str, row: dict, runs: list[dict]) -> None:
    """
    The mean of a metric over the seeds, and their standard deviation as a band, at the iterations
    that the histories of all seeds have.
    """
    place = ("protocol", "config", "variant", "strategy")
    curves = [
        {point["iteration"]: point[metric] for point in run["history"] if metric in point}
        for run in runs
        if all(run[key] == row[key] for key in place)
    ]
    iterations = sorted(set.intersection(*map(set, curves)))
    at = [[curve[i] for curve in curves] for i in iterations]
    means = [statistics.mean(values) for values in at]
    stds = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in at]
    axes.plot(iterations, means, "o-", markersize=3, color=f"C{color}")
    low = [m - s for m, s in zip(means, stds, strict=True)]
    high = [m + s for m, s in zip(means, stds, strict=True)]
    axes.fill_between(iterations, low, high, color=f"C{color}", alpha=0.2)
