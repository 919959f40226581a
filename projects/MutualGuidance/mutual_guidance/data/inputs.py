"""What a person names to predict on: images, folders, globs, a video or a camera."""

import glob
import itertools
import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ..errors import InputError

_IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_CAMERA = "camera:"
_DEFAULT_FPS = 25.0


def find_images(inputs: Sequence[str]) -> dict[str, str]:
    """
    Image files that ``inputs`` mean, each once and in order.

    Args:
        inputs: files, folders (every image below them) and globs (``**`` included).

    Returns:
        Name to path; a name is the path below the folder that all images have in common.

    Raises:
        InputError: an input that matches no image.
    """
    paths = list(dict.fromkeys(os.path.abspath(p) for i in inputs for p in _expand(i)))
    root = os.path.commonpath([os.path.dirname(p) for p in paths])
    return {os.path.relpath(path, root): path for path in paths}


def _expand(pattern: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    if os.path.isfile(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "**", "*")
    elif not glob.has_magic(pattern):
        raise InputError(f"{pattern}: there is no such file or folder")
    found = sorted(
        p for p in glob.glob(pattern, recursive=True) if has_image_suffix(p) and os.path.isfile(p)
    )
    if not found:
        raise InputError(f"{pattern}: no image matches (known are {', '.join(_IMAGE_SUFFIXES)})")
    return found


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as one of an image, of a format that is read and written."""
    return name.lower().endswith(_IMAGE_SUFFIXES)


def is_video(name: str) -> bool:
    """Whether an input means a video file or a camera (``camera:0``)."""
    return name.startswith(_CAMERA) or name.lower().endswith(_VIDEO_SUFFIXES)


class Video:
    """
    Frames of a video file or camera.

    Attributes:
        name: of the file without its suffix, or ``camera``.
        fps: frames a second.
        num_frames: as the file says, which may only guess it; None of a camera.
    """

    def __init__(self, source: str) -> None:
        """
        Args:
            source: a video file, or ``camera:N``.

        Raises:
            InputError: it cannot be opened.
        """
        is_camera = source.startswith(_CAMERA)
        number = source[len(_CAMERA) :]
        if is_camera and not number.isdecimal():
            raise InputError(f"{source}: a camera is named by its number, as in camera:0")
        self._capture = cv2.VideoCapture(int(number) if is_camera else os.path.expanduser(source))
        if not self._capture.isOpened():
            remedy = "is it connected?" if is_camera else "is it there, and a whole video file?"
            raise InputError(f"{source}: OpenCV cannot open it: {remedy}")
        self.name = "camera" if is_camera else os.path.splitext(os.path.basename(source))[0]
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = frames if frames > 0 else None

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name (``clip_000000``) and pixels (H, W, 3), uint8, BGR, of each frame."""
        for i in itertools.count():
            there, frame = self._capture.read()
            if not there:
                return
            yield f"{self.name}_{i:06d}", frame
