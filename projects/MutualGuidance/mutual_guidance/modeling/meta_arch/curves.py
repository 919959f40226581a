"""
Curves of the assignment during training, in Detectron2's event storage.

Shape symbols: N images, R anchors or points an image, M ground truths of the batch.
"""

from typing import TYPE_CHECKING

import torch
from detectron2.structures import Boxes
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ...assignment import QUALITIES, Assignment, GroundTruths
from ..late import put_scalars_later, use_later

if TYPE_CHECKING:
    from .guided import DensePredictions, Guided

# Iterations between two values: the period of Detectron2's writers.
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
    iteration = storage.iter + 2  # a GPU's values arrive in the next one, when the writers write
    if iteration % PERIOD or not comm.is_main_process() or len(truth.boxes) == 0:
        return
    gt_inds = _task_inds(assignment, truth)
    static_inds = _task_inds(detector.assign(dense, truth, "static"), truth)
    values = {}
    for task, inds in gt_inds.items():
        values[f"{task}_positives_per_object"] = _positives(inds, len(truth.boxes))
        prior, regressed = _qualities(detector, dense, truth, inds)
        values[f"{task}_{detector.prior_name}"] = prior
        values[f"{task}_regressed_iou"] = regressed
    if iteration % HISTOGRAM_PERIOD == 0:
        for name, value in values.items():
            _put_histogram_later(f"assignment/{name}", value)
    values |= _by_size(values["loc_positives_per_object"], truth.boxes)
    for task, inds in gt_inds.items():
        values[f"{task}_as_static"] = _agreement(inds, static_inds[task])
    values["agreement"] = _agreement(gt_inds["cls"], gt_inds["loc"])
    put_scalars_later({f"assignment/{name}": v.nanmean() for name, v in values.items()})


def _task_inds(assignment: Assignment, truth: GroundTruths) -> dict[str, Tensor]:
    """The ground truth of each anchor for both tasks, within the batch; (N, R), -1 for none."""
    return {
        "cls": truth.in_batch(assignment.cls_gt_inds),
        "loc": truth.in_batch(assignment.loc_gt_inds),
    }


def _agreement(gt_inds: Tensor, others: Tensor) -> Tensor:
    """Of the anchors with a ground truth in either of two (N, R), whether it is the same."""
    return _only((gt_inds == others).float(), (gt_inds >= 0) | (others >= 0))


def _positives(gt_inds: Tensor, num_gts: int) -> Tensor:
    """How many of (N, R) have each ground truth: (M,)."""
    counts = torch.zeros(num_gts + 1, device=gt_inds.device)  # the first for none
    gt_inds = gt_inds.flatten() + 1
    return counts.scatter_add_(0, gt_inds, torch.ones_like(gt_inds, dtype=counts.dtype))[1:]


def _qualities(
    detector: "Guided", dense: "DensePredictions", truth: GroundTruths, gt_inds: Tensor
) -> tuple[Tensor, Tensor]:
    """Prior and IoU of the regressed box of the positives in ``gt_inds`` (N, R): (N * R,)."""
    num_images, num_candidates = gt_inds.shape
    inds = torch.arange(num_candidates, device=gt_inds.device).repeat(num_images)
    gt_inds = gt_inds.flatten()
    pairs = detector.pairs(dense, truth, gt_inds.clamp(min=0), inds)
    prior, regressed = (QUALITIES[name].of(pairs) for name in ("prior", "regressed"))
    return _only(prior, gt_inds >= 0), _only(regressed, gt_inds >= 0)


def _by_size(num_positives: Tensor, gt_boxes: Tensor) -> dict[str, Tensor]:
    """Split the positives (M,) of each object by the object's size."""
    areas = Boxes(gt_boxes).area()
    return {
        f"loc_positives_per_object_{name}": _only(num_positives, (areas >= low) & (areas < high))
        for name, (low, high) in _SIZES.items()
    }


def _only(values: Tensor, mask: Tensor) -> Tensor:
    """The values that a mask selects, NaN in the place of the others: nobody waits for a size."""
    return torch.where(mask, values, torch.nan)


def _put_histogram_later(name: str, values: Tensor) -> None:
    storage = get_event_storage()

    def put(values: Tensor) -> None:
        values = values[~values.isnan()]
        if len(values):
            storage.put_histogram(name, values, _NUM_BINS)

    use_later(values, put)
