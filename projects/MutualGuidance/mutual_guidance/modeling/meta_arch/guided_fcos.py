"""
FCOS, buildable from YAML, with separate labels for its two tasks.

Shape symbols: N images, R points an image.
"""

import torch
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes
from torch import Tensor
from torch.nn import functional as F

from ...assignment import Assignment, GroundTruths, PointMatcher, centerness
from ...assignment.candidates import Points
from ...assignment.quality import side_distances
from ..head import PerLevelFCOSHead
from ..losses import iou_loss
from .common import loss_normalizers, matched_boxes, sum_of
from .guided import DensePredictions, Guided, decode_boxes, has_per_level_head, matcher_keys


@META_ARCH_REGISTRY.register()
class GuidedFCOS(Guided, FCOS):
    """
    Detectron2's FCOS whose points are labelled for each task apart (supplementary of the paper).
    Centerness is trained where localisation is. Arguments: see :class:`Guided` and Detectron2's
    FCOS.
    """

    candidate_kind = "points"
    prior_name = "centerness"

    @classmethod
    def from_config(cls, cfg) -> dict:
        fcos = cfg.MODEL.FCOS
        backbone = build_backbone(cfg)
        shapes = [backbone.output_shape()[f] for f in fcos.IN_FEATURES]
        if has_per_level_head(cfg):
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
            **cls.guided_args(cfg),
            "num_classes": fcos.NUM_CLASSES,
            "center_sampling_radius": fcos.CENTER_SAMPLING_RADIUS,
            "focal_loss_alpha": fcos.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": fcos.FOCAL_LOSS_GAMMA,
            "test_score_thresh": fcos.SCORE_THRESH_TEST,
            "test_topk_candidates": fcos.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": fcos.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @classmethod
    def build_matcher(cls, cfg) -> PointMatcher:
        fcos = cfg.MODEL.FCOS
        return PointMatcher(
            center_sampling_radius=fcos.CENTER_SAMPLING_RADIUS,
            num_classes=fcos.NUM_CLASSES,
            **matcher_keys(cfg),
        )

    def candidates(self, anchors: list[Boxes]) -> Points:
        sizes = [len(a) for a in anchors]
        squares = Boxes.cat(anchors)
        levels = [torch.full((n,), i, device=squares.device) for i, n in enumerate(sizes)]
        strides = squares.tensor[:, 2] - squares.tensor[:, 0]
        return self.matcher.candidates(squares.get_centers(), strides, torch.cat(levels), sizes)

    def scores(self, dense: DensePredictions) -> Tensor:
        """The geometric mean of class score and centerness, as in Detectron2's inference."""
        return (dense.logits.sigmoid() * dense.centerness.sigmoid()).sqrt()

    def guided_losses(
        self, dense: DensePredictions, truth: GroundTruths, assignment: Assignment
    ) -> dict[str, Tensor]:
        """
        Returns:
            "loss_fcos_cls", "loss_fcos_loc" and "loss_fcos_ctr", divided as
            :func:`loss_normalizers` says.
        """
        loss_cls, cls_weight = self.cls_loss(dense, truth, assignment)
        num_cls, num_loc = loss_normalizers(assignment, cls_weight)
        gt_boxes = matched_boxes(dense.anchors, truth, assignment)
        # In float32, since half precision has no room for pixels.
        boxes = decode_boxes(self.box2box_transform, dense.anchors, dense.deltas)
        loss_loc = sum_of(iou_loss(boxes, gt_boxes), assignment.loc_mask)
        points = Boxes.cat(dense.anchors).get_centers()
        targets = centerness(side_distances(points.t()[:, None], gt_boxes.movedim(2, 0)))
        losses = F.binary_cross_entropy_with_logits(
            dense.centerness.squeeze(2), targets, reduction="none"
        )
        loss_ctr = sum_of(losses, assignment.loc_mask)
        return {
            "loss_fcos_cls": loss_cls / num_cls,
            "loss_fcos_loc": loss_loc / num_loc,
            "loss_fcos_ctr": loss_ctr / num_loc,
        }
