"""Trunks, pyramids, heads, losses and detectors; importing registers them with Detectron2."""

from .backbone import VGG16, FSSDPyramid, RFBPyramid, TopDownPyramid
from .head import PerLevelFCOSHead, PerLevelHead
from .losses import balanced_l1_loss, focal_loss, iou_loss
from .meta_arch import FSSD, GuidedFCOS, GuidedRetinaNet, RFBNet

__all__ = [
    "FSSD",
    "FSSDPyramid",
    "GuidedFCOS",
    "GuidedRetinaNet",
    "PerLevelFCOSHead",
    "PerLevelHead",
    "RFBNet",
    "RFBPyramid",
    "TopDownPyramid",
    "VGG16",
    "balanced_l1_loss",
    "focal_loss",
    "iou_loss",
]
