"""
What a detector is whose tasks are labelled apart, and what everything else asks it.

Shape symbols: N images, R anchors or points an image, Ri of one level, K classes.
"""

from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from ...assignment import AnchorMatcher, Assignment, GroundTruths, PointMatcher
from ...assignment.candidates import Anchors, Points
from ...assignment.pairs import Batch, PairValues
from ..losses import focal_loss, quality_focal_loss
from .curves import log_assignment

_CLS_TARGETS = ("label", "quality")
_HEADS = ("per_level", "shared")


class DensePredictions(NamedTuple):
    """Anchors or points, level after level, and what is predicted at them."""

    anchors: list[Boxes]  # of each level (Ri, 4); for points a square of the stride's size
    logits: Tensor  # (N, R, K) of the classes, before the sigmoid
    deltas: Tensor  # (N, R, 4)
    boxes: Tensor  # (N, R, 4) float32, decoded, without gradients
    centerness: Tensor | None = None  # (N, R, 1), before the sigmoid

    @property
    def level_sizes(self) -> list[int]:
        """Ri of each level."""
        return [len(anchors) for anchors in self.anchors]


class Guided:
    """
    To stand before Detectron2's RetinaNet or FCOS in a class's bases: candidates are labelled for
    each task apart, by the predictions of the very step. Inference is Detectron2's.

    A detector supplies ``candidate_kind``, ``prior_name``, ``from_config`` with
    :meth:`guided_args` in it, :meth:`build_matcher`, :meth:`candidates` and :meth:`guided_losses`;
    one whose head predicts otherwise, :meth:`dense`, :meth:`scores` and Detectron2's
    ``forward_inference``. One that is neither RetinaNet nor FCOS has what they have:
    ``num_classes``, ``anchor_generator`` and ``box2box_transform`` for :meth:`dense`,
    ``focal_loss_alpha`` and ``focal_loss_gamma`` for :meth:`cls_loss`, and the four limits of
    ``forward_inference`` for export.

    Detectron2's event storage counts the iterations, for STATIC_ITERS and curves: one for the whole
    training, whose ``iter`` advances, as its trainers have it.

    Attributes:
        candidate_kind: "boxes" or "points".
        prior_name: what the prior is called in curves and tables, "anchor_iou" or "centerness".
    """

    candidate_kind: str
    prior_name: str

    @configurable
    def __init__(
        self,
        *,
        matcher: AnchorMatcher | PointMatcher,
        static_iters: int = 0,
        cls_target: str = "label",
        **kwargs,
    ) -> None:
        """
        Args:
            matcher: labels the candidates.
            static_iters: iterations in which the static strategy labels, before the matcher's own.
            cls_target: what the score of a positive shall be: "label", 1 by the focal loss, or
                "quality", the strategy's by the quality focal loss.
            kwargs: of Detectron2's detector.

        Raises:
            ValueError: unknown ``cls_target``, or a gamma with which its loss has no gradient.
            TypeError: the class lacks an attribute.
        """
        super().__init__(**kwargs)
        for name in ("candidate_kind", "prior_name"):
            if not hasattr(self, name):
                raise TypeError(f"{type(self).__name__} must have the attribute {name}")
        if cls_target not in _CLS_TARGETS:
            known = ", ".join(_CLS_TARGETS)
            raise ValueError(f"unknown cls_target {cls_target!r}; choose one of {known}")
        gamma = getattr(self, "focal_loss_gamma", 0)
        if gamma < 0 or cls_target == "quality" and 0 < gamma < 1:
            allowed = "0 or at least 1" if cls_target == "quality" else "0 or more"
            raise ValueError(
                f"FOCAL_LOSS_GAMMA must be {allowed} with cls_target {cls_target!r}, got {gamma}"
            )
        self.cls_target = cls_target
        self.matcher = matcher
        self.static_iters = static_iters

    @classmethod
    def guided_args(cls, cfg) -> dict[str, object]:
        """The arguments of this class that a config has, for ``from_config``."""
        guidance = cfg.MODEL.MUTUAL_GUIDANCE
        return {
            "matcher": cls.build_matcher(cfg),
            "static_iters": guidance.STATIC_ITERS,
            "cls_target": guidance.CLS_TARGET,
        }

    @classmethod
    def build_matcher(cls, cfg) -> AnchorMatcher | PointMatcher:
        """The matcher of a config. Raises ValueError for values that it cannot use."""
        raise NotImplementedError

    def candidates(self, anchors: list[Boxes]) -> Anchors | Points:
        """The anchors of each level as the matcher takes them."""
        raise NotImplementedError

    def guided_losses(
        self, dense: DensePredictions, truth: GroundTruths, assignment: Assignment
    ) -> dict[str, Tensor]:
        """The losses of both tasks, each divided by its own of :func:`loss_normalizers`."""
        raise NotImplementedError

    def forward_training(self, images, features, predictions, gt_instances) -> dict[str, Tensor]:
        """Label by the predictions, then compute the losses of both tasks."""
        dense = self.dense(features, predictions)
        truth = ground_truths(gt_instances)
        assignment = self.assign(dense, truth)
        log_assignment(self, dense, truth, assignment)
        return self.guided_losses(dense, truth, assignment)

    def predict_dense(self, images: Tensor) -> DensePredictions:
        """What the head makes of normalised images (N, 3, H, W)."""
        features = self.backbone(images)
        features = [features[name] for name in self.head_in_features]
        return self.dense(features, self.head(features))

    def dense(
        self, features: list[Tensor], predictions: tuple[list[Tensor], ...]
    ) -> DensePredictions:
        """
        Args:
            features: of each level (N, C, Hi, Wi).
            predictions: logits, deltas and, if there is one, centerness of each level, as the head
                returns them.
        """
        dims = [self.num_classes, 4, 1][: len(predictions)]
        logits, deltas, *centerness = (
            cat(levels, dim=1) for levels in self._transpose_dense_predictions(predictions, dims)
        )
        anchors = grid_anchors(self.anchor_generator, features)
        boxes = decode_boxes(self.box2box_transform, anchors, deltas.detach())
        return DensePredictions(anchors, logits, deltas, boxes, *centerness)

    def cls_loss(
        self, dense: DensePredictions, truth: GroundTruths, assignment: Assignment
    ) -> tuple[Tensor, Tensor | None]:
        """
        The sum over all candidates that are not ignored, and what :func:`loss_normalizers` is to
        divide it by in the place of the number of positives.
        """
        labels, alpha, gamma = assignment.cls_labels, self.focal_loss_alpha, self.focal_loss_gamma
        if self.cls_target == "label":
            return focal_loss(dense.logits, labels, alpha, gamma), None
        predicted = (self.candidates(dense.anchors), truth, dense.boxes, dense.logits.detach())
        matcher = self._labelling_matcher()
        targets = matcher.score_targets(*predicted, assignment)
        loss = quality_focal_loss(dense.logits, labels, targets, gamma)
        return loss, targets.sum() if matcher.strategy.scales_target else None

    def scores(self, dense: DensePredictions) -> Tensor:
        """Scores (N, R, K) in [0, 1] by which ``forward_inference`` ranks, for export."""
        return dense.logits.sigmoid()

    @torch.no_grad()
    def assign(
        self, dense: DensePredictions, truth: GroundTruths, strategy: str | None = None
    ) -> Assignment:
        """
        The labels of all candidates for both tasks.

        Args:
            strategy: in the place of the one that a training has at this iteration.
        """
        own = self._labelling_matcher()
        matcher = own.with_strategy(strategy) if strategy else own
        return matcher.match(self.candidates(dense.anchors), truth, dense.boxes, dense.logits)

    def _labelling_matcher(self) -> AnchorMatcher | PointMatcher:
        """
        The detector's own, or in the first iterations of a training, if there are such, that of the
        static strategy. Detectron2's event storage counts them, in every process and across
        --resume alike.
        """
        training = self.static_iters and has_event_storage()
        if training and get_event_storage().iter < self.static_iters:
            return self.matcher.with_strategy("static")
        return self.matcher

    def pairs(
        self, dense: DensePredictions, truth: GroundTruths, gts: Tensor, inds: Tensor
    ) -> PairValues:
        """What the qualities of pairs of ground truths of the batch and candidates are made of."""
        predicted = dense.boxes, dense.logits, self.matcher.sigma
        return PairValues(Batch(self.candidates(dense.anchors), truth, *predicted), gts, inds)


def grid_anchors(generator: DefaultAnchorGenerator, features: list[Tensor]) -> list[Boxes]:
    """What it makes of features (N, C, Hi, Wi); Detectron2's would upload two tensors a level."""
    if type(generator) is not DefaultAnchorGenerator:
        return generator(features)
    anchors = []
    for feature, stride, cell in zip(
        features, generator.strides, generator.cell_anchors, strict=True
    ):
        y, x = (
            (torch.arange(n, device=cell.device, dtype=cell.dtype) + generator.offset) * stride
            for n in feature.shape[-2:]
        )
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((x, y, x, y), dim=-1)[:, :, None]  # (Hi, Wi, 1, 4)
        anchors.append(Boxes((shifts + cell).reshape(-1, 4)))
    return anchors


def has_per_level_head(cfg) -> bool:
    """Whether each level is to have towers of its own. Raises ValueError for an unknown HEAD."""
    head = cfg.MODEL.MUTUAL_GUIDANCE.HEAD
    if head not in _HEADS:
        known = ", ".join(_HEADS)
        raise ValueError(f"MODEL.MUTUAL_GUIDANCE.HEAD must be one of {known}, got {head!r}")
    return head == "per_level"


def matcher_keys(cfg) -> dict[str, object]:
    """The arguments that the matchers of anchors and of points have in common."""
    guidance = cfg.MODEL.MUTUAL_GUIDANCE
    return {
        "strategy": guidance.STRATEGY,
        "sigma": guidance.SIGMA,
        "memory_budget": guidance.MEMORY_BUDGET,
        "num_positives": guidance.NUM_POSITIVES,
    }


def decode_boxes(box2box_transform, anchors: list[Boxes], deltas: Tensor) -> Tensor:
    """Boxes (N, R, 4) that the deltas (N, R, 4) make of the anchors of each level."""
    num_images = deltas.shape[0]  # whose len() an exported graph would take for a constant
    all_anchors = Boxes.cat(anchors).tensor.repeat(num_images, 1)
    boxes = box2box_transform.apply_deltas(deltas.flatten(0, 1).float(), all_anchors)
    return boxes.view(num_images, -1, 4)


def ground_truths(gt_instances: list[Instances]) -> GroundTruths:
    """The ground truths of N images as one ragged set."""
    return GroundTruths.cat(
        [x.gt_boxes.tensor for x in gt_instances], [x.gt_classes for x in gt_instances]
    )
