"""Images of a data set with their ground truth, always prepared the same way."""

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data import detection_utils as utils

from ..data.mapper import build_mapper
from ..errors import DatasetError, printable


class GroundTruthImage(NamedTuple):
    """An image as a detector sees it in testing, with its ground truth."""

    name: str  # stem of the file; what cannot be printed of it stands as escapes
    pixels: np.ndarray  # (H, W, 3) uint8, RGB
    inputs: dict  # of a detector: image (3, H, W) and instances


def first_annotated(dataset_names: Sequence[str], count: int) -> list[dict]:
    """
    The first ``count`` records with an object that is no crowd, or as many as there are. Of several
    files of one name in different folders only the first is taken.
    """
    chosen = {}
    for record in _records(dataset_names):
        if len(chosen) >= count:
            break
        if _has_object(record):
            chosen.setdefault(_stem(record), record)
    return list(chosen.values())


def with_ids(dataset_names: Sequence[str], image_ids: Sequence[str | int]) -> list[dict]:
    """
    The records with these image ids, as text or as numbers, or with files of these names without
    their suffix.

    Raises:
        DatasetError: there is none, it has no object, or two files are of one id or name.
    """
    image_ids = [str(image_id) for image_id in image_ids]
    records, names = list(_records(dataset_names)), ", ".join(dataset_names)
    chosen = [_with_id(records, image_id, names) for image_id in image_ids]
    if len({_stem(record) for record in chosen}) < len(chosen):
        raise DatasetError(f"images {', '.join(image_ids)}: two of them have the same file name")
    return chosen


def _with_id(records: Sequence[dict], image_id: str, names: str) -> dict:
    of_id = {r["file_name"]: r for r in records if str(r["image_id"]) == image_id}
    found = of_id or {r["file_name"]: r for r in records if printable(_stem(r)) == image_id}
    if not found:
        known = dict.fromkeys(k for r in records for k in (printable(_stem(r)), str(r["image_id"])))
        near = difflib.get_close_matches(image_id, known) or list(known)[:3]
        raise DatasetError(
            f"no image {image_id!r} in {names}; there are, for example, {', '.join(near)}"
        )
    if len(found) > 1:
        raise DatasetError(
            f"{image_id!r} means several images, {' and '.join(list(found)[:2])}: give the id of "
            "one, or DATASETS.TRAIN one data set"
        )
    (record,) = found.values()
    if not _has_object(record):
        raise DatasetError(f"image {image_id!r} of {names} has no object: nothing is assigned")
    return record


def load_image(cfg: CfgNode, record: dict) -> GroundTruthImage:
    """
    Read the image and resize it with its boxes as for testing; crowds are left out.

    Raises:
        DatasetError: the image cannot be read or resized.
    """
    mapper = build_mapper(cfg, is_train=False)
    mapper.is_train = True  # with the objects
    inputs = mapper(record)
    pixels = inputs["image"].permute(1, 2, 0).numpy()
    return GroundTruthImage(
        name=printable(_stem(record)),
        pixels=utils.convert_image_to_rgb(pixels, cfg.INPUT.FORMAT).astype(np.uint8),
        inputs={key: inputs[key] for key in ("image", "instances")},
    )


def _records(dataset_names: Sequence[str]) -> Iterator[dict]:
    """Of all data sets; the next one is only read when the one before is used up."""
    for name in dataset_names:
        yield from DatasetCatalog.get(name)


def _has_object(record: dict) -> bool:
    """That is no crowd."""
    return any(not a.get("iscrowd", 0) for a in record.get("annotations", ()))


def _stem(record: dict) -> str:
    return os.path.splitext(os.path.basename(record["file_name"]))[0]
