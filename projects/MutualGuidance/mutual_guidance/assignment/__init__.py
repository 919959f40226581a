"""
Label assignment of Mutual Guidance (Zhang et al., ACCV 2020), in plain PyTorch.

:class:`AnchorMatcher` labels anchors, :class:`PointMatcher` the points of FCOS. Nothing here
imports Detectron2: the package can be used in any PyTorch detector.
"""

from .assign import Assignment
from .matcher import AnchorMatcher, PointMatcher
from .quality import amplify, box_iou, centerness
from .strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "AnchorMatcher",
    "Assignment",
    "PointMatcher",
    "amplify",
    "box_iou",
    "centerness",
]
