"""
The contract of the assignment once more: plain Python loops in float64, as slow as it is obvious.

Written from the text of the contract alone; shares nothing with the package.
"""

import math

import numpy as np

QUALITY_OF_TASKS = {
    "static": ("prior", "prior"),
    "localize_to_classify": ("regressed", "prior"),
    "classify_to_localize": ("prior", "amplified"),
    "mutual_guidance": ("regressed", "amplified"),
}


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def amplified(prior, logit, sigma):
    p = 1 / (1 + math.exp(-logit))
    return prior ** ((sigma - p) / sigma) if prior > 0 else 0.0


def guarantee_and_own(quality, guarantee):
    """Steps 1 and 2 on quality[m][r]; returns a new matrix."""
    num_gts = len(quality)
    num_cands = len(quality[0]) if num_gts else 0
    winners = {}  # candidate -> ground truth
    if guarantee:
        for m in range(num_gts):
            best = max(range(num_cands), key=lambda r: (quality[m][r], -r), default=None)
            if best is None or quality[m][best] <= 0:
                continue
            rival = winners.get(best)
            if rival is None or quality[m][best] > quality[rival][best]:
                winners[best] = m
    result = [[0.0] * num_cands for _ in range(num_gts)]
    for r in range(num_cands):
        if r in winners:
            result[winners[r]][r] = 1.0
            continue
        owner = max(range(num_gts), key=lambda m: (quality[m][r], -m), default=None)
        if owner is not None:
            result[owner][r] = quality[owner][r]
    return result


def ranking(row):
    """Candidates with a quality above 0, best first; the lower index on a tie."""
    return sorted((r for r in range(len(row)) if row[r] > 0), key=lambda r: (-row[r], r))


def dynamic_k(row):
    """The 15 highest qualities summed, rounded down, at least 1; 2**-16 is for float32's errors."""
    return max(1, math.floor(sum(sorted(row)[-15:]) + 2**-16))


def label_image(
    cls_quality, loc_quality, numbers, least, gt_classes, num_cands, num_classes, dynamic
):
    """Steps 4 to 6: four lists for one image; ``least`` is the smallest N_p of each task."""
    cls_labels, cls_gts = [num_classes] * num_cands, [-1] * num_cands
    loc_mask, loc_gts = [False] * num_cands, [-1] * num_cands
    for m, (num_pos, num_ignored) in enumerate(numbers):
        num_cls = dynamic_k(cls_quality[m]) if dynamic else max(num_pos, least[0])
        num_loc = dynamic_k(loc_quality[m]) if dynamic else max(num_pos, least[1])
        ranked = ranking(cls_quality[m])
        for r in ranked[:num_cls]:
            cls_labels[r], cls_gts[r] = gt_classes[m], m
        for r in ranked[num_cls : num_cls + num_ignored]:
            cls_labels[r] = -1
        for r in ranking(loc_quality[m])[:num_loc]:
            loc_mask[r], loc_gts[r] = True, m
    return cls_labels, cls_gts, loc_mask, loc_gts


def match_anchors(
    strategy, sigma, thresholds, dynamic, anchors,
    gt_boxes, gt_classes, pred_boxes, pred_logits, num_classes,
):  # fmt: skip
    """Labels of one image: lists in, four lists out."""
    gts = range(len(gt_boxes))
    cands = range(len(anchors))
    prior = [[iou(gt_boxes[m], anchors[r]) for r in cands] for m in gts]
    qualities = {"prior": prior}
    if pred_boxes is not None:
        qualities["regressed"] = [[iou(gt_boxes[m], pred_boxes[r]) for r in cands] for m in gts]
    if pred_logits is not None:
        qualities["amplified"] = [
            [amplified(prior[m][r], pred_logits[r][gt_classes[m]], sigma) for r in cands]
            for m in gts
        ]
    for_cls, for_loc = QUALITY_OF_TASKS[strategy]
    settled = guarantee_and_own(prior, True)
    numbers = []
    for row in settled:
        num_pos = sum(q >= thresholds[1] for q in row)
        numbers.append((num_pos, sum(q >= thresholds[0] for q in row) - num_pos))
    return label_image(
        guarantee_and_own(qualities[for_cls], True),
        guarantee_and_own(qualities[for_loc], True),
        numbers,
        [int(quality != "prior") for quality in (for_cls, for_loc)],
        gt_classes,
        len(anchors),
        num_classes,
        dynamic,
    )


def fcos_rule(points, strides, levels, gt_boxes, radius):
    """Detectron2's FCOS rule: the ground truth of each point, or -1; and the scale-range test."""
    owners = [-1] * len(points)
    fits = [[False] * len(points) for _ in gt_boxes]
    for r, (x, y) in enumerate(points):
        low = 0 if levels[r] == min(levels) else 4 * strides[r]
        high = math.inf if levels[r] == max(levels) else 8 * strides[r]
        best = 0.0
        for m, (x0, y0, x1, y1) in enumerate(gt_boxes):
            sides = (x - x0, y - y0, x1 - x, y1 - y)
            fits[m][r] = min(sides) > 0 and low < max(sides) < high
            off_centre = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
            # Detectron2 prefers small boxes by this float32, so that areas within 8 px^2 may tie.
            smallness = np.float32(1e8 - (x1 - x0) * (y1 - y0))
            if fits[m][r] and off_centre < radius * strides[r] and smallness > best:
                owners[r], best = m, smallness
    return owners, fits


def centerness(point, box):
    left, top, right, bottom = (
        point[0] - box[0],
        point[1] - box[1],
        box[2] - point[0],
        box[3] - point[1],
    )
    near = min(left, right) * min(top, bottom)
    return math.sqrt(near / (max(left, right) * max(top, bottom)))


def match_points(
    strategy, sigma, radius, dynamic, points, strides, levels,
    gt_boxes, gt_classes, pred_boxes, pred_logits, num_classes,
):  # fmt: skip
    """Labels of one image: lists in, four lists out."""
    gts = range(len(gt_boxes))
    cands = range(len(points))
    owners, fits = fcos_rule(points, strides, levels, gt_boxes, radius)
    numbers = [(owners.count(m), 0) for m in gts]
    prior = [
        [centerness(points[r], gt_boxes[m]) if fits[m][r] else 0.0 for r in cands] for m in gts
    ]
    qualities = {"prior": prior}
    if pred_boxes is not None:
        qualities["regressed"] = [[iou(gt_boxes[m], pred_boxes[r]) for r in cands] for m in gts]
    if pred_logits is not None:
        qualities["amplified"] = [
            [amplified(prior[m][r], pred_logits[r][gt_classes[m]], sigma) for r in cands]
            for m in gts
        ]
    for_cls, for_loc = QUALITY_OF_TASKS[strategy]
    settled = {name: guarantee_and_own(quality, False) for name, quality in qualities.items()}
    if not dynamic:  # what is not guided has the labels of Detectron2's rule
        settled["prior"] = [[float(owners[r] == m) for r in cands] for m in gts]
    return label_image(
        settled[for_cls],
        settled[for_loc],
        numbers,
        (0, 0),
        gt_classes,
        len(points),
        num_classes,
        dynamic,
    )
