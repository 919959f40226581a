"""
Candidates: the anchors or points of an image, and what they know of a ground truth before any
prediction.

Shape symbols: R candidates, M ground truths, m some of them, P pairs of a ground truth and a
candidate. Coordinates come first.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .quality import centerness, matched_pairwise_iou, side_distances

_TINY = torch.finfo(torch.float32).tiny


def _require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {tuple(tensor.shape)}")


def _require_sum(level_sizes: Sequence[int], number: int) -> None:
    if level_sizes and sum(level_sizes) != number:
        raise ValueError(f"level_sizes must be {number} in sum, got {list(level_sizes)}")


class Anchors:
    """Candidates that are boxes (R, 4), level after level."""

    # By the static rule each ground truth has its best anchor, whatever the thresholds say.
    guarantees = True

    def __init__(
        self, boxes: Tensor, iou_thresholds: tuple[float, float], level_sizes: Sequence[int] = ()
    ) -> None:
        """
        Args:
            boxes: (R, 4). iou_thresholds: ignored from the first on, positive from the second on.
            level_sizes: anchors of each level, R in sum; none: all are of one level.

        Raises:
            ValueError: they are of another shape or number, or there is none.
        """
        _require_shape("anchors", boxes, (*boxes.shape[:1], 4))
        if not len(boxes):
            raise ValueError("need at least one anchor")
        _require_sum(level_sizes, len(boxes))
        self.boxes = boxes.float().t().contiguous()  # (4, R)
        self.thresholds = iou_thresholds
        self.level_sizes = list(level_sizes) or [len(boxes)]

    def __len__(self) -> int:
        return self.boxes.shape[1]

    def may_match(self, gt_boxes: Tensor) -> Tensor:
        """Anchors that overlap ground truths (4, m): (m, R) bool."""
        return overlap(gt_boxes[..., None], self.boxes[:, None])

    def relation(self, gt_boxes: Tensor, inds: Tensor) -> Tensor:
        """IoU of each pair (P,) of a ground truth (4, P) and an anchor (P,)."""
        return matched_pairwise_iou(self.boxes.index_select(1, inds), gt_boxes)

    def prior(self, iou: Tensor) -> Tensor:
        """The IoU (P,)."""
        return iou

    def static(self, iou: Tensor) -> Tensor:
        """What the static rule ranks by: the prior."""
        return iou

    def box_iou(self, gt_boxes: Tensor, inds: Tensor) -> Tensor:
        """IoU of each pair (P,), as a rule for anchors sees it."""
        return self.relation(gt_boxes, inds)

    @cached_property
    def centres(self) -> Tensor:
        """(2, R) in pixels."""
        return (self.boxes[:2] + self.boxes[2:]) / 2

    def near_centre(self, gt_boxes: Tensor, inds: Tensor, radius: float) -> Tensor:
        """Whether inside ground truths (4, P): an anchor has no stride to be near by."""
        return inside(self.centres[:, inds], gt_boxes)


class PointRelation(NamedTuple):
    """How points lie in the boxes of P pairs."""

    gt_boxes: Tensor  # (4, P)
    inds: Tensor  # (P,) the points
    distances: Tensor  # l, t, r, b (4, P)
    in_range: Tensor  # (P,) bool: inside the box, and the box of the level's scales


class Points:
    """
    Candidates that are points (R, 2), each with a stride (R,) in pixels and a level (R,).

    A point answers for objects whose largest l, t, r, b is within (4, 8) strides; the first level
    for everything smaller, the last for everything larger as well.
    """

    guarantees = False
    thresholds = (_TINY, _TINY)  # the static rule ignores nothing

    def __init__(
        self,
        points: Tensor,
        strides: Tensor,
        levels: Tensor,
        radius: float,
        level_sizes: Sequence[int] = (),
    ) -> None:
        """
        Args:
            radius: of Detectron2's rule, in strides.
            level_sizes: points of each level, where the host knows them.

        Raises:
            ValueError: they are of other shapes or another number, or there is none.
        """
        _require_shape("points", points, (*points.shape[:1], 2))
        _require_shape("strides", strides, (len(points),))
        _require_shape("levels", levels, (len(points),))
        if not len(points):
            raise ValueError("need at least one point")
        _require_sum(level_sizes, len(points))
        self.points = self.centres = points.float().t().contiguous()  # (2, R)
        self.levels = levels
        self._level_sizes = list(level_sizes)
        self.strides = strides.float()
        self.radius = radius
        self.shortest = (self.strides * 4).masked_fill_(levels == levels.min(), 0)
        self.longest = (self.strides * 8).masked_fill_(levels == levels.max(), torch.inf)

    def __len__(self) -> int:
        return self.points.shape[1]

    def may_match(self, gt_boxes: Tensor) -> Tensor:
        """Points inside ground truths (4, m): (m, R) bool."""
        return inside(self.points[:, None], gt_boxes[..., None])

    def relation(self, gt_boxes: Tensor, inds: Tensor) -> PointRelation:
        """Of each pair (P,) of a ground truth (4, P) and a point (P,)."""
        distances = side_distances(self.points.index_select(1, inds), gt_boxes)
        longest = distances.amax(dim=0)
        in_range = (longest > self.shortest[inds]) & (longest < self.longest[inds])
        return PointRelation(gt_boxes, inds, distances, in_range & (distances.amin(dim=0) > 0))

    def prior(self, relation: PointRelation) -> Tensor:
        """Centerness (P,) of the points inside a box of their level's scales, else 0."""
        return torch.where(relation.in_range, centerness(relation.distances), 0.0)

    def static(self, relation: PointRelation) -> Tensor:
        """What Detectron2's FCOS ranks by: the smallest box around a central point has it."""
        gt_boxes, inds, _, in_range = relation
        central = in_range & self.near_centre(gt_boxes, inds, self.radius)
        width, height = gt_boxes[2:] - gt_boxes[:2]
        # Detectron2's own expression, so that its rounding decides the same ties.
        return (1e8 - width * height).clamp_(min=0).mul_(central)

    def box_iou(self, gt_boxes: Tensor, inds: Tensor) -> Tensor:
        """IoU of each pair (P,) with the square of eight strides around the point."""
        half = 4 * self.strides[inds]
        centres = self.points.index_select(1, inds)
        return matched_pairwise_iou(torch.cat((centres - half, centres + half)), gt_boxes)

    @cached_property
    def level_sizes(self) -> list[int]:
        """Points of each level; the host waits for what it was not told."""
        return self._level_sizes or self.levels.unique_consecutive(return_counts=True)[1].tolist()

    def near_centre(self, gt_boxes: Tensor, inds: Tensor, radius: float) -> Tensor:
        """Whether within so many strides of the centres of ground truths (4, P), in x and y."""
        offsets = (self.points[:, inds] - (gt_boxes[:2] + gt_boxes[2:]) / 2).abs().amax(dim=0)
        return offsets < radius * self.strides[inds]


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether corresponding points (2, ...) are inside boxes (4, ...): (...) bool."""
    x, y = points
    x0, y0, x1, y1 = boxes
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Whether corresponding boxes (4, ...) share an area: (...) bool."""
    x0, y0, x1, y1 = boxes
    u0, v0, u1, v1 = others
    return (x0 < u1) & (u0 < x1) & (y0 < v1) & (v0 < y1)
