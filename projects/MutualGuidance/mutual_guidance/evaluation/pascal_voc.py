"""
Average precision on data sets in VOC layout.

Shape symbols: D detections of a class, M ground truths of an image, T IoU thresholds.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.pascal_voc_evaluation import voc_ap
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from torchvision.ops import box_iou

from ..interrupt import left_on_signal
from ..run_files import CLASS_AP
from .detections import NOTHING, Detections, detections_of
from .ground_truth import GroundTruths, ground_truths, load_records

logger = logging.getLogger(__name__)

IOU_THRESHOLDS = np.arange(50, 100, 5) / 100


class PascalVOCEvaluator(DatasetEvaluator):
    """
    AP over IoU 0.50:0.05:0.95, AP50, AP75 and AP of each class, with Detectron2's ``voc_ap``.

    Detectron2's own evaluator serves VOC2007 and VOC2012 only and keeps the classes to itself;
    this one evaluates any VOC layout, with the 11-point metric for VOC2007 and the area under the
    curve otherwise. Objects marked difficult are neither counted nor held against a detection.
    """

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: with ``dirname``, ``split`` and ``thing_classes`` in its metadata.
        """
        self._records = load_records(dataset_name)  # which may set the metadata
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._classes = metadata.thing_classes
        self._is_2007 = metadata.get("year") == 2007

    def reset(self) -> None:
        self._predictions: dict[str, Detections] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for x, output in zip(inputs, outputs, strict=True):
            self._predictions[x["image_id"]] = detections_of(output["instances"])

    def evaluate(self) -> dict | None:
        """
        Returns:
            {"bbox": {"AP", "AP50", "AP75", "AP-<class>"...}}, in percent; NaN for a class without
            ground truth, which the means leave out. None on all processes but the first, and when a
            signal ends it.
        """
        gathered = comm.gather(self._predictions, dst=0)
        if not comm.is_main_process():
            return None
        return self._measure(dict(itertools.chain.from_iterable(p.items() for p in gathered)))

    @left_on_signal
    def _measure(self, predictions: dict) -> dict:
        aps = np.array([self._ap_of(found) for found in self._found(predictions)])
        means = np.nanmean(aps, axis=0) if np.isfinite(aps).any() else aps[0]
        at = {f"AP{t:.0f}": means[list(IOU_THRESHOLDS * 100).index(t)] for t in (50, 75)}
        results = {"AP": means.mean(), **at}
        logger.info(
            f"Evaluation of {self._dataset_name}, "
            f"{'11-point' if self._is_2007 else 'area'} metric:\n{create_small_table(results)}"
        )
        results.update(
            {f"{CLASS_AP}{n}": ap for n, ap in zip(self._classes, aps.mean(axis=1), strict=True)}
        )
        return {"bbox": {k: float(v) for k, v in results.items()}}

    def _found(self, predictions: dict[str, Detections]) -> list["_Found"]:
        """Of each class, going to an image only with those that are in it."""
        found = [_Found() for _ in self._classes]
        for record in self._records:
            detections = predictions.get(record.image_id, NOTHING)
            for label, best_first, matched, num_gts in matched_by_class(
                ground_truths(record), detections
            ):
                found[label].matches.append(matched)
                found[label].scores.append(detections.scores[best_first])
                found[label].num_gts += num_gts
        return found

    def _ap_of(self, found: "_Found") -> np.ndarray:
        """AP in percent at each threshold (T,)."""
        if found.num_gts == 0:
            return np.full(len(IOU_THRESHOLDS), np.nan)
        order = np.argsort(-np.concatenate(found.scores), kind="stable")
        matched = np.concatenate(found.matches)[order]
        return np.array([self._ap(m, found.num_gts) for m in matched.T])

    def _ap(self, matched: np.ndarray, num_gts: int) -> float:
        true, false = np.cumsum(matched == 1), np.cumsum(matched == 0)
        precision = true / np.maximum(true + false, np.finfo(np.float64).eps)
        return 100 * voc_ap(true / num_gts, precision, self._is_2007)


@dataclass
class _Found:
    """Of one class: matches (D, T) and scores (D,) of each image, and the objects that count."""

    matches: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    num_gts: int = 0


def matched_by_class(
    gts: GroundTruths, found: Detections
) -> Iterator[tuple[int, np.ndarray, np.ndarray, int]]:
    """
    Of each class that is in an image: itself, the indices (D,) of its detections, the best scored
    first, how they match (D, T), as of :func:`match_detections`, and its number of ground truths
    that count.
    """
    order = np.argsort(-found.scores, kind="stable")
    for label in {*gts.classes.tolist(), *found.classes.tolist()}:
        best_first = order[found.classes[order] == label]
        of_class = gts.classes == label
        boxes = found.boxes[best_first], gts.boxes[of_class]
        # In float64, where an IoU of exactly the threshold is not above it.
        ious = box_iou(*map(torch.from_numpy, boxes)).numpy()
        counted = gts.counted[of_class]
        yield label, best_first, match_detections(ious, ~counted), int(counted.sum())


def match_detections(ious: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """
    VOC's matching in one image: a detection is true if the ground truth that it overlaps most is
    above the threshold and not taken by a better scored one.

    Args:
        ious: (D, M), the best scored detection first. difficult: (M,) bool.

    Returns:
        (D, T) int: 1 true, 0 false, -1 not counted (the ground truth is difficult).
    """
    num_detections, num_gts = ious.shape
    matched = np.zeros((num_detections, len(IOU_THRESHOLDS)), dtype=int)
    if num_gts == 0:
        return matched
    best = ious.argmax(axis=1)
    above = ious.max(axis=1)[:, None] > IOU_THRESHOLDS  # (D, T)
    for m in range(num_gts):
        claims = above & (best == m)[:, None]
        if difficult[m]:
            matched[claims] = -1
        else:
            matched[claims & (claims.cumsum(axis=0) == 1)] = 1
    return matched
