"""
Exported detectors in the place of their models, and how far the two are apart.

Shape symbols: N images, D detections an image.
"""

import math
from typing import NamedTuple

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .files import Run
from .graph import DetectorGraph, Suppression

BOX_TOLERANCE = 0.5  # pixels
SCORE_TOLERANCE = 1e-3
UNMATCHED_TOLERANCE = 0.01


class ExportedDetector:
    """Takes and gives what the model in evaluation mode does, so that evaluators work with it."""

    def __init__(self, run: Run, suppression: Suppression | None = None) -> None:
        """
        Args:
            run: see :func:`load_exported`.
            suppression: applied to the boxes and scores of a file that has none inside.
        """
        self.run = run
        self.suppression = suppression

    def __call__(self, batched_inputs: list[dict]) -> list[dict]:
        """See :class:`detectron2.modeling.meta_arch.dense_detector.DenseDetector`."""
        images = torch.stack([x["image"] for x in batched_inputs])
        outputs = self.run(images)
        if self.suppression:
            outputs = self.suppression(*outputs)
        detections = []
        for x, boxes, scores, classes in zip(batched_inputs, *outputs, strict=True):
            found = scores > 0
            instances = Instances(
                tuple(images.shape[2:]),
                pred_boxes=Boxes(boxes[found]),
                scores=scores[found],
                pred_classes=classes[found],
            )
            size = (x.get("height", images.shape[2]), x.get("width", images.shape[3]))
            detections.append({"instances": detector_postprocess(instances, *size)})
        return detections


class Parity(NamedTuple):
    """How far the outputs of a file are from those of its model."""

    box: float = 0.0  # largest difference of a coordinate, pixels
    score: float = 0.0  # largest difference of a score
    unmatched: float = 0.0  # share of detections without a counterpart in the other output

    def __or__(self, other: "Parity") -> "Parity":
        """The worse of both."""
        return Parity(*map(max, self, other))

    def is_close(self) -> bool:
        """
        Whether file and model agree. Rounding may exchange a few detections: suppression decides
        between all but equal scores, and the best D end among them.
        """
        tolerances = (BOX_TOLERANCE, SCORE_TOLERANCE, UNMATCHED_TOLERANCE)
        return all(value <= limit for value, limit in zip(self, tolerances, strict=True))


@torch.no_grad()
def verify(graph: DetectorGraph, run: Run, images: Tensor) -> Parity:
    """Of a file and its graph, on images (N, 3, S, S) as a batch and on the first alone."""
    one, batch = (compare_outputs(run(x), graph(x)) for x in (images[:1], images))
    return one | batch


def compare_outputs(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> Parity:
    """
    Between two outputs of :class:`DetectorGraph` for the same images. Values that are not finite
    are infinitely far from everything.
    """
    if not all(x.isfinite().all() for x in (*outputs, *expected)):
        return Parity(math.inf, math.inf, 1.0)
    if len(expected) == 2:
        return Parity(*((a - b).abs().max().item() for a, b in zip(outputs, expected, strict=True)))
    parity = Parity()
    for one, other in ((outputs, expected), (expected, outputs)):
        for image in zip(*one, *other, strict=True):
            parity |= _compare_detections(image[:3], image[3:])
    return parity


def _compare_detections(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> Parity:
    """
    Boxes (D, 4), scores (D,) and classes (D,) of an image. Each detection's counterpart is the
    nearest one of its class within the tolerances.
    """
    boxes, scores, classes = (x[one[2] >= 0] for x in one)
    other_boxes, other_scores, other_classes = (x[other[2] >= 0] for x in other)
    if not len(boxes) or not len(other_boxes):
        return Parity(unmatched=float(len(boxes) > 0))
    far = torch.cdist(boxes, other_boxes, p=float("inf"))  # (D, D)
    far[classes[:, None] != other_classes] = float("inf")
    box, nearest = far.min(dim=1)
    score = (scores - other_scores[nearest]).abs()
    matched = (box <= BOX_TOLERANCE) & (score <= SCORE_TOLERANCE)
    if not matched.any():
        return Parity(unmatched=1.0)
    unmatched = (~matched).float().mean().item()
    return Parity(box[matched].max().item(), score[matched].max().item(), unmatched)
