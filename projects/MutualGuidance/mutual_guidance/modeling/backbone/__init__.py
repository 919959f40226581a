"""Trunks and pyramids; importing registers their builders."""

from .fssd import FSSDPyramid, TopDownPyramid
from .rfb import RFBPyramid
from .vgg import VGG16

__all__ = ["VGG16", "FSSDPyramid", "RFBPyramid", "TopDownPyramid"]
