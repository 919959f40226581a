"""
The images of a data set with their objects, as training and evaluation both read them.

Shape symbols: M objects of an image.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode

from .faults import CLIPPED, DROPPED, TOLD, Fault

# An object: its box (XYXY, pixels, float64), class, area in square pixels, and whether it is a
# crowd region or marked difficult. Aligned, so that PyTorch takes the boxes without a copy.
OBJECT = np.dtype(
    [("box", "f8", 4), ("area", "f8"), ("class", "i4"), ("crowd", "?"), ("difficult", "?")],
    align=True,
)
# Pixels by which a box may exceed the image, from rounding.
_ROUNDING = 1.0


class Record(NamedTuple):
    """An image and its objects, in little memory."""

    file_name: str
    image_id: Any  # unique in the data set
    width: int
    height: int
    objects: np.ndarray  # (M,) of OBJECT

    def as_dict(self) -> dict:
        """As Detectron2's data set dicts."""
        annotations = [
            {
                "category_id": category,
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "iscrowd": int(crowd),
            }
            for box, category, crowd in zip(
                self.objects["box"].tolist(),
                self.objects["class"].tolist(),
                self.objects["crowd"].tolist(),
                strict=True,
            )
        ]
        return {
            "file_name": self.file_name,
            "image_id": self.image_id,
            "width": self.width,
            "height": self.height,
            "annotations": annotations,
        }


class FoundObject(NamedTuple):
    """An object as a file gives it."""

    box: Sequence[float]  # XYXY, pixels
    category: int
    where: Any  # its line, or the id of its annotation
    area: float | None = None  # square pixels; None is the box's
    crowd: bool = False
    difficult: bool = False


def pack_objects(
    found: Sequence[FoundObject],
    width: int,
    height: int,
    file: str,
    unit: str = "line",
    first_pixel: int = 0,
) -> tuple[np.ndarray, list[Fault]]:
    """
    Args:
        found: in an image of that size. file: where, for the faults.
        first_pixel: what the file calls the first one: with 1 its corners are pixels of the box,
            as VOC's are, with 0 the edges beside them.

    Returns:
        (M,) of OBJECT without those of no use, boxes well beyond the image clipped to it, and
        what was dropped and clipped.
    """
    (objects,), faults = pack_images([found], [(width, height)], file, unit, first_pixel)
    return objects, faults


def pack_images(
    found_per_image: Sequence[Sequence[FoundObject]],
    sizes: Sequence[tuple[int, int]],
    file: str,
    unit: str = "line",
    first_pixel: int = 0,
) -> tuple[list[np.ndarray], list[Fault]]:
    """:func:`pack_objects` of all images of a file, with sizes of width and height, at once."""
    found = list(itertools.chain.from_iterable(found_per_image))
    images = np.repeat(np.arange(len(sizes)), [len(of_image) for of_image in found_per_image])
    edges = np.array(sizes)[images]  # (M, 2)
    objects = _as_array(found)
    boxes = objects["box"]
    again = _with_repeated(images, objects)
    reasons = _why_useless(boxes, edges + first_pixel)
    kept = np.array([not reason for reason in reasons], dtype=bool)
    boxes[:, :2] -= first_pixel
    edges = np.tile(edges, 2)
    wide = kept & (np.maximum(-boxes, boxes - edges) > _ROUNDING).any(axis=1)
    boxes[wide] = boxes[wide].clip(0, edges[wide])
    told = [(i, reason, DROPPED) for i, reason in enumerate(reasons) if reason]
    told += [(i, "box reaches beyond its image", CLIPPED) for i in wide.nonzero()[0]]
    faults = [Fault(file, reason, _detail(found[i], unit), effect) for i, reason, effect in told]
    for i in again:
        faults += _told_twice(found_per_image[i], file, unit)
    objects = objects[kept]
    areas = (objects["box"][:, 2:] - objects["box"][:, :2]).prod(axis=1)
    objects["area"] = np.where(np.isnan(objects["area"]), areas, objects["area"])
    ends = np.bincount(images[kept], minlength=len(sizes)).cumsum()
    return np.split(objects, ends[:-1]), faults


def share_faults(name: str, records: Sequence[Record]) -> list[Fault]:
    """That every box of a data set lies in the first pixel of its image, as one of shares would."""
    boxes = [record.objects["box"] for record in records if len(record.objects)]
    if not boxes or any((of_image > 1).any() for of_image in boxes):
        return []
    reason = "boxes look like shares (0 to 1) of the image's width and height: write pixels"
    return [Fault(name, reason)]


def _as_array(found: Sequence[FoundObject]) -> np.ndarray:
    """(M,) of OBJECT, NaN where the area is the box's."""
    objects = np.zeros(len(found), OBJECT)
    if not found:
        return objects
    boxes, classes, _, areas, crowds, difficult = zip(*found, strict=True)
    coordinates = itertools.chain.from_iterable(boxes)
    objects["box"] = np.fromiter(coordinates, np.float64, 4 * len(found)).reshape(-1, 4)
    objects["area"] = [math.nan if area is None else area for area in areas]
    objects["class"], objects["crowd"], objects["difficult"] = classes, crowds, difficult
    return objects


def _why_useless(boxes: np.ndarray, edges: np.ndarray) -> list[str | None]:
    """Why a box (M, 4) of an image of that size (M, 2) is of no use; None where it is of use."""
    low, high = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):
        conditions = {
            "box is not finite": ~np.isfinite(boxes).all(axis=1),
            "box is inverted or without area": (high <= low).any(axis=1),
            "box is outside the image": ((high <= 0) | (low >= edges)).any(axis=1),
            "box reaches more than a whole image beyond the image": (
                (low < -edges) | (high > 2 * edges)
            ).any(axis=1),
        }
    reasons: list[str | None] = [None] * len(boxes)
    for reason, holds in reversed(conditions.items()):  # the first one is told
        for i in holds.nonzero()[0]:
            reasons[i] = reason
    return reasons


def _with_repeated(images: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Which images have objects of one box and class, of the image of each object (M,)."""
    values = np.column_stack([images, objects["class"], objects["box"]])
    values = values[np.lexsort(values.T)]
    return np.unique(values[1:][(values[1:] == values[:-1]).all(axis=1), 0]).astype(int)


def _told_twice(found: Sequence[FoundObject], file: str, unit: str) -> list[Fault]:
    """What to tell of objects that are given again."""
    first = {}
    again = [o for o in found if first.setdefault((tuple(o.box), o.category), o) is not o]
    return [Fault(file, "object stands there twice", _detail(o, unit), TOLD) for o in again]


def _detail(found: FoundObject, unit: str) -> str:
    return f"{unit} {found.where}: {[float(v) for v in found.box]}"
