"""Evaluators."""

from .build import build_evaluator
from .candidates import candidates_in_outputs
from .misalignment import MisalignmentEvaluator
from .pascal_voc import PascalVOCEvaluator

__all__ = [
    "MisalignmentEvaluator",
    "PascalVOCEvaluator",
    "build_evaluator",
    "candidates_in_outputs",
]
