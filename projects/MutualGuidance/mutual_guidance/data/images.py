"""Images: the one way to open them, and what can be told of their files without decoding them."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import IO, Any, TypeVar

import numpy as np
from detectron2.data import detection_utils as utils
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from .faults import Fault
from .files import how_named

Result = TypeVar("Result")

# Of files that are taken for images where a folder or an id names them.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_TEXT_SUFFIXES = (".json", ".txt", ".xml", ".yaml")
# What may be in such a file: formats that Pillow decodes itself. It would start Ghostscript on an
# EPS, whatever the file is called.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION_TAG = 0x0112
_TURNED_BY_90_DEGREES = (5, 6, 7, 8)
# MPO is a JPEG with more pictures behind the first, as phones write.
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
# Grey of more than 8 bits, which Pillow would not scale but clip to 8. (Of colours it keeps the
# upper 8.)
_DEEP_MODES = ("I", "F")
# Of the checks of headers: on a network folder each of them mostly waits.
_NUM_THREADS, _IMAGES_AT_A_TIME = 16, 8


def read_image(path: str, image_format: str = "BGR") -> np.ndarray:
    """
    Pixels (H, W, 3), of "L" (H, W, 1), uint8, in the order of ``image_format`` (see INPUT.FORMAT),
    upright as EXIF says.

    Raises:
        ValueError: as :func:`image_size`.
    """
    with open_image(path) as image:
        return pixels_of(image, image_format)


def pixels_of(image: Image.Image, image_format: str = "BGR") -> np.ndarray:
    """Those of an open image; see :func:`read_image`, whose errors it raises."""
    _decode(image)
    _refuse_deep(image)
    return utils.convert_PIL_to_numpy(utils._apply_exif_orientation(image), image_format)


def open_image(path: str) -> Image.Image:
    """
    Open an image file of a known format, whatever its suffix says.

    Raises:
        ValueError: missing, empty or no image; the message is the reason without the path.
    """
    if not os.path.isfile(path):
        raise ValueError(why_missing(path))
    try:
        return Image.open(path, formats=_readable_formats())
    except UnidentifiedImageError as error:
        size = os.path.getsize(path)
        reason = f"of none of the formats {', '.join(_FORMATS)}" if size else "the file is empty"
        raise ValueError(f"image cannot be read: {reason}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ValueError(f"image has more than {limit} pixels: a decompression bomb?") from error
    except PermissionError as error:
        raise ValueError("image cannot be read: its file may not be read by you") from error
    except Exception as error:  # a torn file can make Pillow's parsers raise anything
        raise ValueError(f"image cannot be read: {error}") from error


def image_size(path: str) -> tuple[int, int]:
    """
    Width and height in pixels as :func:`read_image` reads the image, EXIF orientation applied.

    The image is only decoded where its file does not end as a whole one does.

    Raises:
        ValueError: missing, empty, torn, no image, or grey of more than 8 bits; the message is the
            reason without the path.
    """
    (width, height), turned = _size_and_turn(path)
    return (height, width) if turned else (width, height)


def size_faults(images: Sequence[tuple[str, int, int]], title: str) -> list[Fault]:
    """Of images that are not of their path, width and height, in their order."""
    return [fault for fault in _each(_size_fault, images, title) if fault]


def image_sizes(paths: Sequence[str], title: str) -> Iterator[tuple[int, int] | ValueError]:
    """:func:`image_size` of each, or what it raises."""
    return _each(_size_or_error, paths, title)


def _each(look: Callable[[Any], Result], images: Sequence, title: str) -> Iterator[Result]:
    """What ``look`` makes of each image, in their order, while others are waited for."""
    with ThreadPool(_NUM_THREADS) as pool:
        found = pool.imap(look, images, _IMAGES_AT_A_TIME)
        yield from tqdm(found, title, len(images), leave=False)


def _size_or_error(path: str) -> tuple[int, int] | ValueError:
    try:
        return image_size(path)
    except ValueError as error:
        return error


def _size_fault(image: tuple[str, int, int]) -> Fault | None:
    path, width, height = image
    try:
        stored, turned = _size_and_turn(path)
    except ValueError as error:
        return Fault(path, str(error))
    shown = stored[::-1] if turned else stored
    if shown == (width, height):
        return None
    sizes = f"image {shown[0]}x{shown[1]}, annotation {width}x{height}"
    if turned and stored == (width, height):
        return Fault(path, "EXIF turns this image: its annotation has the size before that", sizes)
    return Fault(path, "image is of another size than its annotation says", sizes)


def _size_and_turn(path: str) -> tuple[tuple[int, int], bool]:
    """Width and height as stored, and whether they are to be turned by 90 degrees."""
    with open_image(path) as image:
        with _place_kept(image.fp) as f:
            is_whole = _ends_whole(f, image.format)
            has_no_exif = is_whole and image.format == "PNG" and not _may_have_exif(f)
        if not is_whole:
            _decode(image)
        _refuse_deep(image)
        turned = not has_no_exif and _orientation(image) in _TURNED_BY_90_DEGREES
        return image.size, turned


@contextlib.contextmanager
def _place_kept(f: IO[bytes]) -> Iterator[IO[bytes]]:
    """Let a file be read elsewhere than where Pillow, which has it open, will go on."""
    place = f.tell()
    yield f
    f.seek(place)


def _may_have_exif(png: IO[bytes]) -> bool:
    """Whether a PNG has a chunk that EXIF can stand in, for which Pillow would decode all of it."""
    png.seek(len(_PNG_SIGNATURE))
    while len(header := png.read(8)) == 8:
        if header[4:] in _EXIF_CHUNKS:
            return True
        png.seek(int.from_bytes(header[:4], "big") + 4, os.SEEK_CUR)  # with its sum
    return False


def _decode(image: Image.Image) -> None:
    """Raise ValueError where it is torn. A TIFF's orientation is then applied and gone."""
    try:
        image.load()
    except Exception as error:  # a torn file can make Pillow's decoders raise anything
        raise ValueError(f"image cannot be read, its file is torn: {error}") from error


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # EXIF that cannot be parsed turns nothing
        return None


def _refuse_deep(image: Image.Image) -> None:
    if image.mode.startswith(_DEEP_MODES):
        raise ValueError(
            f"image has more than 8 bits a channel (mode {image.mode}), which would be clipped at "
            "255; scale it to 8 bits"
        )


def _ends_whole(f: IO[bytes], image_format: str) -> bool:
    """Whether the last bytes are what a whole file of the format ends with."""
    marker = _END_MARKERS.get(image_format)
    if marker is None:
        return False
    f.seek(-len(marker), os.SEEK_END)
    return f.read() == marker


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as one of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


class ImageFinder:
    """Finds the images of a folder by their path without suffix; a folder is listed once."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._by_stem: dict[str, dict[str, list[str]]] = {}

    def __call__(self, stem: str) -> list[str]:
        """Paths of the images ``stem``.*, of whatever suffix of an image."""
        folder, name = os.path.split(os.path.join(self.folder, stem))
        if folder not in self._by_stem:
            self._by_stem[folder] = {}
            for file in filter(has_image_suffix, _listed(folder)):
                of_stem = self._by_stem[folder].setdefault(os.path.splitext(file)[0], [])
                of_stem.append(os.path.join(folder, file))
        return self._by_stem[folder].get(name, [])


def why_missing(path: str) -> str:
    """Why there is no image file at a path, with the likely cause."""
    if os.path.isdir(path):
        return "image is a folder"
    folder, name = os.path.split(os.path.abspath(path))
    if "\\" in name:
        return "image is missing: its name has a backslash; folders are separated by /"
    if not os.path.isdir(folder):
        return "image is missing, its folder as well"
    how = how_named(path)
    if how is not None:
        return f"image is missing: it is there {how}"
    suffix = _suffixes_in(folder, os.stat(folder).st_mtime_ns).get(os.path.splitext(name)[0])
    return f"image is missing, but is there as {suffix}" if suffix else "image is missing"


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    """Those of _FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _listed(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


@functools.lru_cache(maxsize=8)
def _suffixes_in(folder: str, _changed: int) -> dict[str, str]:
    """Of the files in a folder, by their stem."""
    names = (name for name in _listed(folder) if not name.endswith(_TEXT_SUFFIXES))
    return dict(map(os.path.splitext, names))
