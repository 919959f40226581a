"""
The matchers that are measured. Each is made ready off the clock for what it wants its inputs to
look like (sigmoid scores, padded ground truths), and imported only where it is asked for.

mmdetection and Ultralytics are no dependencies. To measure them, and to run the tests that compare
their labels, install them where they cannot change the project's environment, for example

    echo 'setuptools<80' > constraint.txt
    PIP_CONSTRAINT=constraint.txt PIP_BUILD_CONSTRAINT=constraint.txt pip install --no-cache-dir \\
        --target peers --no-deps ultralytics mmdet mmengine mmcv==2.1.0 addict yapf platformdirs \\
        rich terminaltables shapely six scipy psutil requests

and put that folder at the end of PYTHONPATH. (mmcv 2.1.0, the newest that mmdetection takes, needs
an old setuptools, and is installed so without its compiled operators: no assigner calls them.
mmcv-lite lacks what mmdetection imports.)
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher

from .scenarios import Batch, Scenario

OURS = "Mutual Guidance"
STRATEGY = "mutual_guidance"
SIGMA = 2.0
THRESHOLDS = (0.4, 0.5)


class Case(NamedTuple):
    """One matcher in one scenario, and how to measure it."""

    scenario: str
    matcher: str
    device: str = "cpu"
    threads: int | None = None  # torch's own choice
    repeats: int = 20
    seconds: float = 60.0  # no new repeat after so long
    memory_budget: int = 2**30  # bytes


def ours(batch: Batch, case: Case, strategy: str = STRATEGY) -> Callable[[], Any]:
    """The package's matcher."""
    matcher = AnchorMatcher(strategy, SIGMA, THRESHOLDS, memory_budget=case.memory_budget)
    inputs = (batch.anchors, batch.gt_boxes, batch.gt_classes, batch.pred_boxes, batch.pred_logits)
    return lambda: matcher(*inputs, batch.level_sizes)


def plain(batch: Batch, case: Case) -> Callable[[], Any]:
    """The same labels by loops over images and ground truths."""
    from mutual_guidance.assignment.plain import match_anchors

    inputs = (batch.anchors, batch.gt_boxes, batch.gt_classes, batch.pred_boxes, batch.pred_logits)
    num_classes = batch.pred_logits.shape[2]
    return lambda: match_anchors(STRATEGY, SIGMA, THRESHOLDS, *inputs, num_classes)


def detectron2(batch: Batch, case: Case) -> Callable[[], Any]:
    """The static rule, as in Detectron2's RetinaNet."""
    from detectron2.modeling.matcher import Matcher
    from detectron2.structures import Boxes, pairwise_iou

    matcher = Matcher(list(THRESHOLDS), [0, -1, 1], allow_low_quality_matches=True)
    anchors, gt_boxes = Boxes(batch.anchors), [Boxes(b) for b in batch.gt_boxes]
    return lambda: [matcher(pairwise_iou(boxes, anchors)) for boxes in gt_boxes]


def torchvision(batch: Batch, case: Case) -> Callable[[], Any]:
    """The static rule, as in torchvision's RetinaNet; images without objects are left out."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(THRESHOLDS[1], THRESHOLDS[0], allow_low_quality_matches=True)
    gt_boxes = [boxes for boxes in batch.gt_boxes if len(boxes)]
    return lambda: [matcher(box_iou(boxes, batch.anchors)) for boxes in gt_boxes]


def _mmdet_instances(batch: Batch) -> list[tuple[Any, Any]]:
    """Predictions and ground truths of each image in mmdetection's structure."""
    from mmengine.structures import InstanceData

    return [
        (
            InstanceData(priors=batch.anchors, bboxes=pred_boxes, scores=logits.sigmoid()),
            InstanceData(bboxes=boxes, labels=classes),
        )
        for boxes, classes, pred_boxes, logits in zip(
            batch.gt_boxes, batch.gt_classes, batch.pred_boxes, batch.pred_logits, strict=True
        )
    ]


class _NoOperators(ModuleType):
    """Has whatever mmcv looks for among its compiled operators."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def mmdet_assigners() -> ModuleType:
    """
    mmdetection's assigners, without mmcv's operators, whose sources do not compile with PyTorch of
    today. Raises ImportError where mmdetection is not installed.
    """
    name = "mmcv._ext"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        sys.modules[name] = _NoOperators(name)
    return importlib.import_module("mmdet.models.task_modules.assigners")


def mmdet_task_aligned(batch: Batch, case: Case) -> Callable[[], Any]:
    """TOOD's assigner."""
    assigner, images = mmdet_assigners().TaskAlignedAssigner(topk=13), _mmdet_instances(batch)
    return lambda: [assigner.assign(preds, gts, alpha=1, beta=6) for preds, gts in images]


def mmdet_atss(batch: Batch, case: Case) -> Callable[[], Any]:
    """ATSS's assigner."""
    assigner, images = mmdet_assigners().ATSSAssigner(topk=9), _mmdet_instances(batch)
    return lambda: [assigner.assign(preds, batch.level_sizes, gts) for preds, gts in images]


def ultralytics_task_aligned(batch: Batch, case: Case) -> Callable[[], Any]:
    """The assigner of Ultralytics' detectors, which pads to the most crowded image."""
    from torch.nn.utils.rnn import pad_sequence
    from ultralytics.utils.tal import TaskAlignedAssigner

    num_classes = batch.pred_logits.shape[2]
    assigner = TaskAlignedAssigner(topk=10, num_classes=num_classes, alpha=0.5, beta=6.0)
    inputs = (
        batch.pred_logits.sigmoid(),
        batch.pred_boxes,
        (batch.anchors[:, :2] + batch.anchors[:, 2:]) / 2,
        pad_sequence(batch.gt_classes, batch_first=True)[..., None],  # (N, max M_i, 1)
        pad_sequence(batch.gt_boxes, batch_first=True),
        pad_sequence([torch.ones_like(c) for c in batch.gt_classes], batch_first=True)[..., None],
    )
    return lambda: assigner(*inputs)


class Matcher(NamedTuple):
    """How to call a matcher, and what it needs."""

    prepare: Callable[[Batch, Case], Callable[[], Any]]
    module: str  # not installed where it cannot be found
    bytes_per_cell: int = 0  # lower bound of what a cell of its largest matrix costs
    pads: bool = False  # that matrix is N x max M_i x R, and not max M_i x R

    def needed_bytes(self, scenario: Scenario) -> int:
        """Lower bound of the memory that the scenario takes."""
        images = scenario.num_images if self.pads else 1
        return self.bytes_per_cell * images * scenario.most_crowded * scenario.num_anchors


MATCHERS = {
    OURS: Matcher(ours, "mutual_guidance"),
    **{
        f"{name}, the same way": Matcher(partial(ours, strategy=name), "mutual_guidance")
        for name in STRATEGIES
        if name != STRATEGY
    },
    "plain per image and object": Matcher(plain, "mutual_guidance", 24),
    "Detectron2 Matcher": Matcher(detectron2, "detectron2", 16),
    "torchvision Matcher": Matcher(torchvision, "torchvision", 16),
    "mmdetection TaskAlignedAssigner": Matcher(mmdet_task_aligned, "mmdet", 16),
    "mmdetection ATSSAssigner": Matcher(mmdet_atss, "mmdet", 16),
    "ultralytics TaskAlignedAssigner": Matcher(
        ultralytics_task_aligned, "ultralytics", 16, pads=True
    ),
}
