"""
What anchors and points know of a ground truth before any prediction.

Shape symbols: R candidates, M ground truths, m some of them, P pairs. Coordinates come first.
"""

import torch
from torch import Tensor

from .quality import box_iou, centerness, side_distances


class Anchors:
    """Candidates that are boxes (R, 4)."""

    def __init__(self, boxes: Tensor) -> None:
        self.boxes = boxes.float().t().contiguous()  # (4, R)

    def __len__(self) -> int:
        return self.boxes.shape[1]

    def may_match(self, gt_boxes: Tensor) -> Tensor:
        """Ground truths (4, m) x anchors that overlap: (m, R) bool."""
        return overlap(gt_boxes[..., None], self.boxes[:, None])

    def qualities(self, gt_boxes: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """IoU of each pair (P,) of a ground truth (4, P) and an anchor (P,)."""
        return {"prior": box_iou(self.boxes.index_select(1, candidates), gt_boxes)}


class Points:
    """
    Candidates that are points (R, 2), each with a stride (R,) in pixels and a level (R,).

    A point answers for objects whose largest l, t, r, b is within (4, 8) strides; the first level
    for everything smaller, the last for everything larger as well.
    """

    def __init__(self, points: Tensor, strides: Tensor, levels: Tensor, radius: float) -> None:
        self.points = points.float().t().contiguous()  # (2, R)
        self.strides = strides.float()
        self.radius = radius
        self.shortest = torch.where(levels == levels.min(), 0.0, self.strides * 4)
        self.longest = torch.where(levels == levels.max(), torch.inf, self.strides * 8)

    def __len__(self) -> int:
        return self.points.shape[1]

    def may_match(self, gt_boxes: Tensor) -> Tensor:
        """Points inside ground truths (4, m): (m, R) bool."""
        x0, y0, x1, y1 = gt_boxes[..., None]
        x, y = self.points
        return (x > x0) & (x < x1) & (y > y0) & (y < y1)

    def qualities(self, gt_boxes: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """
        Of each pair (P,) of a ground truth (4, P) and a point (P,): the centerness within the
        level's range of scales, and the ``rule`` of Detectron2's FCOS, by which the smallest box
        around a central point has it.
        """
        points = self.points.index_select(1, candidates)
        distances = side_distances(points, gt_boxes)
        longest = distances.amax(dim=0)
        in_range = (longest > self.shortest[candidates]) & (longest < self.longest[candidates])
        in_range &= distances.amin(dim=0) > 0

        offsets = (points - (gt_boxes[:2] + gt_boxes[2:]) / 2).abs().amax(dim=0)
        central = in_range & (offsets < self.radius * self.strides[candidates])
        area = (gt_boxes[2] - gt_boxes[0]) * (gt_boxes[3] - gt_boxes[1])
        return {
            "prior": torch.where(in_range, centerness(distances), 0.0),
            # Detectron2's own expression, so that its rounding decides the same ties.
            "rule": torch.where(central, (1e8 - area).clamp(min=0), 0.0),
        }


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Whether corresponding boxes (4, ...) share an area: (...) bool."""
    x0, y0, x1, y1 = boxes
    u0, v0, u1, v1 = others
    return (x0 < u1) & (u0 < x1) & (y0 < v1) & (v0 < y1)
