"""Data sets and augmentation."""

from .faults import DatasetError
from .mapper import build_mapper
from .register import check_datasets, register_datasets
from .voc import load_voc

__all__ = [
    "DatasetError",
    "build_mapper",
    "check_datasets",
    "load_voc",
    "register_datasets",
]
