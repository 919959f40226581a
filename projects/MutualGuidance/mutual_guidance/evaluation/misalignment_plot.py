"""The plots of the misalignment evaluator's figures."""

from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..figures import PLAIN_TEXT

_STYLES = {"before": "-", "after": "--"}


@matplotlib.rc_context(PLAIN_TEXT)
def draw_misalignment(runs: dict[str, dict]) -> Figure:
    """
    All of ``PANELS`` side by side.

    Args:
        runs: label to what ``misalignment.summarize`` returns, a colour each.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        draw(axes, runs)
    return figure


def draw_lost(axes: Axes, runs: dict[str, dict]) -> None:
    """How the IoU lost to misalignment is distributed, before NMS (solid) and after (dashed)."""
    _draw_cumulative(axes, runs, "iou_lost")
    axes.set(xlabel="IoU lost to misalignment, at most", xlim=(0, 1))
    axes.legend(fontsize="small", loc="lower right")


def draw_rank_correlation(axes: Axes, runs: dict[str, dict]) -> None:
    """How the rank correlation of score and IoU is distributed."""
    _draw_cumulative(axes, runs, "rank_correlation")
    axes.set(xlabel="rank correlation of score and IoU, at most", xlim=(-1, 1))


def draw_suppressed(axes: Axes, runs: dict[str, dict]) -> None:
    """Of how many ground truths NMS suppresses the best-localised prediction."""
    for i, (label, details) in enumerate(runs.items()):
        share = details["suppressed"]
        text = "n/a" if share is None else f"{share:.1%}"
        axes.barh(i, share or 0, color=f"C{i}")
        axes.annotate(f" {label}: {text}", (0, i), va="center")
    axes.set(xlabel="share whose best prediction NMS suppresses", xlim=(0, 1), yticks=[])
    axes.invert_yaxis()


PANELS: tuple[Callable[[Axes, dict[str, dict]], None], ...] = (
    draw_lost,
    draw_rank_correlation,
    draw_suppressed,
)


def _draw_cumulative(axes: Axes, runs: dict[str, dict], measure: str) -> None:
    """
    The share of ground truths up to each edge of the histogram but the lowest, which has as many as
    lie on it: after NMS, with one prediction left, very many.
    """
    for i, (label, details) in enumerate(runs.items()):
        for stage, style in _STYLES.items():
            histogram = details[stage][measure]["histogram"]
            counts = np.array(histogram["counts"])
            if counts.sum():
                shares = counts.cumsum() / counts.sum()
                name = f"{label}, {stage} NMS"
                axes.plot(histogram["edges"][1:], shares, f"C{i}{style}", label=name)
    axes.set(ylabel="share of ground truths", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
