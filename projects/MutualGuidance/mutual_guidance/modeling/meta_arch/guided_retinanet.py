"""
RetinaNet with separate labels for its two tasks.

Shape symbols: N images, R anchors an image, P positives of localisation.
"""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes
from torch import Tensor

from ...assignment import AnchorMatcher, Assignment, GroundTruths
from ...assignment.candidates import Anchors
from ..head import PerLevelHead
from ..losses import balanced_l1_loss
from .common import loss_normalizers
from .guided import DensePredictions, Guided

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
        guidance, retinanet = cfg.MODEL.MUTUAL_GUIDANCE, cfg.MODEL.RETINANET
        if guidance.HEAD == "per_level":
            shapes = ret["backbone"].output_shape()
            ret["head"] = PerLevelHead(
                [shapes[f] for f in retinanet.IN_FEATURES],
                retinanet.NUM_CLASSES,
                ret["anchor_generator"].num_anchors[0],
                retinanet.PRIOR_PROB,
            )
        ret["matcher"] = cls.build_matcher(cfg)
        ret["static_iters"] = guidance.STATIC_ITERS
        ret["cls_target"] = guidance.CLS_TARGET
        ret["balanced_l1"] = {
            "alpha": retinanet.BALANCED_L1_ALPHA,
            "gamma": retinanet.BALANCED_L1_GAMMA,
            "beta": retinanet.BALANCED_L1_BETA,
        }
        return ret

    @classmethod
    def build_matcher(cls, cfg) -> AnchorMatcher:
        guidance, retinanet = cfg.MODEL.MUTUAL_GUIDANCE, cfg.MODEL.RETINANET
        return AnchorMatcher(
            strategy=guidance.STRATEGY,
            sigma=guidance.SIGMA,
            iou_thresholds=tuple(retinanet.IOU_THRESHOLDS),
            num_classes=retinanet.NUM_CLASSES,
            memory_budget=guidance.MEMORY_BUDGET,
            num_positives=guidance.NUM_POSITIVES,
        )

    def candidates(self, anchors: list[Boxes]) -> Anchors:
        return self.matcher.candidates(Boxes.cat(anchors).tensor, [len(a) for a in anchors])

    def guided_losses(
        self, dense: DensePredictions, truth: GroundTruths, assignment: Assignment
    ) -> dict[str, Tensor]:
        """
        Returns:
            "loss_cls" and "loss_box_reg", divided by the positives of each task.
        """
        num_cls, num_loc = loss_normalizers(assignment)
        loss_cls = self.cls_loss(dense, truth, assignment)
        gt_boxes = truth.boxes_at(assignment.loc_gt_inds)
        loss_box_reg = self._box_loss(dense, gt_boxes, assignment.loc_mask)
        return {"loss_cls": loss_cls / num_cls, "loss_box_reg": loss_box_reg / num_loc}

    def _box_loss(self, dense: DensePredictions, gt_boxes: Tensor, loc_mask: Tensor) -> Tensor:
        """
        Sum over the positives (N, R) of localisation, towards the boxes (N, R, 4); balanced L1 is
        the mean of four deltas.
        """
        if self.box_reg_loss_type != "balanced_l1":
            return _dense_box_regression_loss(
                dense.anchors,
                self.box2box_transform,
                [dense.deltas],
                list(gt_boxes),
                loc_mask,
                box_reg_loss_type=self.box_reg_loss_type,
                smooth_l1_beta=self.smooth_l1_beta,
            )
        positives = loc_mask.flatten().nonzero().squeeze(1)  # (P,)
        anchors = Boxes.cat(dense.anchors).tensor.repeat(len(gt_boxes), 1)
        targets = self.box2box_transform.get_deltas(
            anchors[positives], gt_boxes.flatten(0, 1)[positives]
        )
        preds = dense.deltas.flatten(0, 1)[positives]
        return balanced_l1_loss(preds, targets, reduction="sum", **self.balanced_l1) / 4
