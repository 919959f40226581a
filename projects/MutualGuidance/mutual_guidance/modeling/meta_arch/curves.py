"""
Curves of the assignment during training, in Detectron2's event storage.

Shape symbols: N images, R anchors or points an image, M ground truths of the batch, P positives of
a task.
"""

from typing import TYPE_CHECKING

import torch
from detectron2.structures import Boxes
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor

from ...assignment import QUALITIES, Assignment, GroundTruths

if TYPE_CHECKING:
    from .guided import DensePredictions, Guided

# Iterations between two values: the period of Detectron2's writers, so that only the batch that
# they write about is looked at, and no other iteration waits on the device for it.
PERIOD = 20
HISTOGRAM_PERIOD = 200
_NUM_BINS = 50
# Areas in pixels at which COCO's small, medium and large objects begin.
_SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


@torch.no_grad()
def log_assignment(
    detector: "Guided", dense: "DensePredictions", truth: GroundTruths, assignment: Assignment
) -> None:
    """
    Every 20th iteration, tell the event storage of the main process about its images:

    - ``assignment/agreement``: of the anchors that are positive for some task, the share that is
      positive for both, with the same ground truth.
    - ``assignment/{cls,loc}_as_static``: the same share of the task and the static rule.
    - ``assignment/{cls,loc}_positives_per_object``, and ``_small``, ``_medium`` and ``_large`` for
      localisation: N_p by the area of the object in the network's input, with COCO's limits.
    - ``assignment/{cls,loc}_anchor_iou`` (``_centerness`` for points): mean prior of the task's
      positives, and ``assignment/{cls,loc}_regressed_iou``: mean IoU of their regressed boxes.

    What a batch has no positive or no object for is left out. Every 200th iteration the qualities
    and the positives of each object are told as histograms as well.
    """
    storage = get_event_storage()
    iteration = storage.iter + 1
    if iteration % PERIOD or not comm.is_main_process() or len(truth.boxes) == 0:
        return
    gt_inds = _task_inds(assignment, truth)
    static_inds = _task_inds(detector.assign(dense, truth, "static"), truth)
    values = {}
    for task, inds in gt_inds.items():
        values[f"{task}_positives_per_object"] = inds[inds >= 0].bincount(
            minlength=len(truth.boxes)
        )
        prior, regressed = _qualities(detector, dense, truth, inds)
        values[f"{task}_{detector.prior_name}"] = prior
        values[f"{task}_regressed_iou"] = regressed
    _put_means(storage, values)
    _put_means(storage, _by_size(values["loc_positives_per_object"], truth.boxes))
    as_static = {
        f"{task}_as_static": _agreement(gt_inds[task], static_inds[task]) for task in gt_inds
    }
    _put_means(storage, {"agreement": _agreement(gt_inds["cls"], gt_inds["loc"]), **as_static})
    if iteration % HISTOGRAM_PERIOD == 0:
        for name, value in values.items():
            if len(value):
                storage.put_histogram(f"assignment/{name}", value.float().cpu(), _NUM_BINS)


def _task_inds(assignment: Assignment, truth: GroundTruths) -> dict[str, Tensor]:
    """The ground truth of each anchor for both tasks, within the batch; (N, R), -1 for none."""
    return {
        "cls": truth.in_batch(assignment.cls_gt_inds),
        "loc": truth.in_batch(assignment.loc_gt_inds),
    }


def _agreement(gt_inds: Tensor, others: Tensor) -> Tensor:
    """Of the anchors with a ground truth in either of two (N, R), whether it is the same."""
    return (gt_inds == others)[(gt_inds >= 0) | (others >= 0)]


def _qualities(
    detector: "Guided", dense: "DensePredictions", truth: GroundTruths, gt_inds: Tensor
) -> tuple[Tensor, Tensor]:
    """Prior (P,) and IoU of the regressed box (P,) of the positives in ``gt_inds`` (N, R)."""
    images, candidates = (gt_inds >= 0).nonzero(as_tuple=True)
    pairs = detector.pairs(dense, truth, gt_inds[images, candidates], candidates)
    return QUALITIES["prior"].of(pairs), QUALITIES["regressed"].of(pairs)


def _by_size(num_positives: Tensor, gt_boxes: Tensor) -> dict[str, Tensor]:
    """Split the positives (M,) of each object by the object's size."""
    areas = Boxes(gt_boxes).area()
    return {
        f"loc_positives_per_object_{name}": num_positives[(areas >= low) & (areas < high)]
        for name, (low, high) in _SIZES.items()
    }


def _put_means(storage: EventStorage, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        if len(value):
            storage.put_scalar(f"assignment/{name}", value.float().mean())
