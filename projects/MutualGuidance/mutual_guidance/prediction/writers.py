"""
Detections as files that other tools read. Every writer takes one image after the other and keeps
none of them, so that memory does not grow with their number.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from PIL import Image

from ..data.images import has_image_suffix
from ..data.inputs import check_opencv_name
from ..errors import InputError
from ..run_files import replace_file
from ..visualization.predictions import draw_predictions, drawn_by

# A name that is no UTF-8 comes back from these files byte by byte with os.fsencode.
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


class Writer(AbstractContextManager):
    """Writes between ``with`` and its end, also where an error or Ctrl-C ends it early."""

    needs_pixels = False

    def outputs(self, names: Iterable[str]) -> Iterator[Path]:
        """The files that will be written or replaced for images of these names."""
        raise NotImplementedError

    def add(self, name: str, instances: Instances, pixels: np.ndarray | None) -> None:
        """
        Args:
            name: of the image, as find_images and Video give it.
            instances: ``pred_boxes`` in pixels of the image, ``scores`` and ``pred_classes``, on
                the CPU; ``image_size`` is the image's.
            pixels: (H, W, 3), uint8, BGR, perhaps smaller than the image; None where the writer
                does not need them.
        """
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        pass


def check_outputs(inputs: Iterable[str], outputs: Iterable[Path]) -> None:
    """
    Raise InputError where a file to be written is one of the inputs, by whatever path or link.
    """
    files = {_identity(path): path for path in inputs if os.path.exists(path)}
    for path in outputs:
        same = files.get(_identity(path)) if os.path.exists(path) else None
        if same is not None:
            as_input = "" if os.path.abspath(path) == same else f", which is {path} by a link"
            raise InputError(
                f"the input {same}{as_input} would be overwritten: choose another --output"
            )


def _identity(path: str | Path) -> tuple[int, int]:
    """Equal for all paths to one file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


class CocoJson(Writer):
    """
    ``predictions.json``, a data set in COCO's format whose annotations have a ``score`` each. Ids
    count from 1, but categories have those of a COCO data set that the model was trained on. The
    file gets its name when it is whole, and none where an error comes before the first image.
    """

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        self._path = folder / "predictions.json"
        self._part = folder / "predictions.json.part"
        self._metadata = metadata
        self._category_ids = _category_ids(metadata)
        self._num_images = self._num_annotations = 0

    def outputs(self, names: Iterable[str]) -> Iterator[Path]:
        yield from (self._path, self._part)

    def __enter__(self) -> "CocoJson":
        self._part.unlink(missing_ok=True)
        self._file = self._part.open("x", encoding="utf-8")
        # One list stands behind the other in the file, but they grow together.
        self._images = tempfile.TemporaryFile("w+", dir=self._part.parent, encoding="utf-8")
        names = self._metadata.thing_classes
        categories = [
            {"id": i, "name": name} for i, name in zip(self._category_ids, names, strict=True)
        ]
        self._file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        return self

    def add(self, name: str, instances: Instances, pixels: np.ndarray | None) -> None:
        height, width = instances.image_size
        separator = ",\n" if self._num_images else "\n"
        self._num_images += 1
        image = {"id": self._num_images, "file_name": name, "height": height, "width": width}
        self._images.write(separator + json.dumps(image))
        for result in instances_to_coco_json(instances, self._num_images):
            separator = ",\n" if self._num_annotations else "\n"
            self._num_annotations += 1
            annotation = {
                **result,
                "id": self._num_annotations,
                "category_id": self._category_ids[result["category_id"]],
                "area": result["bbox"][2] * result["bbox"][3],
                "iscrowd": 0,
            }
            self._file.write(separator + json.dumps(annotation))

    def __exit__(self, *error: object) -> None:
        with self._file, self._images:
            self._file.write('],\n"images": [')
            self._images.seek(0)
            shutil.copyfileobj(self._images, self._file)
            self._file.write("]}\n")
        if error[0] is None or self._num_images:
            self._part.replace(self._path)
        else:
            self._part.unlink()


def _category_ids(metadata: Metadata) -> list[int]:
    """Of each class."""
    known = metadata.get("thing_dataset_id_to_contiguous_id")
    if known is None:
        return list(range(1, len(metadata.thing_classes) + 1))
    return sorted(known, key=known.get)


class VocText(Writer):
    """
    ``voc/comp4_det_test_CLASS.txt`` for every class, as VOC's devkit reads them: a line a detection
    with image id, score and the box, its pixels counted from 1 and inclusive.
    """

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        """Raise InputError for a class that cannot stand in the name of a file."""
        for name in metadata.thing_classes:
            if name != os.path.basename(name) or "\0" in name:
                raise InputError(
                    f"class {name}: VOC's text has a file of each class's name: leave out --voc"
                )
        self._paths = [
            folder / "voc" / f"comp4_det_test_{name}.txt" for name in metadata.thing_classes
        ]

    def outputs(self, names: Iterable[str]) -> Iterator[Path]:
        yield from self._paths

    def __enter__(self) -> "VocText":
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.touch()
        return self

    def add(self, name: str, instances: Instances, pixels: np.ndarray | None) -> None:
        lines: dict[int, list[str]] = {}
        boxes, scores = instances.pred_boxes.tensor.tolist(), instances.scores.tolist()
        for (x0, y0, x1, y1), score, label in zip(
            boxes, scores, instances.pred_classes.tolist(), strict=True
        ):
            # Detectron2's boxes count from 0 and end beside their last pixel.
            corners = f"{x0 + 1:.2f} {y0 + 1:.2f} {x1:.2f} {y1:.2f}"
            lines.setdefault(label, []).append(f"{voc_id(name)} {score:.6f} {corners}\n")
        for label, of_class in lines.items():  # open one by one: classes may be many
            with self._paths[label].open("a", **_TEXT) as f:
                f.writelines(of_class)


def voc_id(name: str) -> str:
    """The id of an image in VOC's files: its name without an image's suffix; frames have none."""
    return os.path.splitext(name)[0] if has_image_suffix(name) else name


def check_voc_ids(names: Iterable[str]) -> None:
    """Raise InputError where VOC's text, with its columns apart by spaces, cannot tell images."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(voc_id(name), name)
        if other != name:
            raise InputError(f"{other} and {name} are one id in VOC's text: leave out --voc")
        if len(name.split()) > 1:
            raise InputError(f"{name}: VOC's text has no ids with spaces: leave out --voc")


class DrawnImages(Writer):
    """
    Each image with its boxes below ``images/``, under its own name; as PNG where that does not end
    as an image's.
    """

    needs_pixels = True

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        self._folder, self._metadata = folder / "images", metadata

    def outputs(self, names: Iterable[str]) -> Iterator[Path]:
        return (self._folder / name for name in names)

    def add(self, name: str, instances: Instances, pixels: np.ndarray | None) -> None:
        drawn = io.BytesIO()
        suffix = name[name.rindex(".") :] if has_image_suffix(name) else ".png"
        image_format = Image.registered_extensions()[suffix.lower()]
        draw_predictions(pixels, instances, self._metadata).save(drawn, image_format)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda f: f.write(drawn.getbuffer()))


class DrawnVideo(Writer):
    """The frames with their boxes in ``NAME.mp4``, of an even size, as the codec wants it."""

    needs_pixels = True

    def __init__(self, folder: Path, metadata: Metadata, name: str, fps: float) -> None:
        """
        Args:
            name: of the video. fps: frames a second.

        Raises:
            InputError: a path that OpenCV does not take.
        """
        self._path = (folder / f"{name}.mp4").absolute()  # as a Video's
        self._fps = fps
        check_opencv_name(str(self._path))
        self._visualizer = VideoVisualizer(metadata)
        self._writer = None

    def outputs(self, names: Iterable[str]) -> Iterator[Path]:
        yield self._path

    def add(self, name: str, instances: Instances, pixels: np.ndarray | None) -> None:
        drawn = drawn_by(self._visualizer, instances, pixels)
        frame = np.ascontiguousarray(drawn[:, :, ::-1])
        if self._writer is None:
            self._open(frame)
        if frame.shape[:2] != self._size:  # a stream may change it; OpenCV would drop the frame
            frame = cv2.resize(frame, self._size[::-1], interpolation=cv2.INTER_AREA)
        odd = [side % 2 for side in self._size]
        self._writer.write(cv2.copyMakeBorder(frame, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE))

    def _open(self, frame: np.ndarray) -> None:
        self._size = frame.shape[:2]
        height, width = (side + side % 2 for side in self._size)
        self._path.unlink(missing_ok=True)
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._path), codec, self._fps, (width, height))
        if not self._writer.isOpened():
            raise InputError(f"{self._path}: OpenCV cannot write it; leave --draw away")

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
