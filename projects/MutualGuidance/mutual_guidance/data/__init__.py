"""Data sets and augmentation."""

from .loader import build_train_loader
from .mapper import build_mapper
from .register import check_datasets, register_datasets
from .voc import load_voc

__all__ = [
    "build_mapper",
    "build_train_loader",
    "check_datasets",
    "load_voc",
    "register_datasets",
]
