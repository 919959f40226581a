"""
The rules of other papers as plain Python loops in float64, for one image.

Written from the papers; shares nothing with the package but the distances that are compared in
float32 there, so that the same ones tie.
"""

import math

import numpy as np

from .reference import iou


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def is_inside(point, box):
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def atss(gt_boxes, centres, shapes, level_sizes):
    """Zhang et al., Algorithm 1: ground truth -> candidates."""
    taken = []
    for gt in gt_boxes:
        gx, gy = centre(gt)
        chosen, first = [], 0
        for size in level_sizes:
            level = range(first, first + size)
            distance = {r: np.float32((centres[r][0] - gx) ** 2 + (centres[r][1] - gy) ** 2)
                        for r in level}  # fmt: skip
            chosen += sorted(level, key=lambda r: (distance[r], r))[:9]
            first += size
        ious = [iou(gt, shapes[r]) for r in chosen]
        mean = sum(ious) / len(ious)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in ious) / max(len(ious) - 1, 1))
        least = mean + deviation - 1e-9
        good = (r for r, x in zip(chosen, ious, strict=True) if x > 0 and x >= least)
        taken.append([r for r in good if is_inside(centres[r], gt)])
    return taken, lambda m, r: iou(gt_boxes[m], shapes[r])


def task_aligned(gt_boxes, gt_classes, centres, pred_boxes, pred_logits):
    """Feng et al., Eq. (1), with alpha = 1 and beta = 6: the 13 best inside the object."""
    taken = []
    for gt, gt_class in zip(gt_boxes, gt_classes, strict=True):
        metric = {}
        for r, point in enumerate(centres):
            if is_inside(point, gt):
                score = 1 / (1 + math.exp(-pred_logits[r][gt_class]))
                metric[r] = np.float32(score * iou(gt, pred_boxes[r]) ** 6)
        ranked = sorted((r for r in metric if metric[r] > 0), key=lambda r: (-metric[r], r))
        taken.append(ranked[:13])
    return taken, lambda m, r: iou(gt_boxes[m], pred_boxes[r])


def simota(gt_boxes, gt_classes, centres, pred_boxes, pred_logits, strides):
    """Ge et al., Sec. 2.1: the dynamic k of least cost; strides are None for anchors."""
    taken, costs = [], []
    for gt, gt_class in zip(gt_boxes, gt_classes, strict=True):
        cost, ious = {}, {}
        for r, point in enumerate(centres):
            if not is_inside(point, gt):
                continue
            ious[r] = iou(gt, pred_boxes[r])
            p = [1 / (1 + math.exp(-z)) for z in pred_logits[r]]
            entropy = -sum(math.log(q if k == gt_class else 1 - q) for k, q in enumerate(p))
            cost[r] = entropy - 3 * math.log(ious[r] + 1e-8)
            gx, gy = centre(gt)
            offset = max(abs(point[0] - gx), abs(point[1] - gy))
            if strides is not None and not offset < 2.5 * strides[r]:
                cost[r] += 1e5
        k = max(1, math.floor(sum(sorted(ious.values())[-10:]) + 2**-16))
        taken.append(sorted(cost, key=lambda r: (cost[r], r))[:k])
        costs.append(cost)
    return taken, lambda m, r: -costs[m][r]


def resolve(taken, quality, num_candidates):
    """The ground truth of every candidate, or -1: of several that took it the highest quality."""
    owners = [-1] * num_candidates
    for m, candidates in enumerate(taken):
        for r in candidates:
            if owners[r] < 0 or quality(m, r) > quality(owners[r], r):
                owners[r] = m
    return owners
