"""Data sets in PASCAL VOC layout: Annotations/, JPEGImages/ and ImageSets/Main/ below a root."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from xml.parsers import expat

from detectron2.structures import BoxMode
from tqdm import tqdm

from ..errors import DatasetError
from .faults import Fault, box_fault, repeated
from .folds import fold_part
from .images import IMAGE_SUFFIXES, size_fault


def load_voc(
    root: str, split: str | dict, classes: Sequence[str], check_images: bool = True
) -> tuple[list[dict], list[Fault]]:
    """
    Read one split.

    Args:
        root: the folder.
        split: file below ImageSets/Main, without its .txt, or a part of a fold (see folds.py).
        classes: names, in the order of their indices.
        check_images: read the header of every image and compare its size.

    Returns:
        Detectron2's data set dicts, boxes XYXY in pixels from 0 and an extra key "difficult" in
        each annotation, and what was wrong. Degenerate boxes are left out of the dicts.

    Raises:
        DatasetError: the layout itself is not there.
    """
    ids = read_split(root, split)
    images = _index_images(os.path.join(root, "JPEGImages"))
    indices = {name: i for i, name in enumerate(classes)}
    records, faults = [], []
    for image_id in tqdm(ids, desc=f"Checking {os.path.basename(root)} {split}", leave=False):
        path = os.path.join(root, "Annotations", f"{image_id}.xml")
        try:
            annotation = read_annotation(path)
        except ValueError as error:
            faults.append(Fault(path, str(error), True))
            continue
        image = images.get(image_id, os.path.join(root, "JPEGImages", f"{image_id}.jpg"))
        width, height = annotation["width"], annotation["height"]
        reason = size_fault(image, width, height) if check_images else None
        if reason:
            faults.append(Fault(image, reason, True))
        objects, object_faults = _objects(annotation, indices, path)
        faults += object_faults
        records.append(
            {
                "file_name": image,
                "image_id": image_id,
                "width": width,
                "height": height,
                "annotations": objects,
            }
        )
    twice = repeated(ids)  # never of a fold
    faults += [Fault(_split_path(root, split), f"duplicate id {i}", True) for i in twice]
    return records, faults


def collect_classes(root: str) -> list[str]:
    """Names of all objects in all annotations below the root, sorted."""
    folder = os.path.join(root, "Annotations")
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder} is missing: a VOC data set keeps its annotations there")
    names = set()
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".xml"):
            continue
        try:
            names |= {o["name"] for o in read_annotation(os.path.join(folder, file))["objects"]}
        except ValueError:
            continue  # a torn file is told of where its split is read
    if not names:
        raise DatasetError(f"{folder} has no annotated object: nothing to learn")
    return sorted(names)


def read_split(root: str, split: str | dict) -> list[str]:
    """Ids of the images of a split, or of a part of a fold of several (see folds.py)."""
    if isinstance(split, dict):
        return fold_part([i for name in split["of"] for i in read_split(root, name)], split)
    path = _split_path(root, split)
    if not os.path.isfile(path):
        raise DatasetError(
            f"{path} is missing: expected the VOC layout there; check root and split, or set "
            "DETECTRON2_DATASETS to the folder that holds the data sets"
        )
    try:
        with open(path, encoding="utf-8") as f:
            ids = [line.split()[0] for line in f if line.strip()]
    except ValueError as error:
        raise DatasetError(f"{path} is not text: it must list an image's id a line") from error
    if not ids:
        raise DatasetError(f"{path} lists no image")
    return ids


def read_annotation(path: str) -> dict:
    """
    Read one annotation file.

    Returns:
        width, height and objects: name, box as written (1-based, inclusive), difficult.

    Raises:
        ValueError: missing, torn, or without a needed tag; the message is the reason alone.
    """
    if not os.path.isfile(path):
        raise ValueError("annotation is missing")
    with open(path, "rb") as f:
        text = f.read()
    try:
        _refuse_entities(text)
        tree = ET.fromstring(text)
        return {
            "width": int(tree.findtext("size/width")),
            "height": int(tree.findtext("size/height")),
            "objects": [_read_object(o) for o in tree.findall("object")],
        }
    except (ET.ParseError, expat.ExpatError) as error:
        raise ValueError(f"annotation is not XML ({error})") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"annotation cannot be used as it is ({error})") from error


def _refuse_entities(text: bytes) -> None:
    """Raise ValueError where a declaration of an entity stands, in any encoding, unexpanded."""

    def refuse(*declaration) -> None:
        raise ValueError("it declares XML entities, which no data set needs")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.Parse(text, True)


def _read_object(element: ET.Element) -> dict:
    name = element.findtext("name")
    if not name:
        raise ValueError("an object without name")
    return {
        "name": name,
        "box": [float(element.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")],
        "difficult": int(element.findtext("difficult") or 0),
    }


def _objects(
    annotation: dict, indices: dict[str, int], path: str
) -> tuple[list[dict], list[Fault]]:
    """Annotations in Detectron2's format, and the faults of the objects left out."""
    objects, faults = [], []
    for obj in annotation["objects"]:
        if obj["name"] not in indices:
            known = ", ".join(indices)
            reason = f"unknown class {obj['name']!r}; the data set has {known}"
            faults.append(Fault(path, reason, True))
            continue
        reason = box_fault(obj["box"], annotation["width"] + 1, annotation["height"] + 1)
        if reason:
            faults.append(Fault(path, reason, False))
            continue
        x0, y0, x1, y1 = obj["box"]
        objects.append(
            {
                "category_id": indices[obj["name"]],
                "bbox": [x0 - 1, y0 - 1, x1, y1],  # as Detectron2 reads VOC
                "bbox_mode": BoxMode.XYXY_ABS,
                "difficult": obj["difficult"],
            }
        )
    return objects, faults


def _split_path(root: str, split: str) -> str:
    return os.path.join(root, "ImageSets", "Main", f"{split}.txt")


def _index_images(folder: str) -> dict[str, str]:
    """Image id to path."""
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder} is missing: a VOC data set keeps its images there")
    stems = (os.path.splitext(name) for name in sorted(os.listdir(folder)))
    return {
        stem: os.path.join(folder, stem + suffix)
        for stem, suffix in stems
        if suffix.lower() in IMAGE_SUFFIXES
    }
