"""Detectors; importing registers them."""

from .common import loss_normalizers
from .guided import DensePredictions, Guided, ground_truths, matcher_keys
from .guided_fcos import GuidedFCOS
from .guided_retinanet import GuidedRetinaNet
from .ssd_family import FSSD, RFBNet

__all__ = [
    "FSSD",
    "DensePredictions",
    "Guided",
    "GuidedFCOS",
    "GuidedRetinaNet",
    "RFBNet",
    "ground_truths",
    "loss_normalizers",
    "matcher_keys",
]
