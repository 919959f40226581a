"""
What trained detectors found, matched with the ground truth: all that average precision needs.

Shape symbols: N images, D detections of a class, T IoU thresholds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..evaluation.detections import Detections
from ..evaluation.ground_truth import GroundTruths
from ..evaluation.pascal_voc import IOU_THRESHOLDS, matched_by_class
from ..run_files import replace_file

# Of a class, so many detections for each of its ground truths, or for each image if these are more,
# are kept, the best scored ones. Precision is at most 1/20 after them, where AP has next to nothing
# to gain, also among those of other folds.
MOST_FOR_EACH = 20
_MOST = np.iinfo(np.uint16).max
_BITS = 1 << np.arange(len(IOU_THRESHOLDS))


class Matches(NamedTuple):
    """Of a class, the best scored detection first."""

    images: np.ndarray  # (D,) int: index of the image
    scores: np.ndarray  # (D,) uint16: 65535 is 1
    matched: np.ndarray  # (D, T) int: 1 true, 0 false, -1 not counted
    num_gts: np.ndarray  # (N,) int: counted ground truths


def match(
    truths: Sequence[GroundTruths], found: Sequence[Detections], num_classes: int
) -> list[Matches]:
    """By class, as the project's VOC evaluation matches; ``truths``, ``found`` are of N images."""
    none = np.zeros(0, int), np.zeros(0, np.uint16), np.zeros((0, len(IOU_THRESHOLDS)), int)
    columns = [[[part] for part in none] for _ in range(num_classes)]
    num_gts = np.zeros((num_classes, len(truths)), np.int64)
    for image, (gts, detections) in enumerate(zip(truths, found, strict=True)):
        for label, best_first, matched, number in matched_by_class(gts, detections):
            images, scores, matches = columns[label]
            images.append(np.full(len(best_first), image))
            scores.append(np.round(detections.scores[best_first] * _MOST).astype(np.uint16))
            matches.append(matched)
            num_gts[label, image] = number
    of_classes = zip(columns, num_gts, strict=True)
    return [_best(*map(np.concatenate, of_class), number) for of_class, number in of_classes]


def _best(
    images: np.ndarray, scores: np.ndarray, matched: np.ndarray, num_gts: np.ndarray
) -> Matches:
    most = MOST_FOR_EACH * max(len(num_gts), num_gts.sum())
    order = np.argsort(-scores.astype(int), kind="stable")[:most]
    return Matches(images[order], scores[order], matched[order], num_gts)


def pool(folds: Sequence[Sequence[Matches]]) -> list[Matches]:
    """By class, the matches of several detectors, each on images of its own, as of one."""
    return [_pool_class(of_class) for of_class in zip(*folds, strict=True)]


def _pool_class(folds: Sequence[Matches]) -> Matches:
    first = np.cumsum([0, *(len(m.num_gts) for m in folds[:-1])])
    images = [m.images + start for m, start in zip(folds, first, strict=True)]
    _, scores, matched, num_gts = map(np.concatenate, zip(*folds, strict=True))
    return _best(np.concatenate(images), scores, matched, num_gts)


def write_matches(path: Path, classes: Sequence[str], matches: Sequence[Matches]) -> None:
    """Two or three bytes a detection: scores as steps downwards, thresholds as bits."""
    _, scores, matched, _ = zip(*matches, strict=True)
    arrays = {
        "classes": np.array(classes),
        "counts": np.array([len(m.images) for m in matches]),
        "num_gts": np.stack([m.num_gts for m in matches]).astype(np.uint16),
        "images": np.concatenate([m.images for m in matches]).astype(np.uint32),
        # From one class to the next the step wraps around, here and back.
        "steps": -np.diff(np.concatenate(scores), prepend=np.uint16(0)),
        "true": (np.concatenate(matched) == 1) @ _BITS,
        "ignored": (np.concatenate(matched) == -1) @ _BITS,
    }
    arrays.update({name: arrays[name].astype(np.uint16) for name in ("true", "ignored")})
    replace_file(str(path), lambda f: np.savez_compressed(f, **arrays))


def read_matches(path: Path) -> tuple[list[str], list[Matches]]:
    """The classes, and of each what :func:`write_matches` was given."""
    with np.load(path) as f:
        scores = np.cumsum(-f["steps"], dtype=np.uint16)
        true, ignored = ((f[name][:, None] & _BITS) > 0 for name in ("true", "ignored"))
        columns = f["images"].astype(np.int64), scores, true.astype(int) - ignored
        ends = f["counts"].cumsum()[:-1]
        parts = zip(*(np.split(column, ends) for column in columns), strict=True)
        num_gts = f["num_gts"].astype(np.int64)
        matches = [Matches(*part, n) for part, n in zip(parts, num_gts, strict=True)]
        return f["classes"].tolist(), matches
