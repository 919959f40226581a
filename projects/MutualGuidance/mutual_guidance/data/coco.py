"""Data sets in COCO's JSON format. Masks, polygons and keypoints are passed over."""

import contextlib
import functools
import gc
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..errors import has_controls
from .classes import ClassPicker, confusable
from .coco_json import read_sections
from .faults import IGNORED, TOLD, Fault, repeated
from .images import size_faults
from .records import FoundObject, Record, pack_images

# Keys that an annotation may lack.
_OPTIONAL = ("iscrowd", "area", "ignore", "attributes")
_MANY_CROWDS = 0.1  # COCO's own are 1 % of its objects
_NUMBERS = {int, float}
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
    with _collector_paused():
        return _load(annotations, images, classes, check_images)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """
    Spare Python's collector of cycles, of which there are none here, to look at millions of
    objects again and again: a fourth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load(
    annotations: str, images: str, classes: Sequence[str] | None, check_images: bool
) -> COCOData:
    content = read_sections(annotations)
    check = _Checker(annotations)
    categories = _read_categories(content["categories"], check)
    files = _read_images(content["images"], check)
    faults = confusable(set(categories.values()), annotations)
    kept, parents = _without_parents(content, categories, annotations)
    names = list(kept.values())
    check.twice("name", "categories", names)
    if classes is None:
        classes, faults = names, faults + parents
    categories = {i: n for i, n in categories.items() if i in kept or n not in names}
    picker = ClassPicker(classes)
    found = _read_annotations(content["annotations"], files, categories, picker, check)
    if check.faults:
        return COCOData([], list(classes), {}, check.faults)
    paths = [os.path.join(images, name) for name, *_ in files.values()]
    sizes = [size for _, *size in files.values()]
    if check_images:
        files_of_sizes = [(path, *size) for path, size in zip(paths, sizes, strict=True)]
        faults += size_faults(files_of_sizes, f"Checking {os.path.basename(annotations)}")
    packed, object_faults = pack_images(found, sizes, annotations, unit="annotation")
    faults += object_faults + picker.faults(annotations, categories.values)
    faults += _crowd_faults(found, annotations)
    if any(f.effect != TOLD for f in object_faults) and _are_corners(found, sizes):
        reason = "boxes look like corners (x0, y0, x1, y1), but COCO's are x, y, width and height"
        faults.append(Fault(annotations, reason, "every box fits its image as corners", TOLD))
    records = [
        Record(path, image_id, *size, of_image)
        for path, image_id, size, of_image in zip(paths, files, sizes, packed, strict=True)
    ]
    classes = list(classes)
    return COCOData(records, classes, _indices(categories, classes), faults)


def _indices(categories: dict[Any, str], classes: list[str]) -> dict[Any, int]:
    """Of the classes by category id; one without a category takes the id of none."""
    indices = {i: classes.index(name) for i, name in categories.items() if name in classes}
    largest = max((int(i) for i in categories if not isinstance(i, str)), default=0)
    without = sorted(set(range(len(classes))) - set(indices.values()))
    return indices | dict(zip(itertools.count(largest + 1), without, strict=False))


def _crowd_faults(found: list[list[FoundObject]], path: str) -> list[Fault]:
    """Of crowd regions, where there are so many that single objects may be meant."""
    crowds = sum(o.crowd for of_image in found for o in of_image)
    if crowds <= _MANY_CROWDS * sum(map(len, found)):
        return []
    reason = "crowd region (iscrowd 1), which no detector learns: a single object has 0"
    return [Fault(path, reason, effect=IGNORED, count=crowds)]


def _are_corners(found: list[list[FoundObject]], sizes: list[list[int]]) -> bool:
    """Whether all boxes, read with width and height, lie in their images as corners would."""
    return all(
        x0 < x1 - x0 <= width and y0 < y1 - y0 <= height
        for (width, height), of_image in zip(sizes, found, strict=True)
        for x0, y0, x1, y1 in (o.box for o in of_image)
    )


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
            value = entry.get(key)
            if value is None and key not in entry and key not in _OPTIONAL:
                where = _where(entry, section, index)
                self.faults.append(Fault(self.path, f'"{key}" is missing in {section}', where))
                return None
            try:
                values.append(read(value))
            except ValueError as error:
                reason = f'"{key}" {error} in {section}'
                self.fault(reason, _where(entry, section, index), value)
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
    entries: list, images: dict, categories: dict, picker: ClassPicker, check: _Checker
) -> list[list[FoundObject]]:
    """
    The objects of the classes that are taken, by image. The entries are gone afterwards: each is
    freed when it has been read.
    """
    readers = {
        "image_id": _one_of(images, "image"),
        "category_id": _one_of(categories, "category"),
        "bbox": _box,
        "iscrowd": _flag,
        "area": read_area,
        "ignore": _not_ignored,
        "attributes": _upright,
    }
    found: dict[Any, list[FoundObject]] = {image_id: [] for image_id in images}
    entries.reverse()
    for i in range(len(entries)):
        entry = entries.pop()
        values = check(entry, "annotations", i, readers)
        if values:
            image_id, category_id, box, crowd, area, *_ = values
            index = picker(categories[category_id])
            if index is not None:
                found[image_id].append(FoundObject(box, index, entry.get("id", i), area, crowd))
    return list(found.values())


def _without_parents(content: dict, categories: dict, path: str) -> tuple[dict, list[Fault]]:
    """The categories but those without an object that are another one's supercategory."""
    ids = (a.get("category_id") for a in content["annotations"] if isinstance(a, dict))
    used = {category_id for category_id in ids if _is_id(category_id)}
    children: dict[str, set] = {}  # ids by the name of their parent
    for category in content["categories"]:
        parent = category.get("supercategory") if isinstance(category, dict) else None
        if isinstance(parent, str) and _is_id(category.get("id")):
            children.setdefault(parent.strip(), set()).add(category["id"])
    unused = {i: n for i, n in categories.items() if i not in used}
    dropped = {i: n for i, n in unused.items() if children.get(n, set()) - {i}}
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
    if has_controls(name):
        raise ValueError("has control characters")
    return name


def _pixels(value: Any) -> int:
    if not _is_number(value) or not 0 < value < _TOO_LARGE or int(value) != value:
        raise ValueError("is no number of pixels")
    return int(value)


def _one_of(known: dict, what: str) -> Callable[[Any], Any]:
    texts = functools.cache(lambda: {str(i) for i in known})

    def read(value: Any) -> Any:
        if _is_id(value) and value in known:
            return value
        kinds = ("text", "a number") if isinstance(value, str) else ("a number", "text")
        other = f" as {kinds[0]}, but of one as {kinds[1]}" if str(value) in texts() else ""
        raise ValueError(f"is the id of no {what}{other}")

    return read


def _box(value: Any) -> list[float]:
    """XYXY of XYWH."""
    if type(value) is not list or len(value) != 4 or not _NUMBERS.issuperset(map(type, value)):
        raise ValueError("is not four numbers")
    x, y, width, height = map(_float, value)
    return [x, y, x + width, y + height]


def _flag(value: Any) -> bool:
    if value not in (None, 0, 1, "0", "1"):
        raise ValueError("is not 0 or 1")
    return value in (1, "1")


def _not_ignored(value: Any) -> None:
    if value not in (None, 0, "0"):
        raise ValueError("is not 0: it is not COCO's; remove the annotation, or set iscrowd")


def _upright(value: Any) -> None:
    angle = value.get("rotation") if isinstance(value, dict) else None  # CVAT's, in degrees
    if _is_number(angle) and angle % 180:
        raise ValueError("have a rotation, which no upright box has (draw it anew)")


def read_area(value: Any) -> float | None:
    """Square pixels; None where it says nothing and the box's is meant."""
    return _float(value) if _is_number(value) and 0 < value < math.inf else None


def _is_id(value: Any) -> bool:
    return type(value) in (int, str, float)


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS


def _float(value: float) -> float:
    """Of a number of any size."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
