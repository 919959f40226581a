"""
What a detector predicts before any label, and what the strategies make of it.

Shape symbols: N images, R anchors or points an image, K classes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from detectron2.layers import cat
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..assignment import Assignment
from ..checkpoint import Checkpointer
from ..errors import CheckpointError
from ..modeling import GuidedFCOS


class Candidates(NamedTuple):
    """Anchors and the predictions at them."""

    anchors: list[Boxes]  # of each level; for FCOS a square around each point
    pred_logits: Tensor  # (N, R, K)
    pred_deltas: Tensor  # (N, R, 4)
    are_points: bool


def load_weights(detector: DenseDetector, path: str | os.PathLike) -> int:
    """
    Load a checkpoint.

    Returns:
        Its iteration, 0 where it knows none.

    Raises:
        CheckpointError: the file is missing, unreadable or of another architecture.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: there is no such file of weights")
    checkpointer = Checkpointer(detector)
    checkpointer.needs_all_weights = True
    rest = checkpointer.load(os.fspath(path))
    # A run stopped by a signal leaves it in the trainer's state alone.
    return rest.get("iteration", rest.get("trainer", {}).get("iteration", 0))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and every module in its own mode again behind, whatever happens."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def predict(detector: DenseDetector, inputs: Sequence[dict]) -> Candidates:
    """
    What the detector predicts for N images, in evaluation mode. Its state stays as it is.

    Args:
        detector: a GuidedRetinaNet or GuidedFCOS. inputs: of N images, as for the detector.
    """
    with evaluation_mode(detector):
        features = detector.backbone(detector.preprocess_image(inputs).tensor)
        features = [features[name] for name in detector.head_in_features]
        predictions = detector.head(features)
    pred_logits, pred_deltas = detector._transpose_dense_predictions(
        predictions[:2], [detector.num_classes, 4]
    )
    anchors = detector.anchor_generator(features)
    return Candidates(
        anchors=anchors,
        pred_logits=cat(pred_logits, dim=1),
        pred_deltas=cat(pred_deltas, dim=1),
        are_points=isinstance(detector, GuidedFCOS),
    )


def label(
    detector: DenseDetector, inputs: Sequence[dict], candidates: Candidates, strategy: str
) -> Assignment:
    """The labels that a strategy, whichever the detector was trained with, gives the candidates."""
    gt_instances = [x["instances"].to(detector.device) for x in inputs]
    anchors, pred_logits, pred_deltas = candidates[:3]
    return detector.label_anchors(anchors, gt_instances, pred_logits, pred_deltas, strategy)
