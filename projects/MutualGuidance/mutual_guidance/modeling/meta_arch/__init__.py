"""Detectors; importing registers them."""

from .guided_retinanet import GuidedRetinaNet

__all__ = ["GuidedRetinaNet"]
