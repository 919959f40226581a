"""Detections of one or several models beside the ground truth, as in the paper's Figure 5."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..evaluation.ground_truth import GroundTruths
from ..evaluation.matching import FALSE, NOT_COUNTED, Matched
from ..figures import PLAIN_TEXT
from .predictions import bounded

_COLORS = {"gt": "white", "true": "#00c853", "false": "#ff3d3d", "not counted": "#9e9e9e"}
_PANEL_WIDTH = 3.6  # inches
_MAX_HEIGHT = 4 * _PANEL_WIDTH  # of a panel
_COLUMNS = 3


@matplotlib.rc_context({**PLAIN_TEXT, "font.size": 9})
def draw_comparison(
    image: np.ndarray, gts: GroundTruths, models: dict[str, Matched], class_names: list[str]
) -> Figure:
    """
    The ground truth, then the detections of each model with score and IoU: true positives green,
    false positives red and with their class, the ground truth dashed and white. What is not counted
    is grey: crowds, difficult objects, and what finds them.

    Args:
        image: (H, W, 3) uint8, RGB. models: by label.
    """
    columns = min(1 + len(models), _COLUMNS)
    rows = -(-(1 + len(models)) // columns)
    height = min(_PANEL_WIDTH * image.shape[0] / image.shape[1], _MAX_HEIGHT) + 0.35
    figure = Figure(figsize=(columns * _PANEL_WIDTH, rows * height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.axis("off")
    _draw_image(panels[0], image, "ground truth", gts)
    for box, c, counted in zip(gts.boxes, gts.classes, gts.counted, strict=True):
        _write(panels[0], box, class_names[c], "gt" if counted else "not counted")
    for axes, (label, model) in zip(panels[1:], models.items(), strict=False):
        counts = f"{model.num_true} of {gts.counted.sum()} found, {model.num_false} false"
        _draw_image(axes, image, f"{label}: {counts}", gts)
        _draw_model(axes, model, class_names)
    return figure


def _draw_image(axes: Axes, image: np.ndarray, title: str, gts: GroundTruths) -> None:
    height, width = image.shape[:2]
    # Pixels of a smaller copy, of which Matplotlib takes some 60 bytes each, at the image's size.
    axes.imshow(bounded(image), interpolation="bicubic", extent=(0, width, height, 0))
    axes.set_title(title, fontsize=9)
    for box, counted in zip(gts.boxes, gts.counted, strict=True):
        _outline(axes, box, "gt" if counted else "not counted", linestyle=(0, (4, 3)))


def _draw_model(axes: Axes, model: Matched, class_names: list[str]) -> None:
    """The worst-scored first, so that the best-scored lie on top."""
    for d in reversed(range(len(model.boxes))):
        kind = {FALSE: "false", NOT_COUNTED: "not counted"}.get(model.gt_inds[d], "true")
        name = f"{class_names[model.classes[d]]} " if kind == "false" else ""
        _outline(axes, model.boxes[d], kind)
        _write(axes, model.boxes[d], f"{name}{model.scores[d]:.2f}, IoU {model.ious[d]:.2f}", kind)


def _outline(axes: Axes, box: np.ndarray, kind: str, linestyle: object = "-") -> None:
    x0, y0, x1, y1 = box
    axes.add_patch(
        Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=_COLORS[kind], linestyle=linestyle
        )
    )


def _write(axes: Axes, box: np.ndarray, text: str, kind: str) -> None:
    """Just inside the upper left corner of the box."""
    background = {"facecolor": _COLORS[kind], "alpha": 0.75, "pad": 0.8, "edgecolor": "none"}
    axes.text(
        box[0], box[1], text, fontsize=6, va="top", color="black", bbox=background, clip_on=True
    )
