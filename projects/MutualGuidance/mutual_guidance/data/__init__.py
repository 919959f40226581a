"""Data sets and augmentation."""

from .augmentation import build_augmentations
from .faults import DatasetError
from .register import check_datasets, register_datasets
from .voc import load_voc

__all__ = [
    "DatasetError",
    "build_augmentations",
    "check_datasets",
    "load_voc",
    "register_datasets",
]
