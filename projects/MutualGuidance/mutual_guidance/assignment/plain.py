"""
The method in loops: read this first.

One image at a time and one ground truth after the other, as matchers are usually written, with the
steps that :class:`AnchorMatcher` lists. The tests hold the fast version to it, and the benchmark
measures by how much that is faster; it shares nothing with the rest of the package.

Shape symbols: N images, R anchors, M ground truths of an image, K classes. Boxes are XYXY
in pixels.
"""

import torch
from torch import Tensor

# A strategy is what ranks the anchors for (classification, localisation).
STRATEGIES = {
    "static": ("prior", "prior"),
    "localize_to_classify": ("regressed", "prior"),
    "classify_to_localize": ("prior", "amplified"),
    "mutual_guidance": ("regressed", "amplified"),
}


def match_anchors(
    strategy: str,
    sigma: float,
    iou_thresholds: tuple[float, float],
    anchors: Tensor,
    gt_boxes: list[Tensor],
    gt_classes: list[Tensor],
    pred_boxes: Tensor | None,
    pred_logits: Tensor | None,
    num_classes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Label the anchors (R, 4) of N images; the arguments are those of :class:`AnchorMatcher`.

    Returns:
        cls_labels (N, R) int64, cls_gt_inds (N, R) int64, loc_mask (N, R) bool and
        loc_gt_inds (N, R) int64.
    """
    labels_per_image = []
    for i in range(len(gt_boxes)):
        boxes, classes = gt_boxes[i].float(), gt_classes[i]
        qualities = {"prior": pairwise_iou(boxes, anchors.float())}
        if pred_boxes is not None:
            qualities["regressed"] = pairwise_iou(boxes, pred_boxes[i].float())
        if pred_logits is not None:
            scores = pred_logits[i][:, classes].float().sigmoid().t().nan_to_num(0.0)  # (M, R)
            qualities["amplified"] = qualities["prior"] ** ((sigma - scores) / sigma)  # Eq. (1)
        labels_per_image.append(
            label_image(qualities, STRATEGIES[strategy], iou_thresholds, classes, num_classes)
        )
    return tuple(torch.stack(labels) for labels in zip(*labels_per_image, strict=True))


def pairwise_iou(gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """IoU of every ground truth (M, 4) with every box (R, 4): (M, R); 0 of one that is NaN."""
    top_left = torch.max(gt_boxes[:, None, :2], boxes[:, :2])  # (M, R, 2)
    bottom_right = torch.min(gt_boxes[:, None, 2:], boxes[:, 2:])
    inter = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    gt_areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return (inter / (gt_areas[:, None] + areas - inter)).nan_to_num(0.0)


def label_image(
    qualities: dict[str, Tensor],
    of_tasks: tuple[str, str],
    iou_thresholds: tuple[float, float],
    gt_classes: Tensor,
    num_classes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels (R,) of one image from its qualities (M, R) and the names of those of its tasks."""
    prior = settle(qualities["prior"])
    cls_quality, loc_quality = (settle(qualities[name]) for name in of_tasks)
    num_anchors = prior.shape[1]
    cls_labels = gt_classes.new_full((num_anchors,), num_classes, dtype=torch.int64)
    cls_gt_inds = torch.full_like(cls_labels, -1)
    loc_gt_inds = torch.full_like(cls_labels, -1)
    low, high = iou_thresholds
    for m in range(len(prior)):
        # Step 3: how many. A task that is guided has at least one positive.
        num_pos = int((prior[m] >= high).sum())
        num_ignored = int((prior[m] >= low).sum()) - num_pos
        num_cls, num_loc = (max(num_pos, int(name != "prior")) for name in of_tasks)
        # Steps 4 to 6: which.
        ranked = best_anchors(cls_quality[m], num_cls + num_ignored)
        cls_labels[ranked] = -1
        cls_labels[ranked[:num_cls]] = gt_classes[m]
        cls_gt_inds[ranked[:num_cls]] = m
        loc_gt_inds[best_anchors(loc_quality[m], num_loc)] = m
    return cls_labels, cls_gt_inds, loc_gt_inds >= 0, loc_gt_inds


def settle(quality: Tensor) -> Tensor:
    """Steps 1 and 2, guarantee and ownership: a new matrix (M, R), one ground truth an anchor."""
    settled = torch.zeros_like(quality)
    if len(quality) == 0:
        return settled
    owned_quality, owners = quality.max(dim=0)
    settled.scatter_(0, owners[None], owned_quality[None])

    claim_quality, claimed = (claims.tolist() for claims in quality.max(dim=1))
    winners = {}  # anchor -> ground truth
    for m in range(len(quality)):
        if claim_quality[m] > 0:
            rival = winners.get(claimed[m])
            if rival is None or claim_quality[m] > claim_quality[rival]:
                winners[claimed[m]] = m
    settled[:, list(winners)] = 0.0
    settled[list(winners.values()), list(winners)] = 1.0
    return settled


def best_anchors(quality: Tensor, count: int) -> Tensor:
    """
    Up to ``count`` anchors of the highest qualities above 0, best first.

    The lower index wins a tie, which ``topk`` alone does not promise.
    """
    anchors = quality.nonzero().squeeze(1)
    order = quality[anchors].argsort(descending=True, stable=True)
    return anchors[order[:count]]
