"""Evaluators."""

from .build import build_evaluator
from .pascal_voc import PascalVOCEvaluator

__all__ = ["PascalVOCEvaluator", "build_evaluator"]
