"""The size of an image, from its header alone."""

import os

from PIL import Image

_ORIENTATION_TAG = 0x0112
_TURNED_BY_90_DEGREES = (5, 6, 7, 8)


def image_size(path: str) -> tuple[int, int]:
    """
    Width and height in pixels as Detectron2 reads the image, EXIF orientation applied.

    Raises:
        ValueError: missing, empty or not an image; the message is the reason without the path.
    """
    if not os.path.isfile(path):
        raise ValueError("image is missing")
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION_TAG)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image cannot be read ({type(error).__name__})") from error
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
