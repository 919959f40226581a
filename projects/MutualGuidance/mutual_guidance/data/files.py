"""Text files and folders of a data set, as people leave them."""

import codecs
import os
from collections.abc import Iterator

from ..documents import require_file

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str) -> str:
    """
    The text of a file in UTF-8, or in what its byte-order mark says, which is not part of it.

    Raises:
        OSError: it cannot be read. ValueError: it is no file, or no text.
    """
    require_file(path)
    with open(path, "rb") as f:
        content = f.read()
    marks = (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark))
    text = content.decode(next(marks, "utf-8"))
    if "\0" in text:
        raise ValueError("it has a zero byte")
    return text


def walk_files(folder: str) -> Iterator[str]:
    """
    Paths of the files below a folder, sorted. Links are followed, but none in a circle; what is
    hidden, as the copies that other programs leave, is passed over.
    """
    yield from _walk(folder, frozenset())


def _walk(folder: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from _walk(path, above | {real})
        else:
            yield path


def parse_number(text: str) -> float:
    """As float(), in the notation of data sets. Raises ValueError with the text in quotes."""
    try:
        if "_" in text:  # Python's own separator of digits
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r}, not a number") from None
