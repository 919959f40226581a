"""
COCO's evaluation with pycocotools' own figures, in images of thousands of objects as well.

Shape symbols: T IoU thresholds, D detections and M ground truths of a class in an image.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..alive import sign_of_life

_ALMOST_1 = 1 - 1e-10  # the most that pycocotools asks for
# Pairs of a detection and a ground truth that pycocotools goes through itself, in no time.
_FEW_PAIRS = 10_000


class SparseCOCOeval(COCOeval):
    """
    Matches as pycocotools does, bit for bit, but of many pairs looks only at those that overlap
    enough: it goes through all D x M of them T times, for each range of areas, in Python.
    """

    def evaluateImg(self, imgId, catId, aRng, maxDet) -> dict | None:
        """Of an image, a class and a range of areas: what :meth:`accumulate` reads."""
        sign_of_life()
        gts, dets = self._gts[imgId, catId], self._dts[imgId, catId]
        if len(gts) * min(len(dets), maxDet) <= _FEW_PAIRS:
            return super().evaluateImg(imgId, catId, aRng, maxDet)
        dets = sorted(dets, key=lambda det: -det["score"])[:maxDet]
        ignored = [int(gt["ignore"] or _is_outside(gt, aRng)) for gt in gts]
        order = sorted(range(len(gts)), key=ignored.__getitem__)
        ignored = [ignored[m] for m in order]
        outside = [_is_outside(det, aRng) for det in dets]
        dt_ignored = np.array([outside] * len(self.params.iouThrs), dtype=bool)  # (T, D)
        matched = np.full(dt_ignored.shape, -1)
        crowd, ious = [gts[m]["iscrowd"] for m in order], self.ious[imgId, catId][:, order]
        match(ious, ignored, crowd, self.params.iouThrs.tolist(), matched)
        # Without a match as its area is, else as its ground truth.
        dt_ignored = np.where(matched < 0, dt_ignored, np.array(ignored)[matched] == 1)
        return {
            "dtScores": [det["score"] for det in dets],
            "dtMatches": matched >= 0,
            "dtIgnore": dt_ignored,
            "gtIgnore": np.array(ignored, dtype=int),
        }


def _is_outside(annotation: dict, area_range: Sequence[float]) -> bool:
    return annotation["area"] < area_range[0] or annotation["area"] > area_range[1]


def match(
    ious: np.ndarray,
    ignored: Sequence[int],
    crowd: Sequence[int],
    thresholds: Sequence[float],
    matched: np.ndarray,
) -> None:
    """
    Give each detection, the best-scored first, the ground truth that it overlaps most, the last of
    several, of those that are not taken and, if there is one, not ignored. A crowd is never taken.

    Args:
        ious: (D, M), ignored ground truths behind the others. ignored, crowd: (M,), 1 or 0.
        thresholds: (T,), ascending.
        matched: (T, D) of -1, where the ground truth of a detection is written.
    """
    near: dict[int, list[tuple[int, float]]] = {}
    for d, m in np.argwhere(~(ious < min(thresholds[0], _ALMOST_1))).tolist():
        near.setdefault(d, []).append((m, float(ious[d, m])))
    for t, threshold in enumerate(thresholds if near else ()):
        taken = set()
        for d, pairs in near.items():
            best, chosen = min(threshold, _ALMOST_1), -1
            for m, iou in pairs:
                if m in taken or iou < best:
                    continue
                if chosen >= 0 and ignored[m] and not ignored[chosen]:
                    break
                best, chosen = iou, m
            if chosen >= 0:
                matched[t, d] = chosen
                if not crowd[chosen]:
                    taken.add(chosen)
