"""
The detections of an evaluation as a small file, to evaluate them again without the detector.

Shape symbols: N images, D detections of all of them.
"""

import itertools
import logging
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from ..run_files import DETECTIONS_FOLDER, replace_file

logger = logging.getLogger(__name__)

_MOST = np.iinfo(np.uint16).max


class Detections(NamedTuple):
    """Of an image, XYXY in pixels: (D, 4) float64, (D,) float64 and (D,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


NOTHING = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


def detections_of(instances: Instances) -> Detections:
    """Of an image, from what a detector gives."""
    return Detections(
        instances.pred_boxes.tensor.cpu().double().numpy(),
        instances.scores.cpu().double().numpy(),
        instances.pred_classes.cpu().numpy(),
    )


class DetectionsWriter(DatasetEvaluator):
    """Measures nothing, but writes ``detections/<data set>.npz``."""

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        self._path = os.path.join(output_dir, DETECTIONS_FOLDER, f"{dataset_name}.npz")

    def reset(self) -> None:
        self._detections: dict[str, Detections] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for x, output in zip(inputs, outputs, strict=True):
            self._detections[x["image_id"]] = detections_of(output["instances"])

    def evaluate(self) -> None:
        gathered = comm.gather(self._detections, dst=0)
        if comm.is_main_process():
            detections = dict(itertools.chain.from_iterable(d.items() for d in gathered))
            write_detections(self._path, detections)
            logger.info(f"Detections saved to {self._path}")


def write_detections(path: str | Path, detections: dict[str, Detections]) -> None:
    """
    Write the detections of images, by id, with scores and coordinates of 16 bits, these in steps of
    the image's largest.
    """
    columns = zip(*detections.values(), strict=True)
    boxes, scores, classes = (np.concatenate(column) for column in columns)
    counts = [len(d.scores) for d in detections.values()]
    units = np.array([d.boxes.max(initial=1) / _MOST for d in detections.values()])  # pixels
    boxes = boxes.clip(min=0) / np.repeat(units, counts)[:, None]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    arrays = {
        "image_ids": np.array([str(image_id) for image_id in detections]),
        "counts": np.array(counts, np.uint16),
        "units": units,
        "boxes": np.round(boxes).astype(np.uint16).T,  # a row a coordinate packs better
        "scores": np.round(scores * _MOST).astype(np.uint16),
        "classes": classes.astype(np.uint16),
    }
    replace_file(str(path), lambda f: np.savez_compressed(f, **arrays))


def read_detections(path: str | Path) -> dict[str, Detections]:
    """
    By image id, as :func:`write_detections` wrote them.

    Raises:
        OSError: it is missing or cannot be read. ValueError: it is damaged, or no such file.
    """
    try:
        with np.load(path) as f:
            counts = f["counts"].astype(int)
            ends = counts.cumsum()
            units = np.repeat(f["units"], counts)[:, None]
            columns = f["boxes"].T * units, f["scores"] / _MOST, f["classes"].astype(int)
            parts = zip(*(np.split(column, ends[:-1]) for column in columns), strict=True)
            ids = map(str, f["image_ids"])
            return {i: Detections(*part) for i, part in zip(ids, parts, strict=True)}
    except (EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"it holds no detections ({error})") from error
