"""
The figures with which the paper explains the method: Figure 2, the candidates that matter most to
an object, and Figure 3, the amplified quality.
"""

from collections.abc import Sequence

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tabulate import tabulate

from ..assignment import amplify
from ..figures import PLAIN_TEXT
from ..modeling.meta_arch import Guided
from .images import GroundTruthImage
from .qualities import CandidateRow

_SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)
_LABEL_COLORS = {"positive": "#b7e4b0", "ignored": "#dddddd", "negative": "#f4b9b3"}
_PRIOR_HEADERS = {"anchor_iou": "IoU anchor", "centerness": "centerness"}


@matplotlib.rc_context(PLAIN_TEXT)
def draw_amplification(sigmas: Sequence[float]) -> Figure:
    """Figure 3: a panel for each sigma of Eq. (1), 1 or more, with a curve for each score."""
    prior = torch.linspace(0, 1, 201)
    figure = Figure(figsize=(4 * len(sigmas), 4), layout="constrained")
    all_axes = figure.subplots(1, len(sigmas), sharey=True, squeeze=False)[0]
    for axes, sigma in zip(all_axes, sigmas, strict=True):
        for score in _SCORES:
            curve = amplify(prior, torch.tensor(score), sigma)
            axes.plot(prior, curve, label=f"score {score:g}")
        axes.set(title=f"σ = {sigma:g}", xlabel="IoU with the anchor", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("amplified IoU")
    all_axes[-1].legend(loc="lower right")
    return figure


@matplotlib.rc_context(PLAIN_TEXT)
def draw_candidates(
    detector: Guided, image: GroundTruthImage, gt_index: int, rows: Sequence[CandidateRow]
) -> Figure:
    """Figure 2: the rows of :func:`candidate_rows` on the image and as a table."""
    figure = Figure(figsize=(13, 1.2 + max(4.5, 0.3 * len(rows))), layout="constrained")
    picture, table = figure.subplots(1, 2, width_ratios=(4, 6))
    figure.suptitle(f"{image.name}, object {gt_index}, σ = {detector.matcher.sigma:g}")
    _draw_boxes(picture, image, gt_index, rows)
    _draw_table(table, detector, rows)
    return figure


def _quality_names(detector: Guided) -> tuple[str, str, str, str]:
    """Headers of the qualities."""
    prior = _PRIOR_HEADERS[detector.prior_name]
    return prior, "IoU regressed", "score", f"{prior} amplified"


def candidates_table(detector: Guided, rows: Sequence[CandidateRow]) -> str:
    """The table of the terminal: a label behind the quality that decides it."""
    prior, regressed, score, amplified = _quality_names(detector)
    headers = ["", prior, "static", regressed, "Localize to Classify"]
    headers += [score, amplified, "Classify to Localize"]
    lines = [
        [_name(i), r.prior, r.static, r.regressed, r.localize_to_classify]
        + [r.score, r.amplified, r.classify_to_localize]
        for i, r in enumerate(rows)
    ]
    return tabulate(lines, headers, tablefmt="pipe", floatfmt=".2f")


def _draw_table(axes: Axes, detector: Guided, rows: Sequence[CandidateRow]) -> None:
    """The table of the picture: a label is the colour of the quality that decides it."""
    plain = "white"
    cells, colors = [], []
    for i, row in enumerate(rows):
        values = (row.prior, row.regressed, row.score, row.amplified)
        cells.append([_name(i), *(f"{value:.2f}" for value in values)])
        labels = (row.static, row.localize_to_classify, None, row.classify_to_localize)
        colors.append([plain, *(_LABEL_COLORS[label] if label else plain for label in labels)])
    prior, regressed, score, amplified = _quality_names(detector)
    headers = ["", f"{prior}\nstatic", f"{regressed}\nLocalize to Classify"]
    headers += [score, f"{amplified}\nClassify to Localize"]
    table = axes.table(
        cells, colors, colLabels=headers, cellLoc="center", loc="center",
        colWidths=(0.06, 0.22, 0.26, 0.14, 0.28),
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.35)
    for column in range(len(headers)):
        table[0, column].set_height(2 * table[1, column].get_height())
    axes.axis("off")
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in _LABEL_COLORS.values()]
    axes.legend(handles, _LABEL_COLORS, loc="lower center", ncols=3, frameon=False)


def _draw_boxes(
    axes: Axes, image: GroundTruthImage, gt_index: int, rows: Sequence[CandidateRow]
) -> None:
    """The object, and those of the anchors that a strategy promotes or demotes."""
    axes.imshow((image.pixels * 0.75).astype("uint8"))  # darker, for the white dashes
    axes.axis("off")
    gt_box = image.inputs["instances"].gt_boxes.tensor[gt_index].tolist()
    _add_box(axes, gt_box, "white", linestyle="--")
    places = set()
    for i, row in enumerate(rows):
        labels = (row.static, row.localize_to_classify, row.classify_to_localize)
        if labels.count("positive") in (0, 3):
            continue
        color = "red" if row.static == "positive" else "lime"
        _add_box(axes, row.box, color)
        x, y = (round(max(corner, 0)) for corner in row.box[:2])
        while (x, y) in places:  # beside the name of an anchor with the same corner
            x += max(1, image.pixels.shape[1] // 20)
        places.add((x, y))
        style = {"facecolor": color, "edgecolor": "none", "pad": 1}
        axes.text(x, y, _name(i), color="black", fontsize=8, bbox=style)
    axes.set_title("red: demoted by a task, green: promoted by a task", fontsize=9)


def _add_box(axes: Axes, box: list[float], color: str, **style) -> None:
    """An outline."""
    x0, y0, x1, y1 = box
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=color, lw=1.5, **style))


def _name(index: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    turn, letter = divmod(index, 26)
    return chr(ord("A") + letter) + (str(turn) if turn else "")
