"""Images as Detectron2 reads them, and what can be told of their files without decoding them."""

import os

import numpy as np
from detectron2.data import detection_utils as utils
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

_ORIENTATION_TAG = 0x0112
_TURNED_BY_90_DEGREES = (5, 6, 7, 8)
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
# Of more than 8 bits a channel. Pillow would not scale but clip them to 8 bits.
_DEEP_MODES = ("I", "F")


def read_image(path: str) -> np.ndarray:
    """
    Pixels (H, W, 3), uint8, BGR, with EXIF orientation applied.

    Raises:
        ValueError: as :func:`image_size`.
    """
    image_size(path)
    try:
        return utils.read_image(path, format="BGR")
    except Exception as error:  # a torn file can make Pillow's decoders raise anything
        raise ValueError(f"image cannot be read ({type(error).__name__})") from error


def image_size(path: str) -> tuple[int, int]:
    """
    Width and height in pixels as Detectron2 reads the image, EXIF orientation applied.

    The image is only decoded where its file does not end as a whole one does.

    Raises:
        ValueError: missing, empty, torn, no image, or of more than 8 bits a channel; the message
            is the reason without the path.
    """
    if not os.path.isfile(path):
        raise ValueError("image is missing")
    try:
        with Image.open(path) as image:
            width, height = image.size
            mode, orientation = image.mode, image.getexif().get(_ORIENTATION_TAG)
            if not _ends_whole(path, image.format):
                image.load()
    except UnidentifiedImageError as error:
        raise ValueError("image cannot be read: empty, or of no known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image cannot be read ({type(error).__name__}: {error})") from error
    if mode.startswith(_DEEP_MODES):
        raise ValueError(
            f"image has more than 8 bits a channel (mode {mode}), which would be clipped at 255; "
            "scale it to 8 bits"
        )
    return (height, width) if orientation in _TURNED_BY_90_DEGREES else (width, height)


def size_fault(path: str, width: int, height: int) -> str | None:
    """Why the image is not one of that size, or None."""
    try:
        actual = image_size(path)
    except ValueError as error:
        return str(error)
    if actual != (width, height):
        return f"image is {actual[0]}x{actual[1]}, its annotation says {width}x{height}"
    return None


def _ends_whole(path: str, image_format: str) -> bool:
    """Whether the last bytes are what a whole file of the format ends with."""
    marker = _END_MARKERS.get(image_format)
    if marker is None:
        return False
    with open(path, "rb") as f:
        f.seek(-len(marker), os.SEEK_END)
        return f.read() == marker
