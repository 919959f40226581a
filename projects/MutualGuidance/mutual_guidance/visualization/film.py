"""
A folder of pictures over the iterations of a training:

    IMAGE/ITERATION.png   seven digits
    counts.jsonl          a line a picture: iteration, image, file (below the folder) and counts
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

from ..errors import OutputError
from ..run_files import replace_file, write_text
from . import canvas

COUNTS_FILE = "counts.jsonl"
_FRAME_MS = 700
_LAST_FRAME_MS = 2500
logger = logging.getLogger(__name__)


class Film:
    """
    Writes and reads such a folder. Every file is whole whenever the program ends, and a picture of
    the same image and iteration takes the place of the one before.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self._path = self.folder / COUNTS_FILE

    def records(self) -> list[dict]:
        """The lines of counts.jsonl; what is no such line is left out with a warning."""
        if not self._path.exists():
            return []
        records, torn = read_records(self._path)
        for number in torn:
            logger.warning(f"{self._path}, line {number}: not the record of a picture, left out")
        return records

    def add(
        self, image_name: str, iteration: int, picture: Image.Image, counts: dict[str, int]
    ) -> None:
        """Write a picture and its line. Raises OSError."""
        file = f"{image_name}/{iteration:07d}.png"
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"iteration": iteration, "image": image_name, "file": file, "counts": counts}
        with self._alone():
            replace_file(path, lambda f: picture.save(f, "PNG"))
            self._write([*(r for r in self.records() if r["file"] != file), record])

    def forget_from(self, iteration: int) -> None:
        """Drop the lines from an iteration on, soon to be drawn anew. Raises OSError."""
        if self._path.exists():
            with self._alone():
                self._write(r for r in self.records() if r["iteration"] < iteration)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for a training or tools/visualize_assignments.py that draws here, too."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # on a file system without locks
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)  # which ends the lock

    def write_gif(self, image_name: str) -> Path | None:
        """
        Write IMAGE/film.gif of all pictures of an image that are still there, by iteration.

        Returns:
            Its path, or None where there are fewer than two pictures.

        Raises:
            OSError: the file cannot be written.
            OutputError: the pictures differ in size.
        """
        records = sorted(
            (r for r in self.records() if r["image"] == image_name), key=lambda r: r["iteration"]
        )
        pictures = [p for r in records if (p := self.folder / r["file"]).is_file()]
        if len(pictures) < 2:
            return None
        if len(set(map(_size, pictures))) > 1:
            raise OutputError(
                f"{self.folder / image_name}: the pictures differ in size, so the config has "
                "changed between them; draw into another folder"
            )
        frames = _with_one_palette(pictures)
        durations = [_FRAME_MS] * (len(pictures) - 1) + [_LAST_FRAME_MS]
        first, rest = next(frames), {"append_images": frames, "duration": durations, "loop": 0}
        path = self.folder / image_name / "film.gif"
        replace_file(path, lambda f: first.save(f, "GIF", save_all=True, **rest))
        return path

    def _write(self, records: Iterable[dict]) -> None:
        """Replace counts.jsonl at once."""
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in records))


def read_records(path: Path) -> tuple[list[dict], list[int]]:
    """
    The records of a counts.jsonl, and the numbers, from 1, of the lines that are none.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = list(map(_record, lines))
    torn = [number for number, record in enumerate(records, 1) if record is None]
    return [record for record in records if record is not None], torn


def _record(line: str) -> dict | None:
    try:
        row = json.loads(line)
        kinds = {"iteration": int, "image": str, "file": str, "counts": dict}
        return {key: kind(row[key]) for key, kind in kinds.items()}
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=("PNG",)) as picture:
        return picture.size


def _read(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as picture:
        return picture.convert("RGB")


def _with_one_palette(paths: list[Path]) -> Iterator[Image.Image]:
    """
    In 256 colours, the same in all frames, so that what stands still takes no space. One is read
    after the other, since those of a long training take four times as much memory in RGB.
    """
    width, height = (max(1, side // 4) for side in _size(paths[0]))
    samples = Image.new("RGB", (width, height * len(paths)))
    for i, frame in enumerate(map(_read, paths)):
        samples.paste(frame.resize((width, height), Image.Resampling.NEAREST), (0, i * height))
    # The marks, of so few pixels that their colours would be merged with others, come on top.
    palette = samples.quantize(256 - len(canvas.MARKS))
    palette.putpalette(sum(canvas.MARKS, ()) + tuple(palette.getpalette()))
    for frame in map(_read, paths):
        yield frame.quantize(palette=palette, dither=Image.Dither.NONE)
