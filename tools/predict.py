#!/usr/bin/env python3
"""
Predict with a trained detector: draw its boxes and write them as COCO JSON or VOC text.

    python tools/predict.py --run output/BCCD/retinanet_R_18 photos/ "more/**/*.png" --output found
    python tools/predict.py --config-file configs/BCCD/retinanet_R_18.yaml --weights model.pth a.jpg
    python tools/predict.py --run output/BCCD/retinanet_R_18 clip.mp4 --draw
    python tools/predict.py --run output/BCCD/retinanet_R_18 camera:0 --draw    # until Ctrl-C

Inputs are images, folders (every image below them) and globs, or one video file or camera.
"""

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer
from PIL import Image
from tqdm import tqdm

from mutual_guidance.data.images import read_image
from mutual_guidance.data.inputs import (
    Video,
    find_images,
    has_image_suffix,
    is_video,
)
from mutual_guidance.engine import Predictor
from mutual_guidance.engine.predictor import add_model_arguments, check_model_arguments
from mutual_guidance.errors import InputError, run_main
from mutual_guidance.evaluation.writers import Prediction, coco_dataset, voc_id, write_voc

INTERRUPTED = 130  # the exit code of a shell's Ctrl-C


class Item(NamedTuple):
    """An input on its way, read and preprocessed."""

    name: str
    pixels: np.ndarray | None  # (H, W, 3), uint8, BGR
    model_input: dict | None
    fault: str = ""  # why it could not be read; the others are None then


@dataclass
class Result:
    """What has become of the inputs."""

    predictions: list[Prediction] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)  # name to reason
    seconds: float = 0.0  # reading and drawing included
    model_seconds: float = 0.0
    interrupted: bool = False


def main() -> int:
    return run_main(run, parse_args())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.add_argument("--output", type=Path, default=Path("output/predictions"))
    parser.add_argument("--draw", action="store_true", help="draw the boxes: images/ or a video")
    parser.add_argument("--coco", action="store_true", help="write predictions.json")
    parser.add_argument("--voc", action="store_true", help="write voc/comp4_det_test_CLASS.txt")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="least score that is drawn; files have all"
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    args = parser.parse_args()
    check_model_arguments(parser, args)
    if args.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if not (args.draw or args.coco or args.voc):
        args.draw = args.coco = True
    return args


def run(args: argparse.Namespace) -> int:
    """Predict, write and tell; return the exit code."""
    video = open_video(args.inputs)
    files = {} if video else find_images(args.inputs)
    if args.voc:
        check_voc_ids([video.name] if video else files)
    predictor = Predictor.from_args(args)
    if args.voc:
        check_voc_classes(predictor.metadata.thing_classes)
    args.output.mkdir(parents=True, exist_ok=True)
    drawing = build_drawing(args, video, predictor.metadata) if args.draw else None
    total = video.num_frames if video else len(files)
    items = read_ahead(video or files.items(), partial(load, predictor), args.batch_size)
    result = Result()
    try:
        with tqdm(total=total, unit="image", desc="Predicting") as bar:
            predict(predictor, items, args.batch_size, drawing, result, bar)
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        if drawing:
            drawing.close()
        write(result.predictions, predictor.metadata, args)
    return report(result, total, args.output)


def open_video(inputs: list[str]) -> Video | None:
    """The video or camera, or None where all inputs are images."""
    videos = [name for name in inputs if is_video(name)]
    if videos and len(inputs) > 1:
        raise InputError(f"{videos[0]}: a video or camera must be the only input")
    return Video(videos[0]) if videos else None


def check_voc_ids(names: Iterable[str]) -> None:
    """Raise InputError where VOC's text, with its columns apart by spaces, cannot tell images."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(voc_id(name), name)
        if other != name:
            raise InputError(f"{other} and {name} are one id in VOC's text: write --coco instead")
        if len(name.split()) > 1:
            raise InputError(f"{name}: VOC's text has no ids with spaces: write --coco instead")


def check_voc_classes(classes: Iterable[str]) -> None:
    """Raise InputError for a class that cannot stand in the name of a file."""
    for name in classes:
        if name != os.path.basename(name):
            raise InputError(
                f"class {name}: VOC's text has a file of each class's name: write --coco instead"
            )


def load(predictor: Predictor, named: tuple[str, str | np.ndarray]) -> Item:
    """Read and preprocess an image file, or a frame that is read already."""
    name, source = named
    try:
        pixels = read_image(source) if isinstance(source, str) else source
    except ValueError as error:
        return Item(name, None, None, str(error))
    return Item(name, pixels, predictor.preprocess(pixels))


def read_ahead(source: Iterable, load: Callable[..., Item], batch_size: int) -> Iterator[Item]:
    """The loaded inputs in order, up to a batch ahead of what is asked for, in threads."""
    with ThreadPoolExecutor(min(batch_size, os.cpu_count() or 1)) as pool:
        pending: deque = deque()
        for x in source:
            pending.append(pool.submit(load, x))
            if len(pending) > batch_size:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class ImageDrawing:
    """
    Writes each image with its boxes below ``images/``, under its own name; as PNG where that does
    not end as an image's.
    """

    def __init__(self, folder: Path, metadata: Metadata, threshold: float) -> None:
        self.folder, self.metadata, self.threshold = folder / "images", metadata, threshold

    def add(self, item: Item, prediction: Prediction) -> None:
        shown = prediction.instances[prediction.instances.scores >= self.threshold]
        visualizer = Visualizer(item.pixels[:, :, ::-1], self.metadata)
        path = self.folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = Image.fromarray(visualizer.draw_instance_predictions(shown).get_image())
        drawn.save(path, format=None if has_image_suffix(item.name) else "PNG")

    def close(self) -> None:
        pass


class VideoDrawing:
    """Writes the frames with their boxes to an MP4 file."""

    def __init__(self, folder: Path, video: Video, metadata: Metadata, threshold: float) -> None:
        self.path, self.fps, self.threshold = folder / f"{video.name}.mp4", video.fps, threshold
        self.visualizer = VideoVisualizer(metadata)
        self.writer = None

    def add(self, item: Item, prediction: Prediction) -> None:
        shown = prediction.instances[prediction.instances.scores >= self.threshold]
        drawn = self.visualizer.draw_instance_predictions(item.pixels[:, :, ::-1], shown)
        frame = np.ascontiguousarray(drawn.get_image()[:, :, ::-1])
        if self.writer is None:
            size = (frame.shape[1], frame.shape[0])
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            self.writer = cv2.VideoWriter(str(self.path), codec, self.fps, size)
            if not self.writer.isOpened():
                raise InputError(f"{self.path}: OpenCV cannot write it; leave --draw away")
        self.writer.write(frame)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()


def build_drawing(
    args: argparse.Namespace, video: Video | None, metadata: Metadata
) -> ImageDrawing | VideoDrawing:
    if video:
        return VideoDrawing(args.output, video, metadata, args.threshold)
    return ImageDrawing(args.output, metadata, args.threshold)


def predict(
    predictor: Predictor,
    items: Iterator[Item],
    batch_size: int,
    drawing: ImageDrawing | VideoDrawing | None,
    result: Result,
    bar: tqdm,
) -> None:
    """Predict batch by batch until the items end; what is done stands in ``result`` at any time."""
    start = time.perf_counter()
    while batch := list(islice(items, batch_size)):
        result.faults.update({item.name: item.fault for item in batch if item.fault})
        read = [item for item in batch if not item.fault]
        before = time.perf_counter()
        outputs = predictor.predict([item.model_input for item in read])
        result.model_seconds += time.perf_counter() - before
        for item, instances in zip(read, outputs, strict=True):
            prediction = Prediction(item.name, instances)
            if drawing:
                drawing.add(item, prediction)
            result.predictions.append(prediction)
        bar.update(len(batch))
        result.seconds = time.perf_counter() - start


def write(predictions: list[Prediction], metadata: Metadata, args: argparse.Namespace) -> None:
    """The files that were asked for."""
    if args.coco:
        path = args.output / "predictions.json"
        path.write_text(json.dumps(coco_dataset(predictions, metadata)), encoding="utf-8")
    if args.voc:
        folder = args.output / "voc"
        folder.mkdir(exist_ok=True)
        write_voc(predictions, metadata.thing_classes, str(folder))


def report(result: Result, total: int | None, output: Path) -> int:
    """Say what was done and what was not; return the exit code."""
    count = len(result.predictions)
    boxes = sum(len(p.instances) for p in result.predictions)
    of = f" of {total}" if total and total > count else ""
    print(f"{count}{of} images, {boxes} boxes: {output}")
    if result.seconds:
        print(
            f"{count / result.seconds:.1f} images a second "
            f"(the model alone: {count / result.model_seconds:.1f})"
        )
    for name, reason in result.faults.items():
        print(f"not read: {name}: {reason}", file=sys.stderr)
    if result.interrupted:
        print("Interrupted: what was done until then is written", file=sys.stderr)
        return INTERRUPTED
    if result.faults:
        print(f"error: {len(result.faults)} of {total} images cannot be read", file=sys.stderr)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
