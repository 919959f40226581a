"""
VOC's annotation files. What they may hold besides what is read here is passed over, but nothing
that could be an object is: a tag of an object in another place or spelling is refused.
"""

import os
import xml.etree.ElementTree as ET
from typing import NamedTuple
from xml.parsers import expat

from ..errors import has_controls
from .files import parse_number

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TAGS = {"size", "width", "height", "object", "name", "difficult", "bndbox", *_CORNERS}
_TOO_LARGE = 2**31  # pixels, for a side
# Attributes of a file are not read; this one is put in their place.
_LINE = "line"


class _EntityError(ValueError):
    pass


class AnnotatedObject(NamedTuple):
    name: str
    box: tuple[float, float, float, float]  # XYXY as written: from 1, inclusive
    difficult: bool
    line: int


class Annotation(NamedTuple):
    """An annotation file: the image's size in pixels, and its objects."""

    width: int
    height: int
    objects: list[AnnotatedObject]


def read_annotation(path: str) -> Annotation:
    """
    Read one annotation file.

    Raises:
        ValueError(reason) or ValueError(reason, detail): missing, torn, without a needed tag, or
            with one that is not understood.
    """
    if not os.path.isfile(path):
        raise ValueError("annotation is missing")
    root = _parse(path)
    if " " in root.tag:  # as expat writes namespace and tag
        namespace = root.tag.split(" ")[0]
        raise ValueError(
            f"tag <size> is missing: all tags stand in the namespace {namespace!r}; remove xmlns"
        )
    _refuse_misplaced(root)
    size = _only(root, "size")
    return Annotation(
        _whole_number(size, "width"),
        _whole_number(size, "height"),
        [_read_object(element) for element in root.findall("object")],
    )


def _parse(path: str) -> ET.Element:
    """The tree of a file, each element with its line; no entity is expanded."""
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator=" ")

    def refuse(*declaration) -> None:
        raise _EntityError("annotation declares XML entities, which no data set needs")

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda tag, _: builder.start(
        tag, {_LINE: str(parser.CurrentLineNumber)}
    )
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with open(path, "rb") as f:
            parser.Parse(f.read(), True)
        return builder.close()
    except expat.ExpatError as error:
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise ValueError(
            "annotation is not XML, torn, or not in its declared encoding (UTF-8 if it has none)",
            place,
        ) from error
    except _EntityError:
        raise
    except (LookupError, ValueError) as error:
        raise ValueError("annotation is in an unknown encoding; save it as UTF-8") from error


def _refuse_misplaced(root: ET.Element) -> None:
    """Raise ValueError for a tag of an object that would be passed over where it stands."""
    # An object's parts, as heads and hands in VOC's person layout, have boxes of their own.
    read = {id(element) for element in root.findall("object")}
    read |= {id(element) for path in ("object/bndbox", "object/part/bndbox")
             for element in root.findall(path)}  # fmt: skip
    for element in root.iter():
        tag = element.tag.rpartition(" ")[2]
        lower = tag.lower()
        is_object = lower == "object" or lower.endswith("bndbox")
        if lower not in _TAGS and not is_object:
            continue
        if element.tag != lower or (is_object and id(element) not in read):
            raise ValueError(
                f"tag <{tag}> is not read where or as it stands",
                f"line {element.get(_LINE)}",
            )


def _read_object(element: ET.Element) -> AnnotatedObject:
    line = int(element.get(_LINE))
    name = (_only(element, "name").text or "").strip()
    if not name:
        raise ValueError("tag <name> of an <object> is empty", f"line {line}")
    if has_controls(name):
        raise ValueError("tag <name> has control characters", f"line {line}: {name!r}")
    if any(map(_is_rotation, element.iterfind("attributes/attribute"))):
        raise ValueError("an <object> is rotated: draw an upright box", f"line {line}")
    box = _only(element, "bndbox")
    corners = tuple(_number(box, corner) for corner in _CORNERS)
    return AnnotatedObject(name, corners, _is_difficult(element), line)


def _is_difficult(element: ET.Element) -> bool:
    if element.find("difficult") is None:
        return False
    tag = _only(element, "difficult")
    text = (tag.text or "0").strip()
    if text not in ("0", "1"):
        raise ValueError(f"tag <difficult> is {text!r}, not 0 or 1", f"line {tag.get(_LINE)}")
    return text == "1"


def _only(element: ET.Element, tag: str) -> ET.Element:
    """The one child of that tag."""
    found = element.findall(tag)
    if len(found) == 1:
        return found[0]
    reason = f"tag <{tag}> of <{element.tag.rpartition(' ')[2]}> "
    if found:
        raise ValueError(f"{reason}stands there {len(found)} times", f"line {found[1].get(_LINE)}")
    raise ValueError(f"{reason}is missing", f"line {element.get(_LINE)}")


def _is_rotation(attribute: ET.Element) -> bool:
    """Whether it is CVAT's angle, in degrees, of a box that is not upright."""
    try:
        angle = parse_number((attribute.findtext("value") or "0").strip())
    except ValueError:
        return False
    return attribute.findtext("name") == "rotation" and bool(angle % 180)


def _number(element: ET.Element, tag: str) -> float:
    child = _only(element, tag)
    text = (child.text or "").strip()
    try:
        return parse_number(text)
    except ValueError as error:
        raise ValueError(f"tag <{tag}> is {error}", f"line {child.get(_LINE)}") from error


def _whole_number(element: ET.Element, tag: str) -> int:
    number = _number(element, tag)
    if not number.is_integer() or number >= _TOO_LARGE:
        raise ValueError(f"tag <{tag}> is {number}, not a whole number")
    return int(number)
