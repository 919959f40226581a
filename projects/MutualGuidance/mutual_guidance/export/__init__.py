"""Detectors as files that run without this project: ONNX and torch.export."""

from .files import check_path, check_size, export_detector, load_exported
from .graph import DetectorGraph, Suppression
from .runtime import ExportedDetector, Parity, compare_outputs, verify

__all__ = [
    "DetectorGraph",
    "ExportedDetector",
    "Parity",
    "Suppression",
    "check_path",
    "check_size",
    "compare_outputs",
    "export_detector",
    "load_exported",
    "verify",
]
