"""The predictions that a detector hands to its NMS, beside those that it returns."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def candidates_in_outputs(model: nn.Module) -> Iterator[None]:
    """
    Within the context every output of the model in inference also holds "candidates": Instances
    with ``pred_boxes``, ``scores``, ``pred_classes`` and ``kept`` (bool, whether NMS kept it; the
    limit on detections comes later), scaled and clipped as "instances" are. They are the model's
    own of that very forward pass, above its score threshold and among its best ones a level.

    Args:
        model: a DenseDetector, as Detectron2's RetinaNet and FCOS and all detectors here are, or
            one in DistributedDataParallel.

    Raises:
        TypeError: for any other model.
    """
    detector = model.module if isinstance(model, DistributedDataParallel) else model
    if not isinstance(detector, DenseDetector):
        raise TypeError(f"{type(detector).__name__} is no dense detector: it has no one NMS")
    decode = detector._decode_multi_level_predictions
    recorded: list[Instances] = []

    def record(*args, **kwargs) -> Instances:
        recorded.append(decode(*args, **kwargs))
        return recorded[-1]

    def attach(module: nn.Module, args: tuple, outputs: list[dict] | dict) -> None:
        if module.training:
            return
        for output, candidates in zip(outputs, recorded, strict=True):
            candidates.kept = nms_keeps(candidates, module.test_nms_thresh)
            output["candidates"] = detector_postprocess(candidates, *output["instances"].image_size)
        recorded.clear()

    # On the object, where it shadows the method of the class.
    detector._decode_multi_level_predictions = record
    handle = detector.register_forward_hook(attach)
    try:
        yield
    finally:
        handle.remove()
        del detector._decode_multi_level_predictions


def nms_keeps(candidates: Instances, threshold: float) -> torch.Tensor:
    """Which candidates (P,) bool the detector's NMS of that threshold keeps."""
    kept = torch.zeros(len(candidates), dtype=torch.bool, device=candidates.scores.device)
    boxes = candidates.pred_boxes.tensor
    kept[batched_nms(boxes, candidates.scores, candidates.pred_classes, threshold)] = True
    return kept
