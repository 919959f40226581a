"""Mutual Guidance for Anchor Matching (Zhang et al., ACCV 2020), as a Detectron2 project."""
