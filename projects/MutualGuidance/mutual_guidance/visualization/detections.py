"""
Detections of several models beside the ground truth, as in the paper's Figure 5.

Shape symbols: D detections and M ground truths of an image.
"""

from typing import NamedTuple

import matplotlib
import numpy as np
from detectron2.structures import Instances
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..evaluation.ground_truth import GroundTruths, class_ious

# Of a true positive and its ground truth, as in AP50.
MIN_IOU = 0.5
FALSE, NOT_COUNTED = -1, -2
_COLORS = {"gt": "white", "true": "#00c853", "false": "#ff3d3d", "not counted": "#9e9e9e"}
_PANEL_WIDTH = 3.6  # inches
_COLUMNS = 3


class Matched(NamedTuple):
    """Detections of one model on an image, the best-scored first."""

    boxes: np.ndarray  # (D, 4), XYXY in pixels
    scores: np.ndarray  # (D,)
    classes: np.ndarray  # (D,)
    gt_inds: np.ndarray  # (D,) the ground truth of a true positive, else FALSE or NOT_COUNTED
    ious: np.ndarray  # (D,) with that ground truth, else the highest with one of its class

    @property
    def num_false(self) -> int:
        """Number of false positives."""
        return int((self.gt_inds == FALSE).sum())

    def gt_ious(self, num_gts: int) -> np.ndarray:
        """(M,): IoU with which each ground truth is found, 0 where it is missed."""
        found = np.zeros(num_gts)
        true = self.gt_inds >= 0
        found[self.gt_inds[true]] = self.ious[true]
        return found


def match(detections: Instances, gts: GroundTruths) -> Matched:
    """
    Match as COCO does at one threshold: the best-scored detection first, each with the free ground
    truth of its class that it overlaps most, from ``MIN_IOU`` on. One that fits only a crowd or an
    object marked difficult is not counted.
    """
    detections = detections[detections.scores.argsort(descending=True, stable=True)].to("cpu")
    ious = class_ious(detections, gts)  # (D, M)
    gt_inds = np.full(len(detections), FALSE)
    best = ious.max(axis=1, initial=0)
    free = gts.counted.copy()
    for d, row in enumerate(ious if len(free) else ()):
        m = np.where(free, row, 0).argmax()
        if free[m] and row[m] >= MIN_IOU:
            gt_inds[d], best[d], free[m] = m, row[m], False
        elif (row[~gts.counted] >= MIN_IOU).any():
            gt_inds[d] = NOT_COUNTED
    return Matched(
        detections.pred_boxes.tensor.numpy(),
        detections.scores.numpy(),
        detections.pred_classes.numpy(),
        gt_inds,
        best,
    )


def disagreement(models: list[Matched], gts: GroundTruths) -> float:
    """
    How far models differ on an image: for each ground truth the difference of the highest and the
    lowest IoU with which a model finds it (0 if missed), summed, plus half the difference of the
    highest and the lowest number of false positives.
    """
    ious = np.stack([model.gt_ious(len(gts.boxes)) for model in models])
    return float(np.ptp(ious, axis=0).sum() + np.ptp([m.num_false for m in models]) / 2)


def draw_comparison(
    image: np.ndarray, gts: GroundTruths, models: dict[str, Matched], class_names: list[str]
) -> Figure:
    """
    The ground truth, then the detections of each model with score and IoU: true positives green,
    false positives red and with their class, the ground truth dashed and white.

    Args:
        image: (H, W, 3) uint8, RGB. models: by label.
    """
    columns = min(1 + len(models), _COLUMNS)
    rows = -(-(1 + len(models)) // columns)
    height = _PANEL_WIDTH * image.shape[0] / image.shape[1] + 0.35
    # Labels are text from data sets and folders, never mathematics.
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        figure = Figure(figsize=(columns * _PANEL_WIDTH, rows * height), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in panels:
            axes.axis("off")
        _draw_image(panels[0], image, "ground truth", gts)
        for box, c in zip(gts.boxes, gts.classes, strict=True):
            _write(panels[0], box, class_names[c], "gt")
        for axes, (label, model) in zip(panels[1:], models.items(), strict=False):
            found, counted = (model.gt_inds >= 0).sum(), gts.counted.sum()
            title = f"{label}: {found} of {counted} found, {model.num_false} false"
            _draw_image(axes, image, title, gts)
            _draw_model(axes, model, class_names)
    return figure


def _draw_image(axes: Axes, image: np.ndarray, title: str, gts: GroundTruths) -> None:
    axes.imshow(image, interpolation="bicubic")
    axes.set_title(title, fontsize=9)
    for box in gts.boxes:
        _outline(axes, box, "gt", linestyle=(0, (4, 3)))


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
