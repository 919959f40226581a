"""Data sets and augmentation."""

from .loader import build_test_loader, build_train_loader
from .mapper import build_mapper
from .records import Record
from .register import check_datasets, records_of, register_datasets
from .voc import load_voc

__all__ = [
    "Record",
    "build_mapper",
    "build_test_loader",
    "build_train_loader",
    "check_datasets",
    "load_voc",
    "records_of",
    "register_datasets",
]
