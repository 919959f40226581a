"""
How well anchors fit the objects of a data set, at the size that the detector sees.

Shape symbols: N images, M objects of a data set, A anchors at a cell.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor

from ..assignment import matched_pairwise_iou
from .records import Record

THRESHOLDS = (0.5, 0.4, 0.2)
# The suggested anchors reach from the lower to the upper one of the objects' scales.
COVERED = (0.05, 0.95)
FIRST_STRIDE = 8  # pixels, of the level p3
MIN_LEVELS, MAX_LEVELS = 3, 5  # p3 to p5, p3 to p7
_MIN_SIDE = 1e-3  # pixels
# Share of the objects by which other anchors must fit better to be worth a word.
_GAIN = 0.01


class Objects(NamedTuple):
    """The objects of data sets, as the detector sees them."""

    boxes: Tensor  # (M, 4) XYXY, pixels of the resized image
    image_sizes: Tensor  # (M, 2) width and height of the resized image
    classes: Tensor  # (M,) int64
    per_image: Tensor  # (N,) int64, objects of each image

    @property
    def sides(self) -> Tensor:
        """Widths and heights (M, 2), above 0, which float32 may leave of none."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=_MIN_SIDE)

    @property
    def scales(self) -> Tensor:
        """Square roots of the areas (M,), as the sizes of anchors."""
        return self.sides.prod(dim=1).sqrt()


def resized_objects(records: Iterable[Record], cfg: CfgNode) -> Objects:
    """All objects but crowd regions, at the size of the detector's input when it is tested."""
    boxes, image_sizes, classes, per_image = [], [], [], []
    for record in records:
        height, width = input_size(cfg, record.height, record.width)
        objects = record.objects[~record.objects["crowd"]]
        scale = np.array([width / record.width, height / record.height] * 2)
        boxes.append(objects["box"] * scale)
        image_sizes.append(np.tile([width, height], (len(objects), 1)))
        classes.append(objects["class"])
        per_image.append(len(objects))
    return Objects(
        torch.from_numpy(np.concatenate(boxes)).float(),
        torch.from_numpy(np.concatenate(image_sizes)).float(),
        torch.from_numpy(np.concatenate(classes)).long(),
        torch.tensor(per_image),
    )


def input_size(cfg: CfgNode, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels to which an image is resized for testing."""
    side = cfg.INPUT.SQUARE_SIZE
    if side:
        return side, side
    if not cfg.INPUT.MIN_SIZE_TEST:  # Detectron2 leaves the image as it is
        return height, width
    return T.ResizeShortestEdge.get_output_shape(
        height, width, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    )


def best_anchor_ious(objects: Objects, generator: DefaultAnchorGenerator) -> Tensor:
    """
    IoU of each object with its best anchor (M,).

    Among anchors of one shape the one with the nearest centre overlaps most, so that only one cell
    of each level has to be looked at.
    """
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    best = torch.zeros(len(centres))
    for stride, shapes in zip(generator.strides, generator.cell_anchors, strict=True):
        last = (objects.image_sizes / stride).ceil() - 1
        cells = (centres / stride - generator.offset).round().clamp(min=0).minimum(last)
        shifts = ((cells + generator.offset) * stride).repeat(1, 2)  # (M, 4)
        anchors = shifts.t()[..., None] + shapes.t()[:, None]  # (4, M, A)
        ious = matched_pairwise_iou(anchors, objects.boxes.t()[..., None])
        best = best.maximum(ious.amax(dim=1))
    return best


def suggest_anchors(objects: Objects, cfg: CfgNode) -> DefaultAnchorGenerator:
    """Anchors of :func:`suggest_sizes`, at strides from 8 pixels on."""
    sizes = suggest_sizes(objects.scales, cfg)
    return DefaultAnchorGenerator(
        sizes=sizes,
        aspect_ratios=suggest_ratios(cfg),
        strides=[FIRST_STRIDE * 2**i for i in range(len(sizes))],
        offset=cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
    )


def suggest_ratios(cfg: CfgNode) -> list:
    """Those of the config, of each level alike; where it has a list a level, the first."""
    ratios = cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS
    return ratios[:1] if isinstance(ratios[0], list | tuple) else ratios


def suggest_sizes(scales: Tensor, cfg: CfgNode) -> list[list[float]]:
    """
    Two sizes a level, half an octave apart as in the paper's detectors: the first is the lower
    quantile of the scales (M,), and there are as many levels as it takes to reach the upper one,
    three or more, as RFBNet has, as far as their strides divide the side of the square.
    """
    low, high = (quantile(scales, q) for q in COVERED)
    base = max(1, round(low))
    num_levels = max(MIN_LEVELS, math.ceil(math.log2(high / base) + 0.5))
    num_levels = min(num_levels, _most_levels(cfg.INPUT.SQUARE_SIZE))
    return [[base * 2.0**i, round(base * 2 ** (i + 0.5), 2)] for i in range(num_levels)]


def _most_levels(side: int) -> int:
    """
    Count the levels whose strides divide the side of a square (0: no square, and all do). With more
    it would be padded, and its detector could not be exported.
    """
    fits = [n for n in range(MIN_LEVELS, MAX_LEVELS + 1) if side % (FIRST_STRIDE << (n - 1)) == 0]
    return max(fits, default=MIN_LEVELS)


def misses(ious: Tensor) -> list[float]:
    """Shares of the objects (M,) whose best anchor is below each of the thresholds."""
    return [(ious < t).float().mean().item() for t in THRESHOLDS]


def fits_better(ious: Tensor, than: Tensor) -> bool:
    """
    Whether anchors fit objects (M,) clearly better than others do: at one of the thresholds by a
    percent of the objects, and worse at none.
    """
    gains = [b - a for a, b in zip(misses(ious), misses(than), strict=True)]
    return max(gains) >= _GAIN and min(gains) >= 0


def quantile(values: Tensor, q: float) -> float:
    """The value that a share q of the others is below. Of any number, unlike torch.quantile."""
    return float(np.quantile(values, q, method="nearest"))
