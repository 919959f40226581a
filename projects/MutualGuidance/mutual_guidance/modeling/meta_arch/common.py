"""
What the guided detectors share: from an assignment to targets and normalisers.

Shape symbols: N images, R anchors or points an image, M_i ground truths of image i, K classes.
"""

import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from ...assignment import AnchorMatcher, Assignment, PointMatcher


def current_matcher(
    matcher: AnchorMatcher | PointMatcher, strategy: str | None, static_iters: int
) -> AnchorMatcher | PointMatcher:
    """
    The matcher with the strategy; where that is None, with the static one in the first
    ``static_iters`` iterations of a training, then as it is. Detectron2's event storage counts the
    iterations, in every process and across --resume alike; outside a training there is none.
    """
    if strategy is None and static_iters and has_event_storage():
        strategy = "static" if get_event_storage().iter < static_iters else None
    return matcher.with_strategy(strategy) if strategy else matcher


def decode_boxes(box2box_transform, anchors: Boxes, pred_deltas: Tensor) -> Tensor:
    """Boxes (N, R, 4) that the deltas (N, R, 4) make of the anchors (R, 4)."""
    num_images = pred_deltas.shape[0]
    boxes = box2box_transform.apply_deltas(
        pred_deltas.flatten(0, 1).float(), anchors.tensor.repeat(num_images, 1)
    )
    return boxes.view(num_images, -1, 4)


def gt_tensors(gt_instances: list[Instances]) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes (M_i, 4) and classes (M_i,) of each image."""
    return [x.gt_boxes.tensor for x in gt_instances], [x.gt_classes for x in gt_instances]


def matched_boxes(gt_boxes: list[Tensor], gt_inds: Tensor) -> list[Tensor]:
    """
    The ground-truth box of each anchor.

    Args:
        gt_boxes: N tensors (M_i, 4). gt_inds: (N, R), -1 for none.

    Returns:
        N tensors (R, 4); zeros where there is none.
    """
    return [
        F.pad(boxes, (0, 0, 1, 0))[inds + 1] for boxes, inds in zip(gt_boxes, gt_inds, strict=True)
    ]


def focal_loss(
    pred_logits: Tensor, cls_labels: Tensor, num_classes: int, alpha: float, gamma: float
) -> Tensor:
    """
    Sum of the focal loss over all anchors that are not ignored.

    Args:
        pred_logits: (N, R, K). cls_labels: (N, R) of :class:`Assignment`. num_classes: K.
    """
    valid = cls_labels >= 0
    targets = F.one_hot(cls_labels[valid], num_classes + 1)[:, :-1]  # background has no column
    return sigmoid_focal_loss(
        pred_logits[valid], targets.to(pred_logits.dtype), alpha=alpha, gamma=gamma, reduction="sum"
    )


def loss_normalizers(assignment: Assignment) -> Tensor:
    """
    What the losses of this process are divided by for classification and localisation: (2,), the
    number of positives over the whole batch of all processes, at least 1, per process, since
    gradients are averaged over processes.
    """
    num_images = len(assignment.loc_mask)
    counts = torch.stack((assignment.cls_gt_inds >= 0, assignment.loc_mask)).sum(dim=(1, 2)).float()
    storage = get_event_storage()
    num_cls, num_loc = (counts / num_images).tolist()
    storage.put_scalar("num_positives/classification", num_cls)
    storage.put_scalar("num_positives/localisation", num_loc)
    if comm.get_world_size() > 1:
        dist.all_reduce(counts)
    return counts.clamp(min=1) / comm.get_world_size()
