#!/usr/bin/env python3
"""Mutual Guidance in a Detectron2 model of your own: here, a subclass of its RetinaNet.

    python examples/detectron2_model.py     # the losses of one drawn batch

The class is all that it takes: what its candidates are and what its losses make of their labels,
here a smooth L1 loss, whatever the config's, on Detectron2's own head. Curves, pictures of
assignments and export work with it from Python; docs/design.md tells what train_net.py and the
tools want besides. It is registered, so that META_ARCHITECTURE names it in a config.
(For a RetinaNet or FCOS as Detectron2 has it, no class is needed: name GuidedRetinaNet or
GuidedFCOS after `from mutual_guidance import add_mutual_guidance_config`. One that differs by its
head or pyramid alone is a subclass of these two.)
"""

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from fvcore.nn import smooth_l1_loss

from mutual_guidance import add_mutual_guidance_config
from mutual_guidance.assignment import AnchorMatcher
from mutual_guidance.modeling.meta_arch import Guided, loss_normalizers, matcher_keys


@META_ARCH_REGISTRY.register()
class OwnRetinaNet(Guided, RetinaNet):
    candidate_kind, prior_name = "boxes", "anchor_iou"

    @classmethod
    def build_matcher(cls, cfg):
        return AnchorMatcher(iou_thresholds=cfg.MODEL.RETINANET.IOU_THRESHOLDS, **matcher_keys(cfg))

    @classmethod
    def from_config(cls, cfg):
        return {**super().from_config(cfg), **cls.guided_args(cfg)}

    def candidates(self, anchors):
        return self.matcher.candidates(Boxes.cat(anchors).tensor, list(map(len, anchors)))

    def guided_losses(self, dense, truth, assignment):
        loss_cls, cls_weight = self.cls_loss(dense, truth, assignment)
        num_cls, num_loc = loss_normalizers(assignment, cls_weight)
        chosen = assignment.loc_mask
        anchors = Boxes.cat(dense.anchors).tensor.expand_as(dense.deltas)[chosen]
        boxes = truth.boxes_at(assignment.loc_gt_inds)[chosen]
        targets = self.box2box_transform.get_deltas(anchors, boxes)
        loss_box_reg = smooth_l1_loss(dense.deltas[chosen], targets, beta=0.1, reduction="sum")
        return {"loss_cls": loss_cls / num_cls, "loss_box_reg": loss_box_reg / num_loc}


def config() -> CfgNode:
    """A RetinaNet on a ResNet-18, from random weights."""
    cfg = get_cfg()
    add_mutual_guidance_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "OwnRetinaNet"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size, size * 1.5] for size in (32, 64, 128, 256, 512)]
    return cfg


def main() -> None:
    torch.manual_seed(0)
    model = build_model(config()).train()
    instances = Instances((128, 128))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 70.0, 90.0], [50.0, 40.0, 120.0, 80.0]]))
    instances.gt_classes = torch.tensor([3, 7])
    image = torch.randint(0, 256, (3, 128, 128), dtype=torch.float32)
    with EventStorage():  # a training has one, and advances its iter
        losses = model([{"image": image, "instances": instances}])
    print(", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))


if __name__ == "__main__":
    main()
