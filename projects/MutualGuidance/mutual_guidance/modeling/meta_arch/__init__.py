"""Detectors; importing registers them."""

from .guided_fcos import GuidedFCOS
from .guided_retinanet import GuidedRetinaNet
from .ssd_family import FSSD, RFBNet

__all__ = ["FSSD", "GuidedFCOS", "GuidedRetinaNet", "RFBNet"]
