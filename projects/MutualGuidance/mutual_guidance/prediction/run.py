"""Prediction on a stream of images: read ahead in threads, in batches, written at once."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..data.images import read_image
from ..engine import Predictor
from ..errors import InputError
from ..visualization.predictions import bounded
from .writers import Writer


class Item(NamedTuple):
    """An input on its way, read and preprocessed."""

    name: str
    pixels: np.ndarray | None  # (H, W, 3), uint8, BGR, of a bounded size; where a writer needs them
    model_input: dict | None
    fault: str = ""  # why it could not be read; the others are None then


@dataclass
class Summary:
    """What has become of the inputs."""

    images: int = 0
    boxes: int = 0
    best_score: float = 0.0  # of all boxes, those below the least score too
    faults: dict[str, str] = field(default_factory=dict)  # name to reason
    seconds: float = 0.0  # reading and drawing included
    model_seconds: float = 0.0
    interrupted: bool = False


def predict_all(
    predictor: Predictor,
    source: Iterable[tuple[str, str | np.ndarray]],
    writers: Sequence[Writer],
    min_score: float,
    batch_size: int,
    total: int | None = None,
) -> Summary:
    """
    Predict until the source ends or Ctrl-C; what is done is written then.

    Args:
        source: name, and path or pixels (H, W, 3), uint8, BGR, of each image.
        min_score: least score of what is written. total: number of images, for the bar.
    """
    summary = Summary()
    read = partial(load, predictor, keep_pixels=any(w.needs_pixels for w in writers))
    with ExitStack() as stack, tqdm(total=total, unit="image", desc="Predicting") as bar:
        for writer in writers:
            stack.enter_context(writer)
        items = read_ahead(source, read, batch_size)
        start = time.perf_counter()
        try:
            while batch := list(islice(items, batch_size)):
                _predict_batch(predictor, batch, writers, min_score, summary)
                bar.update(len(batch))
        except KeyboardInterrupt:
            summary.interrupted = True
        summary.seconds = time.perf_counter() - start
    return summary


def _predict_batch(
    predictor: Predictor,
    batch: list[Item],
    writers: Sequence[Writer],
    min_score: float,
    summary: Summary,
) -> None:
    summary.faults.update({item.name: item.fault for item in batch if item.fault})
    whole = [item for item in batch if not item.fault]
    before = time.perf_counter()
    outputs = predictor.predict([item.model_input for item in whole])
    summary.model_seconds += time.perf_counter() - before
    for item, instances in zip(whole, outputs, strict=True):
        summary.best_score = max([summary.best_score, *instances.scores.tolist()])
        instances = instances[instances.scores >= min_score]
        for writer in writers:
            writer.add(item.name, instances, item.pixels)
        summary.images += 1
        summary.boxes += len(instances)


def load(predictor: Predictor, named: tuple[str, str | np.ndarray], keep_pixels: bool) -> Item:
    """Read and preprocess an image file, or a frame that is read already."""
    name, source = named
    try:
        pixels = read_image(source) if isinstance(source, str) else source
        model_input = predictor.preprocess(pixels)
    except (ValueError, InputError) as error:
        return Item(name, None, None, str(error))
    return Item(name, bounded(pixels) if keep_pixels else None, model_input)


def read_ahead(source: Iterable, read: Callable[..., Item], batch_size: int) -> Iterator[Item]:
    """The loaded inputs in order, up to a batch ahead of what is asked for, in threads."""
    with ThreadPoolExecutor(min(batch_size, os.cpu_count() or 1)) as pool:
        pending: deque = deque()
        for x in source:
            pending.append(pool.submit(read, x))
            if len(pending) > batch_size:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
