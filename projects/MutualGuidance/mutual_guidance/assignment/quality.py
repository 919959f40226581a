"""Qualities that rank the candidates of a ground truth: pure, elementwise functions.

Shapes broadcast as in PyTorch. Boxes are XYXY in absolute pixels.
"""

import torch
from torch import Tensor


def matched_pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """
    Intersection over union of corresponding boxes.

    Args:
        boxes, others: (4, ...), the four coordinates first.

    Returns:
        (...) in [0, 1]; 0 where the boxes do not overlap and where a coordinate is NaN.
    """
    # Both coordinates at once, since on a GPU the number of operators counts.
    overlap = torch.minimum(boxes[2:], others[2:]) - torch.maximum(boxes[:2], others[:2])
    width, height = overlap.clamp(min=0)
    intersection = width * height
    (width, height), (other_width, other_height) = boxes[2:] - boxes[:2], others[2:] - others[:2]
    union = width * height + other_width * other_height - intersection
    # The comparison is also what turns NaN into 0.
    return torch.where(intersection > 0, intersection / union, 0.0).clamp(max=1)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """
    Distances (l, t, r, b) in pixels from points to the sides of boxes, negative outside.

    Args:
        points: (2, ...), boxes: (4, ...), coordinates first.

    Returns:
        (4, ...)
    """
    x, y = points
    x0, y0, x1, y1 = boxes
    return torch.stack((x - x0, y - y0, x1 - x, y1 - y))


def centerness(distances: Tensor) -> Tensor:
    """
    Centerness of FCOS, sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)).

    Args:
        distances: (4, ...), from :func:`side_distances`.

    Returns:
        (...) in [0, 1]; 0 for points that are not inside the box.
    """
    left, top, right, bottom = distances
    nearest = torch.minimum(left, right), torch.minimum(top, bottom)
    # One division of exact products, so that points of equal centerness tie.
    near = nearest[0].clamp(min=0) * nearest[1].clamp(min=0)
    far = torch.maximum(left, right) * torch.maximum(top, bottom)
    return torch.where(near > 0, near / far, 0.0).sqrt()


def amplify(prior: Tensor, score: Tensor, sigma: float) -> Tensor:
    """
    Amplified prior, Eq. (1) of the paper: prior ^ ((sigma - score) / sigma).

    Args:
        prior: (...) in [0, 1]: IoU with the anchor, or centerness.
        score: (...) in [0, 1]: predicted probability of the ground truth's class.
        sigma: degree of amplification, above 1; the larger, the weaker.

    Returns:
        (...) in [0, 1], never below ``prior``, and 0 where ``prior`` is 0.
    """
    return prior.pow((sigma - score) / sigma)
