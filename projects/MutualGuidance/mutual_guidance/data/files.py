"""Text files and folders of a data set, as people leave them."""

import codecs
import functools
import os
import unicodedata
from collections.abc import Iterator

from ..documents import is_no_file

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str) -> str:
    """
    The text of a file in UTF-8, or in what its byte-order mark says, which is not part of it.

    Raises:
        OSError: it cannot be read. ValueError: it is no file, or no text; of that, the message is
            the reason without the path.
    """
    if is_no_file(path):
        raise ValueError("is no file")
    with open(path, "rb") as f:
        content = f.read()
    marks = (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marks, "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name, where = encoding.upper().removesuffix("-SIG"), error.start
        raise ValueError(f"is not text in {name} (byte {where}): save it so") from error
    if "\0" in text:
        raise ValueError("is not text: it has a zero byte")
    return text


def plain_name(name: str) -> str:
    """A name by which files that a person would not tell apart are the same."""
    return unicodedata.normalize("NFC", name).casefold()


def how_named(path: str) -> str | None:
    """How a file is there that a person may have meant by a path at which there is nothing."""
    folder, name = os.path.split(os.path.abspath(path))
    if os.path.islink(path):
        return "as a link that leads nowhere"
    if not os.path.isdir(folder):
        return None
    there = _names_in(folder, os.stat(folder).st_mtime_ns).get(plain_name(name))
    if there in (None, name):
        return None
    if unicodedata.normalize("NFC", there) == unicodedata.normalize("NFC", name):
        return "in another Unicode form (é as one sign or as two)"
    return "in other capitals"


@functools.lru_cache(maxsize=64)
def _names_in(folder: str, _changed: int) -> dict[str, str]:
    """By their plain names."""
    return {plain_name(name): name for name in sorted(os.listdir(folder))}


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
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # Only a link has to be followed: what else an entry is, the folder knows.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(entry.path, above | {real})
        else:
            yield entry.path


def parse_number(text: str) -> float:
    """As float(), in the notation of data sets. Raises ValueError with the text in quotes."""
    try:
        if "_" in text:  # Python's own separator of digits
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r}, not a number") from None
