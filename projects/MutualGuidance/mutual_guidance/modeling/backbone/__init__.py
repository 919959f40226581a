"""Trunks and pyramids; importing registers their builders."""

from .fssd import FSSDPyramid, TopDownPyramid

__all__ = ["FSSDPyramid", "TopDownPyramid"]
