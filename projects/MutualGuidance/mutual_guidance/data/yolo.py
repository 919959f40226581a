"""
Data sets in YOLO's layout: images, and a label file for each, in a folder beside theirs.

The labels of ``images/train/a.jpg`` are in ``labels/train/a.txt``, a line ``class x y w h`` an
object: the index of its class, then its centre and size as shares of the image's width and height.
Of a polygon (``class x1 y1 x2 y2 x3 y3 ...``) and of keypoints (behind ``class x y w h``) the box
is taken.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import DatasetError
from .classes import ClassPicker, confusable
from .faults import TOLD, Fault, repeated
from .files import how_named, parse_number, plain_name, read_text, walk_files
from .images import IMAGE_SUFFIXES, has_image_suffix, image_sizes
from .records import FoundObject, Record, pack_objects
from .yolo_yaml import YOLONames

# Coordinates may exceed 1 by this much, from rounding.
_TOLERANCE = 1e-2
_POLYGON = 6  # coordinates at least
_MAX_SHOWN = 60  # characters of a line
_MAX_OF_BOX = 9  # values of a line: a class and four corners
_MANY = 10  # lines


def load_yolo(
    root: str, sources: Sequence[str], names: YOLONames, classes: Sequence[str]
) -> tuple[list[Record], list[Fault]]:
    """
    Read images and their labels.

    Args:
        root: the data set. sources: folders of images and text files that list images, below it.
        names: what the indices of the labels mean.
        classes: names, in the order of their indices; objects of others are left out.

    Returns:
        Records and what was wrong. An image without a label file has no object.

    Raises:
        DatasetError: a source is missing or has no image, or no image has a label file.
    """
    paths = [path for source in sources for path in _images_of(root, source)]
    images = {path: label_path(path, root) for path in paths}
    faults = _faults_of_files(root, sources, images)
    faults += [Fault(path, "image is listed twice") for path in repeated(paths)]
    picker, lengths = ClassPicker(classes), Counter()
    records = []
    sizes = image_sizes(list(images), f"Checking {', '.join(sources)}")
    for index, ((path, label), size) in enumerate(zip(images.items(), sizes, strict=True)):
        if isinstance(size, ValueError):
            faults.append(Fault(path, str(size)))
            continue
        found, label_faults = _read_labels(label, size, names, picker, lengths)
        objects, object_faults = pack_objects(found, *size, label)
        faults += label_faults + object_faults
        records.append(Record(path, index, *size, objects))
    faults += confusable(names.classes, names.file)
    faults += picker.faults(names.file, lambda: names.classes)
    if not names.keypoint_values and _may_be_keypoints(lengths):
        reason = "labels may be keypoints behind boxes, which need kpt_shape in data.yaml"
        faults.append(Fault(names.file, reason, "they all have as many values", TOLD))
    return records, faults


def _may_be_keypoints(lengths: Counter[int]) -> bool:
    """Whether so many lines, by how many values they have, are no polygons, which would vary."""
    return len(lengths) == 1 and max(lengths) > _MAX_OF_BOX and lengths.total() >= _MANY


def _images_of(root: str, source: str) -> list[str]:
    """Paths of the images of a folder or of a text file."""
    path = os.path.join(root, source)
    if os.path.isdir(path):
        paths = [p for p in walk_files(path) if has_image_suffix(p)]
        paths.sort(key=os.path.splitext)
    elif os.path.isfile(path) and not has_image_suffix(path):
        paths = _listed_images(path, root)
    else:
        raise DatasetError(
            f"{path} is missing: expected a folder of images or a text file that lists them; "
            "check root and images, or set DETECTRON2_DATASETS to the folder that holds the data "
            "sets"
        )
    if not paths:
        raise DatasetError(f"{path} has no image ({', '.join(IMAGE_SUFFIXES)})")
    return paths


def _listed_images(path: str, root: str) -> list[str]:
    """Paths of the lines of a text file, see :func:`_listed_image`."""
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except ValueError as error:
        raise DatasetError(f"{path} {error}; it must list an image's path a line") from error
    return [_listed_image(line, os.path.dirname(path), root) for line in filter(None, lines)]


def _listed_image(line: str, folder: str, root: str) -> str:
    """
    The first of the paths that a line may mean at which there is a file, or else the first: below
    the list's folder, below the root, and the same without a leading "data/".
    """
    meant = [line, line.removeprefix("data/")]  # CVAT's are of where Darknet would have them
    paths = [os.path.normpath(os.path.join(b, m)) for m in meant for b in (folder, root)]
    return next(filter(os.path.isfile, paths), paths[0])


def label_path(image: str, root: str) -> str:
    """
    The label file of an image: the last folder called "images", below the root for an image that
    is below it, is "labels"; without such a folder the label lies beside its image.
    """
    above, path = os.path.abspath(root), os.path.abspath(image)
    is_below = os.path.commonpath([above, path]) == above
    folder, name = os.path.split(os.path.relpath(path, above) if is_below else path)
    parts = folder.split(os.sep)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    stem = os.path.splitext(name)[0]
    return os.path.normpath(
        os.path.join(root if is_below else "", os.sep.join(parts), f"{stem}.txt")
    )


def _faults_of_files(root: str, sources: Sequence[str], images: dict[str, str]) -> list[Fault]:
    """
    Labels that several images share, and labels in the folders of labels that have no image.

    Raises:
        DatasetError: no image has a label file.
    """
    if any(map(os.path.isfile, images)) and not any(map(os.path.isfile, images.values())):
        image, label = next(iter(images.items()))
        raise DatasetError(
            f"none of {len(images)} images has a label file: that of {image} would be {label}"
        )
    faults = [
        Fault(label, "several images would share these labels: keep one of them")
        for label in repeated(images.values())
    ]
    folders = [p for p in (os.path.join(root, s) for s in sources) if os.path.isdir(p)]
    # Of the missing ones it is told where their images are read.
    known = {label if os.path.isfile(label) else _plain(label) for label in images.values()}
    for folder in folders:
        labels = os.path.dirname(label_path(os.path.join(folder, "image.jpg"), root))
        for path in walk_files(labels) if os.path.isdir(labels) else ():
            if {path, _plain(path)}.isdisjoint(known) and _has_labels(path):
                reason = "the image of these labels is missing: add it, or remove them"
                faults.append(Fault(path, reason))
    return faults


def _plain(path: str) -> str:
    """A path by which those of one folder that differ as :func:`how_named` tells are the same."""
    folder, name = os.path.split(path)
    return os.path.join(folder, plain_name(name))


def _has_labels(path: str) -> bool:
    """Whether a file beside the labels of images looks like one of them."""
    name = os.path.basename(path).lower()
    if not name.endswith(".txt") or name == "classes.txt":
        return False
    try:
        first, *_ = read_text(path).split(maxsplit=1) or ["0"]
        return math.isfinite(parse_number(first))
    except ValueError:
        return False
    except OSError:  # so is what cannot be read
        return True


def _read_labels(
    path: str, size: tuple[int, int], names: YOLONames, picker: ClassPicker, lengths: Counter[int]
) -> tuple[list[FoundObject], list[Fault]]:
    """
    The objects of a label file, which may be missing, and the lines that cannot be read. How many
    values lines have is counted in ``lengths``.
    """
    if not os.path.exists(path):
        how = how_named(path)
        reason = f"label file is missing: it is there {how}; correct that, or give an empty file"
        return [], [Fault(path, reason)] if how else []
    try:
        lines = read_text(path).splitlines()
    except ValueError as error:
        return [], [Fault(path, f"label file {error}")]
    found, faults = [], []
    for number, line in enumerate(lines, start=1):
        values = line.split()
        if not values:
            continue
        try:
            category = picker(names.classes[_class_index(values[0], len(names.classes))])
            shares = _shares(values[1:], names.keypoint_values)
        except ValueError as error:
            shown = line if len(line) <= _MAX_SHOWN else line[:_MAX_SHOWN] + "..."
            faults.append(Fault(path, str(error), f"line {number}: {shown}"))
            continue
        lengths[len(values)] += 1
        if category is not None:
            box = (np.array(shares) * (size * 2)).tolist()
            found.append(FoundObject(box, category, number))
    return found, faults


def _class_index(text: str, num_classes: int) -> int:
    """Raises ValueError with the reason."""
    indices = f"{num_classes} classes have the indices 0 to {num_classes - 1}"
    try:
        index = parse_number(text)
    except ValueError:
        raise ValueError(f"class {text!r} is not an index: {indices}") from None
    if not index.is_integer() or not 0 <= index < num_classes:
        raise ValueError(f"unknown class {text}: {indices}")
    return int(index)


def _shares(values: Sequence[str], keypoint_values: int) -> list[float]:
    """XYXY as shares of the image. Raises ValueError with the reason."""
    numbers = [parse_number(text) for text in values]
    if len(numbers) in (4, 4 + keypoint_values):
        numbers = numbers[:4]
    elif keypoint_values or len(numbers) < _POLYGON or len(numbers) % 2:
        raise ValueError(
            f"{len(numbers) + 1} values: a line is `class x y w h`, or a class and a polygon of "
            "x y x y x y ..., or keypoints behind a box, with kpt_shape in data.yaml"
        )
    if max(numbers) > 1 + _TOLERANCE:
        raise ValueError("values are not shares (0 to 1) of the image's width and height")
    if len(numbers) > 4:
        corners = np.reshape(numbers, (-1, 2))  # whose extremes, unlike Python's, keep a NaN
        return [*corners.min(axis=0), *corners.max(axis=0)]
    x, y, w, h = numbers
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
