"""
RetinaNet with separate labels for its two tasks.

Shape symbols: N images, R anchors an image.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes
from fvcore.nn import smooth_l1_loss
from torch import Tensor

from ...assignment import AnchorMatcher, Assignment, GroundTruths
from ...assignment.candidates import Anchors
from ..head import PerLevelHead
from ..losses import balanced_l1_loss, iou_loss
from .common import box_targets, loss_normalizers, matched_boxes, sum_of
from .guided import DensePredictions, Guided, decode_boxes, has_per_level_head, matcher_keys

BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou", "balanced_l1")


@META_ARCH_REGISTRY.register()
class GuidedRetinaNet(Guided, RetinaNet):
    """Detectron2's RetinaNet whose anchors are labelled for each task apart."""

    candidate_kind = "boxes"
    prior_name = "anchor_iou"

    @configurable
    def __init__(self, *, balanced_l1: dict[str, float] | None = None, **kwargs) -> None:
        """
        Args:
            balanced_l1: alpha, gamma and beta of :func:`balanced_l1_loss`, used where
                ``box_reg_loss_type`` is "balanced_l1".
            kwargs: see :class:`Guided` and :class:`detectron2.modeling.meta_arch.RetinaNet`.

        Raises:
            ValueError: ``box_reg_loss_type`` is none of ``BOX_LOSSES``.
        """
        super().__init__(**kwargs)
        if self.box_reg_loss_type not in BOX_LOSSES:
            raise ValueError(
                f"MODEL.RETINANET.BBOX_REG_LOSS_TYPE must be one of {', '.join(BOX_LOSSES)}, got "
                f"{self.box_reg_loss_type!r}"
            )
        self.balanced_l1 = balanced_l1 or {}

    @classmethod
    def from_config(cls, cfg) -> dict:
        ret = super().from_config(cfg)
        retinanet = cfg.MODEL.RETINANET
        if has_per_level_head(cfg):
            shapes = ret["backbone"].output_shape()
            ret["head"] = PerLevelHead(
                [shapes[f] for f in retinanet.IN_FEATURES],
                retinanet.NUM_CLASSES,
                ret["anchor_generator"].num_anchors[0],
                retinanet.PRIOR_PROB,
            )
        ret["balanced_l1"] = {
            "alpha": retinanet.BALANCED_L1_ALPHA,
            "gamma": retinanet.BALANCED_L1_GAMMA,
            "beta": retinanet.BALANCED_L1_BETA,
        }
        return {**ret, **cls.guided_args(cfg)}

    @classmethod
    def build_matcher(cls, cfg) -> AnchorMatcher:
        retinanet = cfg.MODEL.RETINANET
        return AnchorMatcher(
            iou_thresholds=tuple(retinanet.IOU_THRESHOLDS),
            num_classes=retinanet.NUM_CLASSES,
            **matcher_keys(cfg),
        )

    def candidates(self, anchors: list[Boxes]) -> Anchors:
        return self.matcher.candidates(Boxes.cat(anchors).tensor, [len(a) for a in anchors])

    def guided_losses(
        self, dense: DensePredictions, truth: GroundTruths, assignment: Assignment
    ) -> dict[str, Tensor]:
        """
        Returns:
            "loss_cls" and "loss_box_reg", divided as :func:`loss_normalizers` says.
        """
        loss_cls, cls_weight = self.cls_loss(dense, truth, assignment)
        num_cls, num_loc = loss_normalizers(assignment, cls_weight)
        gt_boxes = matched_boxes(dense.anchors, truth, assignment)
        box_losses = self._box_losses(dense, gt_boxes, assignment.loc_mask)
        loss_box_reg = sum_of(box_losses, assignment.loc_mask)
        return {"loss_cls": loss_cls / num_cls, "loss_box_reg": loss_box_reg / num_loc}

    def _box_losses(self, dense: DensePredictions, gt_boxes: Tensor, mask: Tensor) -> Tensor:
        """
        Loss (N, R) of each anchor in the mask (N, R) towards its box (N, R, 4), the sum over four
        deltas; of balanced L1 it is the mean.
        """
        kind = self.box_reg_loss_type
        if kind in ("giou", "diou", "ciou"):
            # Of boxes without height, CIoU's gradient is not finite, nor is nothing times it.
            deltas = torch.where(mask[..., None], dense.deltas, 0.0)
            boxes = decode_boxes(self.box2box_transform, dense.anchors, deltas)
            return iou_loss(boxes, gt_boxes, kind)
        anchors = Boxes.cat(dense.anchors).tensor
        targets = box_targets(self.box2box_transform, anchors, gt_boxes)
        if kind == "balanced_l1":
            return balanced_l1_loss(dense.deltas, targets, **self.balanced_l1).sum(dim=2) / 4
        return smooth_l1_loss(dense.deltas, targets, self.smooth_l1_beta).sum(dim=2)
