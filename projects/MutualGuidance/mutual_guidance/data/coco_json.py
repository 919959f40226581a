"""COCO's JSON files, which may be large."""

import json
import os
import re
from collections.abc import Iterator
from typing import IO, Any

from ..errors import DatasetError

_SECTIONS = ("images", "annotations", "categories")
# Most of a file's text. In JSON it can only be the value of a key, whatever comes before it.
_POLYGONS = re.compile(r'("segmentation"[ \t\r\n]*:[ \t\r\n]*)\[[][0-9., \t\r\n+eE-]*\]')
_BLOCK = 2**24  # characters that are read at once


def read_sections(path: str) -> dict[str, list]:
    """
    The images, annotations and categories of a file, without the annotations' polygons.

    Raises:
        DatasetError: the file is missing, torn or not of COCO's format.
    """
    if not os.path.isfile(path):
        raise DatasetError(
            f"{path} is missing: check root and annotations, or set DETECTRON2_DATASETS to the "
            "folder that holds the data sets"
        )
    try:
        content = _parse(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        place = _place(error)
        raise DatasetError(f"{path} is not JSON, or torn: it breaks off at {place}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
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


def _place(error: json.JSONDecodeError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start}, which is not {error.encoding}"
    return f"line {error.lineno}, column {error.colno}"


def _parse(path: str) -> Any:
    """The JSON of a file, in as little memory as it can be had without its polygons."""
    with open(path, "rb") as f:
        encoding = json.detect_encoding(f.read(4))
    try:
        with open(path, encoding=encoding, errors="surrogatepass", newline="") as f:
            return json.loads("".join(_without_polygons(f)))
    except ValueError:
        pass
    with open(path, "rb") as f:
        return json.loads(f.read())  # whose error tells the place in the file


def _without_polygons(f: IO[str]) -> Iterator[str]:
    rest = ""
    while block := f.read(_BLOCK):
        head, brace, rest = (rest + block).rpartition("}")  # which no polygon has
        yield _POLYGONS.sub(r"\1null", head + brace)
    yield rest
