"""Pictures of a data set: its annotated images, and its objects beside the anchors."""

from collections.abc import Sequence

import matplotlib
import torch
from detectron2.config import CfgNode
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..data import Record
from ..data.anchor_fit import THRESHOLDS, Objects
from ..figures import NO_LATEX, PLAIN_TEXT
from .images import load_image

_COLUMNS = 3
_PANEL_WIDTH = 4.0  # inches
_LABEL_HEIGHT = 12  # pixels, about
_COLOURS = matplotlib.colormaps["tab10"].colors


@matplotlib.rc_context(PLAIN_TEXT)
def draw_annotated(cfg: CfgNode, records: Sequence[Record], class_names: Sequence[str]) -> Figure:
    """The images as the detector sees them in testing, with their boxes and classes."""
    rows = -(-len(records) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_WIDTH, rows * _PANEL_WIDTH), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for axes in panels:
        axes.axis("off")
    for axes, record in zip(panels, records, strict=False):
        image = load_image(cfg, record.as_dict())
        axes.imshow(image.pixels)
        axes.set_title(f"{image.name}, {record.width}x{record.height}", fontsize=8)
        gts = image.inputs["instances"]
        boxes, classes = gts.gt_boxes.tensor.tolist(), gts.gt_classes.tolist()
        for box, category in zip(boxes, classes, strict=True):
            _draw_box(axes, box, class_names[category], _COLOURS[category % len(_COLOURS)])
    return figure


def _draw_box(axes: Axes, box: Sequence[float], name: str, colour: tuple) -> None:
    x0, y0, x1, y1 = box
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=1.5))
    background = {"facecolor": colour, "alpha": 0.7, "pad": 0.8, "edgecolor": "none"}
    side = "bottom" if y0 > _LABEL_HEIGHT else "top"  # above the box, where there is room
    axes.text(x0, y0, name, fontsize=6, va=side, bbox=background, clip_on=True)


@matplotlib.rc_context(NO_LATEX)
def draw_statistics(
    name: str, objects: Objects, generator: DefaultAnchorGenerator | None, ious: dict[str, Tensor]
) -> Figure:
    """
    Objects an image, sizes and aspect ratios with the anchors, best IoU.

    Args:
        generator: the detector's anchors, None for one without. ious: (M,) by name of the anchors.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    title = f"{name}: {len(objects.boxes)} objects in {len(objects.per_image)} images"
    figure.suptitle(title, parse_math=False)
    cells = [] if generator is None else list(generator.cell_anchors)
    anchors = torch.cat([torch.zeros(0, 4), *cells])
    _draw_counts(axes[0, 0], objects.per_image)
    _draw_sizes(axes[0, 1], objects.sides, anchors[:, 2:] - anchors[:, :2])
    _draw_ratios(axes[1, 0], objects.sides, anchors[:, 2:] - anchors[:, :2])
    _draw_ious(axes[1, 1], ious)
    return figure


def _draw_counts(axes: Axes, per_image: Tensor) -> None:
    """Histogram of the objects an image (N,), a bar a number."""
    counts = per_image.bincount()
    axes.bar(range(len(counts)), counts.numpy(), width=1.0)
    axes.set(xlabel="objects an image", ylabel="images")


def _draw_sizes(axes: Axes, sides: Tensor, anchor_sides: Tensor) -> None:
    """Widths and heights (M, 2) of the objects and of the anchors at a cell, on log axes."""
    axes.hexbin(*sides.t().numpy(), gridsize=40, xscale="log", yscale="log", mincnt=1, bins="log")
    axes.set(xlabel="width (px)", ylabel="height (px)")
    if len(anchor_sides):
        axes.plot(*anchor_sides.t().numpy(), "x", color="tab:red", label="anchors")
        axes.legend()


def _draw_ratios(axes: Axes, sides: Tensor, anchor_sides: Tensor) -> None:
    """Histogram of height / width, with lines at the anchors'."""
    axes.hist((sides[:, 1] / sides[:, 0]).log2().numpy(), bins=50)
    for ratio in (anchor_sides[:, 1] / anchor_sides[:, 0]).log2().round(decimals=3).unique():
        axes.axvline(ratio.item(), color="tab:red", linestyle="--")
    dashed = "; dashed: anchors" if len(anchor_sides) else ""
    axes.set(xlabel=f"aspect ratio, log2(height / width){dashed}", ylabel="objects")


def _draw_ious(axes: Axes, ious: dict[str, Tensor]) -> None:
    """Share of the objects whose best anchor is below an IoU, of each set of anchors."""
    if not ious:
        axes.axis("off")
        return
    for name, values in ious.items():
        shares = torch.linspace(0, 100, len(values))
        axes.plot(values.sort().values.numpy(), shares.numpy(), label=f"anchors: {name}")
    for threshold in THRESHOLDS:
        axes.axvline(threshold, color="tab:gray", linestyle=":")
    axes.set(xlabel="IoU of the best anchor", ylabel="objects below it (%)", xlim=(0, 1))
    axes.legend()
