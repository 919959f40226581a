"""
Data sets in YOLO's layout: a folder of images, and a folder of labels beside it.

The labels of ``images/train/a.jpg`` are in ``labels/train/a.txt``, a line ``class x y w h`` an
object: the index of its class, then its centre and size as shares of the image's width and height.
"""

import os
from collections.abc import Sequence

import yaml
from detectron2.structures import BoxMode
from tqdm import tqdm

from ..errors import DatasetError
from .faults import Fault, box_fault, repeated
from .images import IMAGE_SUFFIXES, image_size

_NAMES_FILE = "data.yaml"
# Centres and sizes may exceed 1 by this much, from rounding.
_TOLERANCE = 1e-2


def load_yolo(root: str, images: str, classes: Sequence[str]) -> tuple[list[dict], list[Fault]]:
    """
    Read the images of a folder and their labels.

    Args:
        root: the data set. images: folder of the images below it, like images/train or
            train/images. Its last part named "images" is "labels" for the labels; without such a
            part they lie beside the images.
        classes: names, in the order of their indices.

    Returns:
        Detectron2's data set dicts, boxes XYXY in pixels, and what was wrong. An image without a
        label file has no object. Degenerate boxes are left out of the dicts.

    Raises:
        DatasetError: a folder is missing or has no image.
    """
    image_folder = os.path.join(root, images)
    label_folder = os.path.join(root, _labels_beside(images))
    paths = _files(image_folder, IMAGE_SUFFIXES)
    if not paths:
        raise DatasetError(f"{image_folder} has no image ({', '.join(IMAGE_SUFFIXES)})")
    label_paths = _files(label_folder, (".txt",))
    records, faults = [], []
    for index, (stem, path) in enumerate(
        tqdm(paths.items(), desc=f"Checking {images}", leave=False)
    ):
        try:
            width, height = image_size(path)
        except ValueError as error:
            faults.append(Fault(path, str(error), True))
            continue
        objects = []
        if stem in label_paths:
            objects, label_faults = _read_labels(label_paths[stem], width, height, classes)
            faults += label_faults
        records.append(
            {
                "file_name": path,
                "image_id": index,
                "width": width,
                "height": height,
                "annotations": objects,
            }
        )
    orphans = label_paths.keys() - paths.keys() - {"classes"}  # classes.txt lists the names
    faults += [Fault(label_paths[stem], "its image is missing", True) for stem in sorted(orphans)]
    return records, faults


def read_names(root: str) -> list[str]:
    """
    Names of the classes, from ``names`` of the data set's data.yaml, a list or a mapping by index.

    Raises:
        DatasetError: no such file or entry, or names that stand twice.
    """
    path = os.path.join(root, _NAMES_FILE)
    try:
        with open(path, encoding="utf-8") as f:
            names = yaml.safe_load(f)["names"]
        if isinstance(names, dict):
            names = [names[i] for i in range(len(names))]
        if not all(isinstance(name, (str, int)) for name in names):
            raise TypeError("a name is neither text nor a number")
        names = [str(name) for name in names]
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: put it there, or list the classes") from error
    except (ValueError, TypeError, LookupError, yaml.YAMLError) as error:
        raise DatasetError(
            f"{path} has no readable names of the classes ({type(error).__name__}): expected "
            "names: [first, second]"
        ) from error
    if repeated(names) or not names:
        raise DatasetError(f"{path}: the names are {names}; they must be some, and no two alike")
    return names


def _labels_beside(images: str) -> str:
    """The folder of the labels, below the root as that of the images is."""
    parts = os.path.normpath(images).split(os.sep)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return os.sep.join(parts)


def _files(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Relative path without suffix -> path, of the files below a folder, sorted."""
    if not os.path.isdir(folder):
        raise DatasetError(
            f"{folder} is missing: expected YOLO's layout there; check root and images, or set "
            "DETECTRON2_DATASETS to the folder that holds the data sets"
        )
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            stem, suffix = os.path.splitext(os.path.join(os.path.relpath(parent, folder), name))
            stem = os.path.normpath(stem)
            if suffix.lower() not in suffixes:
                continue
            if stem in found:
                raise DatasetError(f"{folder}: {name} and {found[stem]} would share their labels")
            found[stem] = os.path.join(parent, name)
    return dict(sorted(found.items()))


def _read_labels(
    path: str, width: int, height: int, classes: Sequence[str]
) -> tuple[list[dict], list[Fault]]:
    """Annotations in Detectron2's format, and the faults of the lines left out."""
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.read().splitlines()
    except ValueError:
        return [], [Fault(path, "label file is not text", True)]
    objects, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            category, box = _parse(line, width, height, len(classes))
        except ValueError as error:
            faults.append(Fault(path, f"line {number}: {error}", True))
            continue
        reason = box_fault(box, width, height)
        if reason:
            faults.append(Fault(path, f"line {number}: {reason}", False))
            continue
        objects.append({"category_id": category, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS})
    return objects, faults


def _parse(line: str, width: int, height: int, num_classes: int) -> tuple[int, list[float]]:
    """Class and box (XYXY, pixels) of a line. Raises ValueError with the reason."""
    values = line.split()
    if len(values) != 5:
        raise ValueError(f"{len(values)} values where `class x y w h` has 5")
    category, (x, y, w, h) = int(values[0]), map(float, values[1:])
    if not 0 <= category < num_classes:
        raise ValueError(f"unknown class {category}; the data set has {num_classes}")
    if max(x, y, w, h) > 1 + _TOLERANCE:
        raise ValueError(f"{line!r} is not a share of the image's width and height")
    left, top = (x - w / 2) * width, (y - h / 2) * height
    return category, [left, top, left + w * width, top + h * height]
