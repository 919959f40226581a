"""What a detector predicts before any label, and what the strategies make of it."""

import os
from collections.abc import Sequence

import torch

from ..assignment import Assignment
from ..checkpoint import Checkpointer
from ..errors import CheckpointError, InputError
from ..modeling.meta_arch import DensePredictions, Guided, ground_truths
from ..modeling.mode import evaluation_mode


def load_weights(detector: Guided, path: str | os.PathLike) -> int:
    """
    Load a checkpoint.

    Returns:
        Its iteration, 0 where it knows none.

    Raises:
        InputError: the detector is none of the project's.
        CheckpointError: the file is missing, unreadable or of another architecture.
    """
    if not isinstance(detector, Guided):
        name = type(detector).__name__
        raise InputError(f"a {name} has no labels of its own to draw: only the project's detectors")
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: there is no such file of weights")
    checkpointer = Checkpointer(detector)
    checkpointer.needs_all_weights = True
    rest = checkpointer.load(os.fspath(path))
    # A run stopped by a signal leaves it in the trainer's state alone.
    return rest.get("iteration", rest.get("trainer", {}).get("iteration", 0))


@torch.no_grad()
def predict(detector: Guided, inputs: Sequence[dict]) -> DensePredictions:
    """What the detector predicts for N images, in evaluation mode. Its state stays as it is."""
    with evaluation_mode(detector):
        return detector.predict_dense(detector.preprocess_image(inputs).tensor)


def label(
    detector: Guided, inputs: Sequence[dict], dense: DensePredictions, strategy: str
) -> Assignment:
    """The labels by a strategy, whichever the detector was trained with, of what it predicts."""
    truth = ground_truths([x["instances"].to(detector.device) for x in inputs])
    return detector.assign(dense, truth, strategy)
