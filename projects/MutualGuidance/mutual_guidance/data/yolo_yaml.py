"""What YOLO's data.yaml says: the names of the classes, and where the images of a split are."""

import os
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from ..documents import BoundedLoader
from ..errors import DatasetError
from .classes import clean_names
from .files import read_text

DATA_FILE = "data.yaml"


class YOLONames(NamedTuple):
    """What the labels of a data set mean."""

    file: str  # that says so
    classes: list[str]  # by the index that labels have
    keypoint_values: int = 0  # numbers behind a box


def read_names(path: str) -> YOLONames:
    """
    Read ``names``, a list, a mapping by index or the name of the only class, and ``kpt_shape``.

    Raises:
        DatasetError: no such file or entry, or names that cannot be used.
    """
    content = _read(path)
    names = content.get("names")
    where = f"{path}, names"
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DatasetError(
                f"{where}: its indices are {reprlib.repr(list(names))}; labels count the classes "
                "from 0, so the names must be numbered from 0 without a gap"
            )
        names = [names.get(i, names.get(str(i))) for i in range(len(names))]
    if isinstance(names, str):
        _refuse_lists_in_text(names, path)
    classes = clean_names(names, where)
    number = content.get("nc", len(classes))
    if number != len(classes):
        raise DatasetError(f"{path}: nc is {reprlib.repr(number)}, but names has {len(classes)}")
    return YOLONames(path, classes, _keypoint_values(content, path))


def check_order(path: str, classes: Sequence[str]) -> None:
    """
    Raise DatasetError where a list of names that a tool left beside its labels, if there is one,
    counts the classes otherwise.
    """
    if not os.path.isfile(path):
        return
    try:
        names = [line.strip() for line in read_text(path).splitlines()]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} {error}: remove it if it names no classes") from error
    if any(name in names and names.index(name) != i for i, name in enumerate(classes)):
        raise DatasetError(
            f"{path} has the classes in another order, by which the labels count: give `classes` "
            f"all of {reprlib.repr(names)}, or remove it"
        )


def split_sources(path: str, split: str) -> list[str]:
    """
    Absolute paths of the folders and text files that data.yaml gives a split: relative ones are
    below its ``path``, or below the file's own folder.

    Raises:
        DatasetError: it has no such split, or one that is not there.
    """
    content = _read(path)
    sources = content.get(split)
    sources = [sources] if isinstance(sources, str) else sources
    if not isinstance(sources, list) or not all(isinstance(s, str) and s for s in sources):
        known = ", ".join(key for key in ("train", "val", "test") if content.get(key))
        has = f"its {split!r} is {reprlib.repr(sources)}" if split in content else f"no {split!r}"
        raise DatasetError(
            f"{path}: {has}; expected a folder, a text file or a list of them (it has "
            f"{known or 'no split'})"
        )
    folder = os.path.dirname(path)
    base = content.get("path") or "."
    bases = [os.path.join(folder, base), folder] if isinstance(base, str) else [folder]
    return [_existing(source, bases, f"{path}, {split}") for source in sources]


def _existing(source: str, bases: list[str], where: str) -> str:
    """The path of a source, as exporters mean it: some write one folder too high."""
    meant = [source, source.removeprefix("../")]
    candidates = [os.path.abspath(os.path.join(b, s)) for s in meant for b in bases]
    found = [path for path in dict.fromkeys(candidates) if os.path.exists(path)]
    if source.startswith("../") and len(found) > 1:
        raise DatasetError(
            f"{where}: {source} may mean {' or '.join(found)}: write it without ../, or give "
            "`images` in the entry in place of `split`"
        )
    if not found:
        looked = " or ".join(dict.fromkeys(candidates))
        raise DatasetError(
            f"{where}: {source} is missing: it would be {looked}; correct it (with / between "
            "folders), or give `images` in the entry in place of `split`"
        )
    return found[0]


def _read(path: str) -> dict[str, Any]:
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing: check root (relative ones are below DETECTRON2_DATASETS), or give "
            "classes and images in its place"
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} {error}") from error
    try:
        content = yaml.load(text, BoundedLoader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = f"line {mark.line + 1}" if mark else " ".join(str(error).split())
        raise DatasetError(f"{path} is not YAML of plain values ({reason})") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{path} has no names of the classes: expected names: [first, second]")
    return content


def _refuse_lists_in_text(names: str, path: str) -> None:
    """Raise DatasetError for text that is several names, or the name of a file of them."""
    if "," in names or os.path.exists(os.path.join(os.path.dirname(path), names)):
        raise DatasetError(
            f"{path}, names: the text {names!r} is not the name of one class; write a list, as in "
            "names: [first, second]"
        )


def _keypoint_values(content: dict[str, Any], path: str) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or [type(n) for n in shape] != [int, int] or min(shape) < 1:
        raise DatasetError(f"{path}: kpt_shape is {reprlib.repr(shape)}; expected [points, 2 or 3]")
    return shape[0] * shape[1]
