"""Data sets in COCO's JSON format. Masks, polygons and keypoints are passed over."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from ..errors import DatasetError
from .classes import ClassPicker, confusable
from .faults import TOLD, Fault, repeated
from .images import size_fault
from .records import FoundObject, Record, pack_objects

_SECTIONS = ("images", "annotations", "categories")
# Keys that an annotation may lack.
_OPTIONAL = ("iscrowd", "area", "ignore")
_TOO_LARGE = 2**31  # pixels, for a side
_MAX_SHOWN = 60  # characters of a value


class COCOData(NamedTuple):
    """What a file holds."""

    records: list[Record]  # by image id; none where a fault keeps them from being read
    classes: list[str]
    indices: dict[Any, int]  # of the classes, by category id
    faults: list[Fault]


def load_coco(
    annotations: str, images: str, classes: Sequence[str] | None = None, check_images: bool = True
) -> COCOData:
    """
    Args:
        annotations: the JSON file. images: the folder of the images.
        classes: names, in the order of their indices; objects of others are left out. None takes
            the file's categories in the order of their ids, but for those without an object that
            are the supercategory of another one.
        check_images: read the header of every image and compare its size.

    Raises:
        DatasetError: the file is missing, torn or not of COCO's format.
    """
    content = _read_json(annotations)
    check = _Checker(annotations)
    categories = _read_categories(content["categories"], check)
    files = _read_images(content["images"], check)
    objects = _read_annotations(content["annotations"], files, categories, check)
    if check.faults:
        return COCOData([], list(classes or categories.values()), {}, check.faults)
    faults = confusable(categories.values(), annotations)
    if classes is None:
        kept, parents = _without_parents(content, categories, annotations)
        classes, faults = list(kept.values()), faults + parents
    picker = ClassPicker(classes)
    records = []
    for image_id, (name, width, height) in tqdm(
        files.items(), desc=f"Checking {os.path.basename(annotations)}", leave=False
    ):
        path = os.path.join(images, name)
        fault = size_fault(path, width, height) if check_images else None
        faults += [Fault(path, *fault)] if fault else []
        found = _found(objects.pop(image_id), categories, picker)
        packed, object_faults = pack_objects(found, width, height, annotations, unit="annotation")
        faults += object_faults
        records.append(Record(path, image_id, width, height, packed))
    faults += picker.faults(annotations, categories.values)
    classes = list(classes)
    indices = {i: classes.index(name) for i, name in categories.items() if name in classes}
    return COCOData(records, classes, indices, faults)


def _found(objects: list[tuple], categories: dict, picker: ClassPicker) -> list[FoundObject]:
    """Those of the classes that are taken."""
    found = []
    for category_id, box, crowd, area, where in objects:
        index = picker(categories[category_id])
        if index is not None:
            found.append(FoundObject(box, index, where, area, crowd))
    return found


def _read_json(path: str) -> dict:
    if not os.path.isfile(path):
        raise DatasetError(
            f"{path} is missing: check root and annotations, or set DETECTRON2_DATASETS to the "
            "folder that holds the data sets"
        )
    try:
        with open(path, "rb") as f:
            content = json.loads(f.read())
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DatasetError(f"{path} is not JSON, or torn: it breaks off at {place}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON in UTF-8: it cannot be read") from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path} is not COCO's JSON: it is a {type(content).__name__}, not an object with "
            f"{', '.join(_SECTIONS)}"
        )
    for section in _SECTIONS:
        if not isinstance(content.get(section), list):
            what = "is no list" if section in content else "is missing"
            raise DatasetError(f"{path} is not COCO's JSON: its key {section!r} {what}")
    if not content["images"]:
        raise DatasetError(f"{path} lists no image")
    return content


class _Checker:
    """Reads the values of entries by key; what cannot be read becomes a fault of the file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: list[Fault] = []

    def __call__(
        self, entry: Any, section: str, index: int, readers: dict[str, Callable]
    ) -> list | None:
        """
        The values of the keys; None where a key is missing or its reader, which is given None for
        a key that may be missing, raises ValueError.
        """
        if not isinstance(entry, dict):
            self.fault(f"entry of {section} is no object", f"{section}[{index}]", entry)
            return None
        values = []
        for key, read in readers.items():
            if key not in entry and key not in _OPTIONAL:
                where = _where(entry, section, index)
                self.faults.append(Fault(self.path, f'"{key}" is missing in {section}', where))
                return None
            try:
                values.append(read(entry.get(key)))
            except ValueError as error:
                reason = f'"{key}" {error} in {section}'
                self.fault(reason, _where(entry, section, index), entry.get(key))
                return None
        return values

    def fault(self, reason: str, where: str, value: Any) -> None:
        """Note a fault with the value as it stands in the file."""
        text = json.dumps(value, ensure_ascii=False)
        shown = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
        self.faults.append(Fault(self.path, reason, f"{where}: {shown}"))

    def twice(self, key: str, section: str, values: Iterable) -> None:
        """Note values of a key that stand in more than one entry."""
        for value in repeated(values):
            self.fault(f'"{key}" stands twice in {section}', key, value)


def _where(entry: dict, section: str, index: int) -> str:
    """An entry by its id, or by its place where it has none."""
    return f"{section}[{index}]" if entry.get("id") is None else f"id {entry['id']!r}"


def _read_categories(entries: list, check: _Checker) -> dict[Any, str]:
    """Names by category id, in the order of the ids."""
    readers = {"id": _id, "name": _name}
    read = [check(entry, "categories", i, readers) for i, entry in enumerate(entries)]
    pairs = [values for values in read if values]
    check.twice("id", "categories", (category_id for category_id, _ in pairs))
    check.twice("name", "categories", (name for _, name in pairs))
    return dict(sorted(pairs, key=_by_id))


def _read_images(entries: list, check: _Checker) -> dict[Any, tuple[str, int, int]]:
    """File name, width and height by image id, in the order of the ids."""
    readers = {"id": _id, "file_name": _text, "width": _pixels, "height": _pixels}
    read = [check(entry, "images", i, readers) for i, entry in enumerate(entries)]
    images = [values for values in read if values]
    check.twice("id", "images", (image_id for image_id, *_ in images))
    check.twice("file_name", "images", (os.path.normpath(name) for _, name, *_ in images))
    return {image_id: tuple(rest) for image_id, *rest in sorted(images, key=_by_id)}


def _read_annotations(
    entries: list, images: dict, categories: dict, check: _Checker
) -> dict[Any, list[tuple]]:
    """Category id, box (XYXY), crowd flag, area and id of the objects, by image id."""
    readers = {
        "image_id": _one_of(images, "image"),
        "category_id": _one_of(categories, "category"),
        "bbox": _box,
        "iscrowd": _flag,
        "area": _area,
        "ignore": _not_ignored,
    }
    objects: dict[Any, list[tuple]] = {image_id: [] for image_id in images}
    for i, entry in enumerate(entries):
        values = check(entry, "annotations", i, readers)
        if values:
            image_id, category_id, box, crowd, area, _ = values
            objects[image_id].append((category_id, box, crowd, area, entry.get("id", i)))
    return objects


def _without_parents(content: dict, categories: dict, path: str) -> tuple[dict, list[Fault]]:
    """The categories but those without an object that are another one's supercategory."""
    used = {a["category_id"] for a in content["annotations"]}
    parents = {
        c["supercategory"].strip()
        for c in content["categories"]
        if isinstance(c.get("supercategory"), str) and c["supercategory"] != c["name"]
    }
    dropped = {i: n for i, n in categories.items() if n in parents and i not in used}
    reason = "category without an object is only the parent of others: it is no class"
    faults = [Fault(path, reason, f"{name!r}, id {i!r}", TOLD) for i, name in dropped.items()]
    return {i: n for i, n in categories.items() if i not in dropped}, faults


def _by_id(values: Sequence) -> tuple[bool, Any]:
    """Orders entries by their id, numbers before text."""
    return isinstance(values[0], str), values[0]


def _id(value: Any) -> Any:
    if isinstance(value, str) or _is_number(value) and value == value // 1:
        return value
    raise ValueError("is neither a whole number nor text")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is no text")
    return value


def _name(value: Any) -> str:
    name = str(value).strip() if isinstance(value, (int, str)) else ""
    if not name or isinstance(value, bool):
        raise ValueError("is no name")
    return name


def _pixels(value: Any) -> int:
    if not _is_number(value) or not 0 < value < _TOO_LARGE or int(value) != value:
        raise ValueError("is no number of pixels")
    return int(value)


def _one_of(known: dict, what: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not (isinstance(value, str) or _is_number(value)) or value not in known:
            raise ValueError(f"is the id of no {what}")
        return value

    return read


def _box(value: Any) -> list[float]:
    """XYXY of XYWH."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise ValueError("is not four numbers")
    x, y, width, height = (_float(v) for v in value)
    return [x, y, x + width, y + height]


def _flag(value: Any) -> bool:
    if value not in (None, 0, 1, "0", "1"):
        raise ValueError("is not 0 or 1")
    return value in (1, "1")


def _not_ignored(value: Any) -> None:
    if value not in (None, 0, "0"):
        raise ValueError("is not 0: it is not COCO's; remove the annotation, or set iscrowd")


def _area(value: Any) -> float | None:
    """Square pixels; None where it says nothing and the box's is meant."""
    return _float(value) if _is_number(value) and 0 < value < math.inf else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(value: float) -> float:
    """Of a number of any size."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
