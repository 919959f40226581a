"""What a person names to predict on: images, folders, globs, a video or a camera."""

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import InputError
from .images import IMAGE_SUFFIXES, has_image_suffix

_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_CAMERA = "camera:"
_DEFAULT_FPS = 25.0
# Their headers tell how long they are; the number of frames is guessed from that.
_GUESSED_SUFFIXES = (".mkv", ".webm")
# Of a video that must be readable.
_WHOLE = 0.98
# FFmpeg would write a line for every block of a torn frame.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class Images(NamedTuple):
    """Image files that a person named."""

    paths: dict[str, str]  # name to absolute path
    others: list[str]  # files beside them that do not end as an image's


def find_images(inputs: Sequence[str]) -> Images:
    """
    Image files that ``inputs`` mean, each once and in order; links that lead nowhere among them, so
    that reading tells of them.

    Args:
        inputs: files, folders (every image below them but in hidden ones, each folder once,
            whatever links lead to it) and globs (``**`` included).

    Returns:
        The images, and what is none. A name is the path below the folder that all images have in
        common.

    Raises:
        InputError: an input that matches no image.
        OSError: a folder that may not be read.
    """
    found: dict[str, None] = {}
    others: dict[str, None] = {}
    for pattern in map(os.path.expanduser, inputs):
        files = list(map(os.path.abspath, _expand(pattern)))
        images = [f for f in files if has_image_suffix(f) or f == os.path.abspath(pattern)]
        if not images:
            known = ", ".join(IMAGE_SUFFIXES)
            raise InputError(f"{pattern}: no image matches (known are {known})")
        found.update(dict.fromkeys(images))
        others.update(dict.fromkeys(files))
    root = os.path.commonpath([os.path.dirname(path) for path in found])
    paths = {os.path.relpath(path, root): path for path in found}
    return Images(paths, [path for path in others if path not in found])


def _expand(pattern: str) -> list[str]:
    """Files, whatever their suffix."""
    if os.path.isfile(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        return sorted(_files_below(pattern))
    if os.path.islink(pattern):  # that leads nowhere, of which reading tells
        return [pattern]
    if not glob.has_magic(pattern):
        raise InputError(f"{pattern}: there is no such file or folder")
    return sorted(path for path in _glob(pattern) if not os.path.isdir(path))


def _glob(pattern: str) -> Iterator[str]:
    """As glob.glob, but ``**`` takes each folder once, which ends where folders link in circles."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    first = parts.index("**")
    start, rest = os.sep.join(parts[:first]), parts[first + 1 :]
    tops = glob.glob(start) if start else [os.sep if pattern.startswith(os.sep) else "."]
    for top in filter(os.path.isdir, tops):
        for folder, files in _walk(top):
            if rest:
                yield from _glob(os.path.join(glob.escape(folder), *rest))
            else:
                yield from files


def _files_below(folder: str) -> Iterator[str]:
    return itertools.chain.from_iterable(files for _, files in _walk(folder))


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder once, with the files in it; hidden ones are left out, linked ones come last."""
    seen = set()
    for top, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [os.path.basename(f) for f in sorted(_visible(top, folders), key=_links_last)]
        yield top, _visible(top, files)


def _visible(folder: str, names: list[str]) -> list[str]:
    return [os.path.join(folder, name) for name in names if not name.startswith(".")]


def _links_last(path: str) -> tuple[bool, str]:
    return os.path.islink(path), path


def _raise(error: OSError) -> None:
    raise error


def is_video(name: str) -> bool:
    """Whether an input means a video file or a camera (``camera:0``)."""
    return name.startswith(_CAMERA) or name.lower().endswith(_VIDEO_SUFFIXES)


def check_opencv_name(path: str) -> None:
    """Raise InputError for a name that is no UTF-8, at which OpenCV ends the process."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path!r}: OpenCV takes no name that is not UTF-8: rename it") from error


class Video:
    """
    Frames of a video file or camera.

    Attributes:
        path: of the file; None of a camera.
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
        self.path = None if source.startswith(_CAMERA) else os.path.expanduser(source)
        if self.path and os.path.exists(self.path):
            # FFmpeg takes what stands before a colon of a relative name for a protocol.
            self.path = os.path.abspath(self.path)
        self._capture = self._open(source)
        if not self._capture.isOpened():
            remedy = "is it there, and a whole video file?" if self.path else "is it connected?"
            raise InputError(f"{source}: OpenCV cannot open it: {remedy}")
        self.name = os.path.splitext(os.path.basename(self.path))[0] if self.path else "camera"
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = frames if frames > 0 else None
        self._frames_read, self._seconds_read = 0, 0.0

    def _open(self, source: str) -> cv2.VideoCapture:
        number = source[len(_CAMERA) :]
        if self.path is None and not number.isdecimal():
            raise InputError(f"{source}: a camera is named by its number, as in camera:0")
        check_opencv_name(self.path or source)
        return cv2.VideoCapture(self.path or int(number))

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name (``clip_000000``) and pixels (H, W, 3), uint8, BGR, of each frame."""
        for i in itertools.count():
            there, frame = self._capture.read()
            if not there:
                return
            self._frames_read = i + 1
            self._seconds_read = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 + 1 / self.fps
            yield f"{self.name}_{i:06d}", frame

    def fault(self) -> str:
        """Why what was read to the end is not the whole video, or nothing."""
        if self.path and not self._frames_read:
            return "no frame can be read"
        if self.num_frames is None:
            return ""
        share = self._frames_read / self.num_frames
        if self.path.lower().endswith(_GUESSED_SUFFIXES):
            share = max(share, self._seconds_read * self.fps / self.num_frames)
        # Headers may be wrong by a frame.
        if share >= _WHOLE or self._frames_read >= max(1, self.num_frames - 1):
            return ""
        return (
            f"{self._frames_read} of {self.num_frames} frames can be read: the file is torn, or "
            "its header is wrong"
        )
