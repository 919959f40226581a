"""
FCOS, buildable from YAML, with separate labels for its two tasks.

Shape symbols: N images, R points an image, M_i ground truths of image i, K classes, L levels.
"""

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from ...assignment import Assignment, PointMatcher
from ...assignment.geometry import Points
from ..head import PerLevelFCOSHead
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
class GuidedFCOS(FCOS):
    """
    Detectron2's FCOS whose points are labelled for each task apart (supplementary of the paper).
    Centerness is trained where localisation is. Inference is Detectron2's.
    """

    prior_name = "centerness"

    @configurable
    def __init__(self, *, point_matcher: PointMatcher, static_iters: int = 0, **kwargs) -> None:
        """
        Args:
            point_matcher: labels the points.
            static_iters: iterations in which the static strategy labels, before the matcher's own.
            kwargs: see :class:`detectron2.modeling.meta_arch.fcos.FCOS`.
        """
        super().__init__(**kwargs)
        self.point_matcher = point_matcher
        self.static_iters = static_iters

    @classmethod
    def from_config(cls, cfg) -> dict:
        fcos, guidance = cfg.MODEL.FCOS, cfg.MODEL.MUTUAL_GUIDANCE
        backbone = build_backbone(cfg)
        shapes = [backbone.output_shape()[f] for f in fcos.IN_FEATURES]
        if guidance.HEAD == "per_level":
            head = PerLevelFCOSHead(shapes, fcos.NUM_CLASSES, fcos.PRIOR_PROB)
        else:
            head = FCOSHead(
                input_shape=shapes,
                num_classes=fcos.NUM_CLASSES,
                conv_dims=[shapes[0].channels] * fcos.NUM_CONVS,
                norm=fcos.NORM,
                prior_prob=fcos.PRIOR_PROB,
            )
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": fcos.IN_FEATURES,
            "point_matcher": PointMatcher(
                strategy=guidance.STRATEGY,
                sigma=guidance.SIGMA,
                center_sampling_radius=fcos.CENTER_SAMPLING_RADIUS,
                num_classes=fcos.NUM_CLASSES,
                memory_budget=guidance.MEMORY_BUDGET,
                num_positives=guidance.NUM_POSITIVES,
            ),
            "static_iters": guidance.STATIC_ITERS,
            "num_classes": fcos.NUM_CLASSES,
            "focal_loss_alpha": fcos.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": fcos.FOCAL_LOSS_GAMMA,
            "test_score_thresh": fcos.SCORE_THRESH_TEST,
            "test_topk_candidates": fcos.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": fcos.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward_training(self, images, features, predictions, gt_instances) -> dict[str, Tensor]:
        """Label the points by the predictions, then compute the losses of both tasks."""
        pred_logits, pred_deltas, pred_centerness = self._transpose_dense_predictions(
            predictions, [self.num_classes, 4, 1]
        )
        anchors = self.anchor_generator(features)
        predicted = (cat(pred_logits, dim=1), cat(pred_deltas, dim=1))
        assignment = self.label_anchors(anchors, gt_instances, *predicted)
        log_assignment(self, anchors, gt_instances, *predicted, assignment)
        return self.losses(
            anchors, pred_logits, pred_deltas, pred_centerness, assignment, gt_instances
        )

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
            anchors: of each level, a square of the stride's size around each point.
            gt_instances: of N images.
            pred_logits: (N, R, K). pred_deltas: (N, R, 4).
            strategy: in the place of the detector's own.

        Returns:
            The labels of all points for both tasks.
        """
        matcher = current_matcher(self.point_matcher, strategy, self.static_iters)
        return matcher(
            *_points(anchors),
            *gt_tensors(gt_instances),
            decode_boxes(self.box2box_transform, Boxes.cat(anchors), pred_deltas),
            pred_logits,
        )

    def prior(self, anchors: list[Boxes], candidates: Tensor, gt_boxes: Tensor) -> Tensor:
        """
        The static quality: centerness within the level's range of scales, of pairs of a point and
        a ground truth.

        Args:
            anchors: of each level. candidates: (P,) in [0, R). gt_boxes: (P, 4).

        Returns:
            (P,) in [0, 1].
        """
        points = Points(*_points(anchors), self.point_matcher.center_sampling_radius)
        return points.qualities(gt_boxes.t(), candidates)["prior"]

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        pred_deltas: list[Tensor],
        pred_centerness: list[Tensor],
        assignment: Assignment,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """
        Args:
            anchors, pred_*: of each level; predictions (N, Ri, K, 4 or 1).
            assignment: the labels of both tasks. gt_instances: of N images.

        Returns:
            "loss_fcos_cls", divided by the classification positives, "loss_fcos_loc" and
            "loss_fcos_ctr", divided by the localisation positives.
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
        loss_loc = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            [deltas.float() for deltas in pred_deltas],  # half precision has no room for pixels
            gt_boxes,
            assignment.loc_mask,
            box_reg_loss_type="giou",
        )
        targets = self.compute_ctrness_targets(anchors, gt_boxes)[assignment.loc_mask]
        logits = cat(pred_centerness, dim=1).squeeze(2)[assignment.loc_mask]
        loss_ctr = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return {
            "loss_fcos_cls": loss_cls / num_cls,
            "loss_fcos_loc": loss_loc / num_loc,
            "loss_fcos_ctr": loss_ctr / num_loc,
        }


def _points(anchors: list[Boxes]) -> tuple[Tensor, Tensor, Tensor]:
    """Points (R, 2), their strides (R,) in pixels and levels (R,), of the anchors of each level."""
    levels = [torch.full((len(a),), i, device=a.device) for i, a in enumerate(anchors)]
    anchors = Boxes.cat(anchors)
    return anchors.get_centers(), anchors.tensor[:, 2] - anchors.tensor[:, 0], torch.cat(levels)
