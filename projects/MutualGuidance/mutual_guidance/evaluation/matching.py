"""
Which detections are right, at one threshold of the IoU, and what follows for a data set: precision
and recall, the confusion of classes, the quality of an image.

Shape symbols: D detections and M ground truths of an image, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask
from torchvision.ops import box_iou

from .detections import Detections
from .ground_truth import GroundTruths

# Of a true positive and its ground truth, as in AP50.
MIN_IOU = 0.5
FALSE, NOT_COUNTED = -1, -2


class Matched(NamedTuple):
    """Detections of one model on an image, the best-scored first."""

    boxes: np.ndarray  # (D, 4), XYXY in pixels
    scores: np.ndarray  # (D,)
    classes: np.ndarray  # (D,)
    gt_inds: np.ndarray  # (D,) the ground truth of a true positive, else FALSE or NOT_COUNTED
    ious: np.ndarray  # (D,) with that ground truth, else the highest with one of its class

    @property
    def num_false(self) -> int:
        """Number of false positives."""
        return int((self.gt_inds == FALSE).sum())

    @property
    def num_true(self) -> int:
        """Number of true positives."""
        return int((self.gt_inds >= 0).sum())

    def gt_ious(self, num_gts: int) -> np.ndarray:
        """(M,): IoU with which each ground truth is found, 0 where it is missed."""
        found = np.zeros(num_gts)
        true = self.gt_inds >= 0
        found[self.gt_inds[true]] = self.ious[true]
        return found

    def above(self, score: float) -> "Matched":
        """Those of at least that score, whose matches do not depend on the others."""
        return Matched(*(x[self.scores >= score] for x in self))


def match(detections: Detections, gts: GroundTruths) -> Matched:
    """
    Match as COCO does at one threshold: the best-scored detection first, each with the free ground
    truth of its class that it overlaps most, from ``MIN_IOU`` on. One that fits only an object
    marked difficult, or of which so much lies in a crowd, is not counted.
    """
    order = np.argsort(-detections.scores, kind="stable")
    boxes, scores, classes = (x[order] for x in detections)
    ious = np.where(classes[:, None] == gts.classes, _ious(boxes, gts.boxes), 0.0)  # (D, M)
    left_out = _coco_ious(boxes, gts.boxes, gts.crowd) >= MIN_IOU
    left_out &= (classes[:, None] == gts.classes) & ~gts.counted
    gt_inds = np.full(len(boxes), FALSE)
    best = ious.max(axis=1, initial=0)
    free = gts.counted.copy()
    for d, row in enumerate(ious if len(free) else ()):
        m = np.where(free, row, 0).argmax()
        if free[m] and row[m] >= MIN_IOU:
            gt_inds[d], best[d], free[m] = m, row[m], False
        elif left_out[d].any():
            gt_inds[d] = NOT_COUNTED
    return Matched(boxes, scores, classes, gt_inds, best)


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(D, M) float64."""
    return box_iou(*(torch.from_numpy(np.asarray(x, np.float64)) for x in (boxes, others))).numpy()


def _coco_ious(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(D, M) float64: of a crowd, the share of the box's area that lies in it."""
    if not (len(boxes) and len(others)):
        return np.zeros((len(boxes), len(others)))
    found, truth = (np.hstack((x[:, :2], x[:, 2:] - x[:, :2])) for x in (boxes, others))
    return mask.iou(found, truth, crowd.astype(np.uint8))


class Curve(NamedTuple):
    """Over the detections that count, the best-scored first; of equal scores the last stands."""

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    def best_f1(self) -> tuple[float, float]:
        """The score from which on precision and recall balance best, and their harmonic mean."""
        if not len(self.scores):
            return 0.0, 0.0
        both = np.maximum(self.precision + self.recall, np.finfo(float).eps)
        f1 = 2 * self.precision * self.recall / both
        return float(self.scores[f1.argmax()]), float(f1.max())


def precision_recall(
    matches: Sequence[Matched], gts: Sequence[GroundTruths], class_id: int | None = None
) -> Curve:
    """Of the images of a data set, for one class or for all together."""
    wanted = [
        (m.gt_inds != NOT_COUNTED) & ((m.classes == class_id) | (class_id is None)) for m in matches
    ]
    scores = np.concatenate([m.scores[w] for m, w in zip(matches, wanted, strict=True)] or [[]])
    true = np.concatenate([m.gt_inds[w] >= 0 for m, w in zip(matches, wanted, strict=True)] or [[]])
    counted = [g.counted & ((g.classes == class_id) | (class_id is None)) for g in gts]
    num_gts = sum(int(c.sum()) for c in counted)
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(true[order])
    last = np.append(np.diff(scores) != 0, True)[: len(scores)]  # where a threshold can cut
    precision = found / np.arange(1, len(scores) + 1)
    return Curve(scores[last], precision[last], found[last] / max(num_gts, 1))


def confusion(
    matches: Sequence[Matched], gts: Sequence[GroundTruths], num_classes: int
) -> np.ndarray:
    """
    (K + 1, K + 1) int: ground truths of a row's class that were found as a column's. The last row
    is background, the last column what was missed. A false positive is taken for the free ground
    truth of another class that it overlaps most, from ``MIN_IOU`` on, and else for background.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), int)
    for matched, image_gts in zip(matches, gts, strict=True):
        true = matched.gt_inds >= 0
        free = image_gts.counted.copy()
        free[matched.gt_inds[true]] = False
        np.add.at(counts, (matched.classes[true], matched.classes[true]), 1)
        ious = _ious(matched.boxes, image_gts.boxes)
        for d in (matched.gt_inds == FALSE).nonzero()[0]:
            row = np.where(free, ious[d], 0)
            truth = num_classes
            if len(row) and row.max() >= MIN_IOU:
                truth, free[row.argmax()] = image_gts.classes[row.argmax()], False
            counts[truth, matched.classes[d]] += 1
        np.add.at(counts, (image_gts.classes[free], num_classes), 1)
    return counts


def quality(matched: Matched, gts: GroundTruths) -> float:
    """
    The panoptic quality of an image, in [0, 1]: the IoUs of the true positives, summed, over their
    number and half of the false positives and the missed objects. NaN where there is nothing.
    """
    missed = int(gts.counted.sum()) - matched.num_true
    total = matched.num_true + (matched.num_false + missed) / 2
    return float(matched.ious[matched.gt_inds >= 0].sum() / total) if total else float("nan")


def disagreement(models: Sequence[Matched], gts: GroundTruths) -> float:
    """
    How far models differ on an image: for each ground truth the difference of the highest and the
    lowest IoU with which a model finds it (0 if missed), summed, plus half the difference of the
    highest and the lowest number of false positives.
    """
    ious = np.stack([model.gt_ious(len(gts.boxes)) for model in models])
    return float(np.ptp(ious, axis=0).sum() + np.ptp([m.num_false for m in models]) / 2)
