"""
What the losses of the guided detectors share.

Shape symbols: N images, R anchors or points an image, K classes.
"""

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from ...assignment import Assignment


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
