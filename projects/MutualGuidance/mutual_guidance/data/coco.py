"""Data sets in COCO's JSON format."""

import json
import os

from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from tqdm import tqdm

from ..errors import DatasetError
from .faults import Fault, box_fault, repeated
from .images import size_fault


def load_coco(annotations: str, images: str, name: str) -> tuple[list[dict], list[Fault]]:
    """
    Read a data set and set its metadata (classes, category ids) under ``name``.

    Args:
        annotations: the JSON file. images: the folder of the images.

    Returns:
        Detectron2's data set dicts, without degenerate boxes, and what was wrong. The dicts are
        empty where a structural fault keeps Detectron2 from reading the file.

    Raises:
        DatasetError: the file is missing, torn or not of COCO's format.
    """
    content = _read_json(annotations)
    try:
        faults = _check_ids(content, annotations)
        faults += _check_annotations(content, annotations)
        faults += _check_images(content, images, name)
        if any(f.structural for f in faults):
            return [], faults
        records = load_coco_json(annotations, images, name)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        reason = f"{type(error).__name__} {error}"
        raise DatasetError(f"{annotations} is not COCO's JSON: {reason}") from error
    for record in records:
        record["annotations"] = [
            a
            for a in record["annotations"]
            if not box_fault(_xyxy(a["bbox"]), record["width"], record["height"])
        ]
    return records, faults


def _read_json(path: str) -> dict:
    if not os.path.isfile(path):
        raise DatasetError(
            f"{path} is missing: check root and annotations, or set DETECTRON2_DATASETS to the "
            "folder that holds the data sets"
        )
    try:
        with open(path, encoding="utf-8") as f:
            content = json.load(f)
        image_keys = {"id", "file_name", "width", "height"}
        annotation_keys = {"id", "image_id", "category_id", "bbox"}
        complete = all(image_keys <= i.keys() for i in content["images"])
        complete &= all(annotation_keys <= a.keys() for a in content["annotations"])
        complete &= all({"id", "name"} <= c.keys() for c in content["categories"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is not COCO's JSON: {type(error).__name__} {error}") from error
    if not complete:
        raise DatasetError(f"{path} is not COCO's JSON: an entry lacks one of its keys")
    if not content["images"]:
        raise DatasetError(f"{path} lists no image")
    return content


def _check_ids(content: dict, path: str) -> list[Fault]:
    """Ids, and names of categories, that stand twice."""
    keys = [(section, "id") for section in ("images", "annotations", "categories")]
    return [
        Fault(path, f"duplicate {key} {value} in {section}", True)
        for section, key in (*keys, ("categories", "name"))
        for value in repeated(entry[key] for entry in content[section])
    ]


def _check_images(content: dict, folder: str, name: str) -> list[Fault]:
    """Images that cannot be read or are of another size."""
    faults = []
    for image in tqdm(content["images"], desc=f"Checking {name}", leave=False):
        path = os.path.join(folder, image["file_name"])
        reason = size_fault(path, image["width"], image["height"])
        if reason:
            faults.append(Fault(path, reason, True))
    return faults


def _check_annotations(content: dict, path: str) -> list[Fault]:
    """Annotations of no image or no category, and boxes of no use."""
    images = {i["id"]: i for i in content["images"]}
    categories = {c["id"] for c in content["categories"]}
    faults = []
    for annotation in content["annotations"]:
        where = f"annotation {annotation['id']}"
        image = images.get(annotation["image_id"])
        if image is None:
            faults.append(Fault(path, f"{where}: no image {annotation['image_id']}", True))
        elif annotation["category_id"] not in categories:
            reason = f"{where}: unknown category {annotation['category_id']}"
            faults.append(Fault(path, reason, True))
        elif annotation.get("ignore"):
            reason = f"{where}: Detectron2 reads no `ignore`; remove it, or set iscrowd instead"
            faults.append(Fault(path, reason, True))
        elif not _is_box(annotation["bbox"]):
            faults.append(Fault(path, f"{where}: bbox {annotation['bbox']}", True))
        else:
            box = _xyxy(annotation["bbox"])
            reason = box_fault(box, image["width"], image["height"])
            if reason:
                faults.append(Fault(f"{path} ({where})", reason, False))
    return faults


def _is_box(bbox: object) -> bool:
    """Whether it is a list of four numbers."""
    is_list = isinstance(bbox, list) and len(bbox) == 4
    return is_list and all(type(v) in (int, float) for v in bbox)


def _xyxy(bbox: list[float]) -> list[float]:
    return list(BoxMode.convert(list(bbox), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
