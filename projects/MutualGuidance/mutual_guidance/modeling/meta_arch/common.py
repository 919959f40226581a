"""
What the losses of the guided detectors share.

Shape symbols: N images, R anchors or points an image, K classes.
"""

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from detectron2.utils import comm
from torch import Tensor
from torch import distributed as dist

from ...assignment import Assignment, GroundTruths
from ..late import put_scalars_later


def box_targets(box2box_transform: Box2BoxTransform, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
    """
    Deltas (N, R, 4) from anchors (R, 4) to boxes (N, R, 4), as of the transform's ``get_deltas``,
    which reads from the device to check the anchors.
    """
    wx, wy, ww, wh = box2box_transform.weights
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(-1)
    gt_width, gt_height = (gt_boxes[..., 2:] - gt_boxes[..., :2]).unbind(-1)
    x, y = anchors[:, 0] + 0.5 * width, anchors[:, 1] + 0.5 * height
    gt_x, gt_y = gt_boxes[..., 0] + 0.5 * gt_width, gt_boxes[..., 1] + 0.5 * gt_height
    deltas = (
        wx * (gt_x - x) / width,
        wy * (gt_y - y) / height,
        ww * torch.log(gt_width / width),
        wh * torch.log(gt_height / height),
    )
    return torch.stack(deltas, dim=-1)


def matched_boxes(anchors: list[Boxes], truth: GroundTruths, assignment: Assignment) -> Tensor:
    """
    The boxes (N, R, 4) towards which localisation is trained; elsewhere the anchor itself, for
    which every loss and every gradient is finite.
    """
    boxes = truth.boxes_at(assignment.loc_gt_inds)
    return torch.where(assignment.loc_mask[..., None], boxes, Boxes.cat(anchors).tensor)


def sum_of(losses: Tensor, mask: Tensor) -> Tensor:
    """
    The sum of those losses (N, R) that the mask selects. To take them out first, the host would
    have to know how many they are, and wait.
    """
    return torch.where(mask, losses, 0.0).sum()


def loss_normalizers(assignment: Assignment, cls_weight: Tensor | None = None) -> Tensor:
    """
    What the losses of this process are divided by for classification and localisation: (2,), the
    number of positives over the whole batch of all processes, at least 1, per process, since
    gradients are averaged over processes.

    Args:
        cls_weight: of this process, a scalar that counts for classification in the place of the
            number of its positives.
    """
    num_images = len(assignment.loc_mask)
    counts = torch.stack((assignment.cls_gt_inds >= 0, assignment.loc_mask)).sum(dim=(1, 2)).float()
    names = ("num_positives/classification", "num_positives/localisation")
    put_scalars_later(dict(zip(names, counts / num_images, strict=True)))
    if cls_weight is not None:
        counts = torch.stack((cls_weight, counts[1]))
    if comm.get_world_size() > 1:
        dist.all_reduce(counts)
    return counts.clamp(min=1) / comm.get_world_size()
