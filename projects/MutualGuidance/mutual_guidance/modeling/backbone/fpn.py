"""The pyramid of Detectron2's FCOS, which Detectron2 has for Python configs alone."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_resnet_backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_p5_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Make a ResNet-FPN whose p6 and p7 come of p5, where RetinaNet's come of res5."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(channels, channels, in_feature="p5"),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
