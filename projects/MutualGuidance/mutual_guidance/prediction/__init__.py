"""What a trained detector finds in images, folders and videos, written to files as it goes."""

from .run import Summary, predict_all
from .writers import (
    CocoJson,
    DrawnImages,
    DrawnVideo,
    VocText,
    Writer,
    check_outputs,
    check_voc_ids,
)

__all__ = [
    "CocoJson",
    "DrawnImages",
    "DrawnVideo",
    "Summary",
    "VocText",
    "Writer",
    "check_outputs",
    "check_voc_ids",
    "predict_all",
]
