"""Trunks and pyramids; importing registers their builders."""

from . import fpn  # noqa: F401
from .fssd import FSSDPyramid, TopDownPyramid
from .rfb import RFBPyramid
from .vgg import VGG16

__all__ = ["VGG16", "FSSDPyramid", "RFBPyramid", "TopDownPyramid"]
