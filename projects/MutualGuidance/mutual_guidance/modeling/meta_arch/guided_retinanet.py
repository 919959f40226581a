"""
RetinaNet with separate labels for its two tasks.

Shape symbols: N images, R anchors an image, M_i ground truths of image i, K classes.
"""

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...assignment import AnchorMatcher, Assignment, box_iou
from ..head import PerLevelHead
from ..losses import balanced_l1_loss
from .common import (
    current_matcher,
    decode_boxes,
    focal_loss,
    gt_tensors,
    loss_normalizers,
    matched_boxes,
)
from .curves import log_assignment


@META_ARCH_REGISTRY.register()
class GuidedRetinaNet(RetinaNet):
    """
    Detectron2's RetinaNet whose anchors are labelled for each task apart. Inference is
    Detectron2's.
    """

    prior_name = "anchor_iou"

    @configurable
    def __init__(
        self,
        *,
        anchor_matcher: AnchorMatcher,
        balanced_l1: dict[str, float] | None = None,
        static_iters: int = 0,
        **kwargs,
    ) -> None:
        """
        Args:
            anchor_matcher: labels the anchors, in the place of Detectron2's Matcher.
            balanced_l1: alpha, gamma and beta of :func:`balanced_l1_loss`, used where
                ``box_reg_loss_type`` is "balanced_l1".
            static_iters: iterations in which the static strategy labels, before the matcher's own.
            kwargs: see :class:`detectron2.modeling.meta_arch.RetinaNet`.
        """
        super().__init__(anchor_matcher=anchor_matcher, **kwargs)
        self.balanced_l1 = balanced_l1 or {}
        self.static_iters = static_iters

    @classmethod
    def from_config(cls, cfg) -> dict:
        ret = super().from_config(cfg)
        guidance, retinanet = cfg.MODEL.MUTUAL_GUIDANCE, cfg.MODEL.RETINANET
        if guidance.HEAD == "per_level":
            shapes = ret["backbone"].output_shape()
            ret["head"] = PerLevelHead(
                [shapes[f] for f in retinanet.IN_FEATURES],
                retinanet.NUM_CLASSES,
                ret["anchor_generator"].num_anchors[0],
                retinanet.PRIOR_PROB,
            )
        ret["anchor_matcher"] = AnchorMatcher(
            strategy=guidance.STRATEGY,
            sigma=guidance.SIGMA,
            iou_thresholds=tuple(retinanet.IOU_THRESHOLDS),
            num_classes=retinanet.NUM_CLASSES,
            memory_budget=guidance.MEMORY_BUDGET,
            num_positives=guidance.NUM_POSITIVES,
        )
        ret["static_iters"] = guidance.STATIC_ITERS
        ret["balanced_l1"] = {
            "alpha": retinanet.BALANCED_L1_ALPHA,
            "gamma": retinanet.BALANCED_L1_GAMMA,
            "beta": retinanet.BALANCED_L1_BETA,
        }
        return ret

    def forward_training(self, images, features, predictions, gt_instances) -> dict[str, Tensor]:
        """Label the anchors by the predictions, then compute the losses of both tasks."""
        pred_logits, pred_deltas = self._transpose_dense_predictions(
            predictions, [self.num_classes, 4]
        )
        anchors = self.anchor_generator(features)
        predicted = (cat(pred_logits, dim=1), cat(pred_deltas, dim=1))
        assignment = self.label_anchors(anchors, gt_instances, *predicted)
        log_assignment(self, anchors, gt_instances, *predicted, assignment)
        return self.losses(anchors, pred_logits, pred_deltas, assignment, gt_instances)

    @torch.no_grad()
    def label_anchors(
        self,
        anchors: list[Boxes],
        gt_instances: list[Instances],
        pred_logits: Tensor,
        pred_deltas: Tensor,
        strategy: str | None = None,
    ) -> Assignment:
        """
        Args:
            anchors: of each level.
            gt_instances: of N images.
            pred_logits: (N, R, K). pred_deltas: (N, R, 4).
            strategy: in the place of the detector's own.

        Returns:
            The labels of all anchors for both tasks.
        """
        matcher = current_matcher(self.anchor_matcher, strategy, self.static_iters)
        anchors = Boxes.cat(anchors)
        pred_boxes = decode_boxes(self.box2box_transform, anchors, pred_deltas)
        return matcher(anchors.tensor, *gt_tensors(gt_instances), pred_boxes, pred_logits)

    def prior(self, anchors: list[Boxes], candidates: Tensor, gt_boxes: Tensor) -> Tensor:
        """
        The static quality: IoU with the anchor, of pairs of an anchor and a ground truth.

        Args:
            anchors: of each level. candidates: (P,) in [0, R). gt_boxes: (P, 4).

        Returns:
            (P,) in [0, 1].
        """
        return box_iou(Boxes.cat(anchors).tensor[candidates].t(), gt_boxes.t())

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        pred_deltas: list[Tensor],
        assignment: Assignment,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """
        Args:
            anchors, pred_logits, pred_deltas: of each level; predictions (N, Ri, K or 4).
            assignment: the labels of both tasks. gt_instances: of N images.

        Returns:
            "loss_cls" and "loss_box_reg", divided by the positives of each task.
        """
        num_cls, num_loc = loss_normalizers(assignment)
        loss_cls = focal_loss(
            cat(pred_logits, dim=1),
            assignment.cls_labels,
            self.num_classes,
            self.focal_loss_alpha,
            self.focal_loss_gamma,
        )
        gt_boxes = matched_boxes(gt_tensors(gt_instances)[0], assignment.loc_gt_inds)
        loss_box_reg = self._box_loss(anchors, pred_deltas, gt_boxes, assignment.loc_mask)
        return {"loss_cls": loss_cls / num_cls, "loss_box_reg": loss_box_reg / num_loc}

    def _box_loss(
        self,
        anchors: list[Boxes],
        pred_deltas: list[Tensor],
        gt_boxes: list[Tensor],
        loc_mask: Tensor,
    ) -> Tensor:
        """Sum over the positives (N, R) of localisation; balanced L1 is the mean of four deltas."""
        if self.box_reg_loss_type != "balanced_l1":
            return _dense_box_regression_loss(
                anchors,
                self.box2box_transform,
                pred_deltas,
                gt_boxes,
                loc_mask,
                box_reg_loss_type=self.box_reg_loss_type,
                smooth_l1_beta=self.smooth_l1_beta,
            )
        positives = loc_mask.flatten().nonzero().squeeze(1)  # (P,)
        all_anchors = Boxes.cat(anchors).tensor.repeat(len(gt_boxes), 1)
        targets = self.box2box_transform.get_deltas(
            all_anchors[positives], torch.cat(gt_boxes)[positives]
        )
        preds = cat(pred_deltas, dim=1).flatten(0, 1)[positives]
        return balanced_l1_loss(preds, targets, reduction="sum", **self.balanced_l1) / 4
