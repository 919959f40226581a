"""Trunks, pyramids, heads, losses and detectors; importing registers them with Detectron2."""

from .backbone import FSSDPyramid, TopDownPyramid
from .head import PerLevelHead
from .losses import balanced_l1_loss
from .meta_arch import GuidedRetinaNet

__all__ = [
    "FSSDPyramid",
    "GuidedRetinaNet",
    "PerLevelHead",
    "TopDownPyramid",
    "balanced_l1_loss",
]
