"""What runs and comparisons left in their folders. Any file may be absent, torn or alien."""

import base64
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from PIL import Image

from ...errors import InputError
from ...evaluation import misalignment
from ...run_files import METRICS_FILE, RESULTS_FILE, flatten, read_metrics, read_results
from .. import ASSIGNMENTS_FOLDER

T = TypeVar("T")
Troubles = list[tuple[str, str]]  # tab of the page and sentence

# Keys are written sorted; half a YAML file is often YAML, too.
_LAST_KEY = "VIS_PERIOD"
# Pictures of one image over time that a page holds at most.
MAX_FRAMES = 12


@dataclass
class Frame:
    """One picture of a film."""

    iteration: int
    uri: str
    caption: str


@dataclass
class Comparison:
    """Detections of several runs on one image."""

    image: str
    caption: str
    uri: str


@dataclass
class Run:
    """An output folder. What could not be read is empty, and a sentence in ``troubles`` says so."""

    label: str
    config: dict[str, Any] = field(default_factory=dict)  # by dotted key
    curves: dict[str, dict[int, float]] = field(default_factory=dict)  # by name and iteration
    results: dict[str, dict[str, float]] = field(default_factory=dict)  # by data set and metric
    misalignment: dict[str, dict] = field(default_factory=dict)  # by data set
    films: dict[str, list[Frame]] = field(default_factory=dict)  # by image
    troubles: Troubles = field(default_factory=list)


def run_labels(folders: Sequence[Path]) -> list[str]:
    """
    A short name for each folder: its path from the folder that all have in common.

    Raises:
        InputError: a folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError(f"the same run is given twice: {', '.join(map(str, folders))}")
    common = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(common).as_posix() for path in paths]


def read_run(folder: Path, label: str) -> Run:
    """
    Raises:
        InputError: the folder holds nothing of a run.
    """
    files = [folder / name for name in ("config.yaml", METRICS_FILE, RESULTS_FILE)]
    if not any(path.is_file() for path in files):
        names = ", ".join(path.name for path in files)
        raise InputError(f"{folder} is no output folder of a run: it has none of {names}")
    run = Run(label)
    read = partial(attempt, run.troubles)
    config, metrics, evaluation = files
    run.config = read("configuration", read_config, config, {}, "train_net.py writes it")
    run.curves, torn = read("curves", read_curves, metrics, ({}, 0), "no curve was written yet")
    if torn:
        run.troubles.append(("curves", f"{metrics}: {torn} torn lines are left out"))
    remedy = "let the training end, or evaluate with train_net.py --eval-only"
    run.results = read("results", read_boxes_results, evaluation, {}, remedy)
    _read_misalignment_of(run, folder)
    _read_films_of(run, folder / ASSIGNMENTS_FOLDER)
    return run


def attempt(
    troubles: Troubles, tab: str, read: Callable[[Path], T], path: Path, empty: T, remedy: str = ""
) -> T:
    """``read(path)``, or ``empty`` and a sentence for that tab of the page."""
    try:
        return read(path)
    except FileNotFoundError:
        sentence = f"{path} is missing" + (f"; {remedy}" if remedy else "")
    except (OSError, ValueError, yaml.YAMLError) as error:
        sentence = f"{path} cannot be read, it may be torn: {' '.join(str(error).split())}"
    troubles.append((tab, sentence))
    return empty


def read_config(path: Path) -> dict[str, Any]:
    """Values by dotted key. Raises ValueError where the end is missing."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or _LAST_KEY not in content:
        raise ValueError(f"it lacks {_LAST_KEY}, the last key that train_net.py writes")
    return flatten(content)


def read_curves(path: Path) -> tuple[dict[str, dict[int, float]], int]:
    """Finite values by name and iteration; number of torn rows."""
    by_iteration, torn = read_metrics(path)
    curves: dict[str, dict[int, float]] = {}
    for iteration, values in by_iteration.items():
        for name, value in values.items():
            if math.isfinite(value):
                curves.setdefault(name, {})[iteration] = value
    return curves, torn


def read_lines(path: Path, parse: Callable[[dict], T]) -> tuple[list[T], int]:
    """What ``parse`` makes of each line of JSON, and the number of lines that are torn."""
    parsed, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            parsed.append(parse(json.loads(line)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            torn += 1
    return parsed, torn


def read_boxes_results(path: Path) -> dict[str, dict[str, float]]:
    """AP by data set and metric; NaN where it is not defined. Raises ValueError otherwise."""
    return {
        name: {k: math.nan if v is None else float(v) for k, v in groups["bbox"].items()}
        for name, groups in read_results(path).items()
    }


def read_misalignment(path: Path) -> dict:
    """What the evaluator wrote. Raises ValueError for anything else."""
    details = json.loads(path.read_text(encoding="utf-8"))
    try:
        if not all(isinstance(v, int | float) for v in misalignment.metrics(details).values()):
            raise ValueError("a mean in it is no number")
        for stage in misalignment.STAGES:
            for measure in misalignment.MEASURES:
                histogram = details[stage][measure]["histogram"]
                counts, edges = (np.asarray(histogram[k], float) for k in ("counts", "edges"))
                if edges.shape != (len(counts) + 1,):
                    raise ValueError(f"its histogram of {measure} is incomplete")
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is not what the evaluator writes, {error!r} is wrong") from error
    return details


def read_comparisons(folder: Path) -> tuple[list[Comparison], Troubles]:
    """What tools/compare_detections.py wrote, and what is wrong with it."""
    troubles: Troubles = []
    read = partial(attempt, troubles, "detections")
    index = folder / "comparison.json"
    comparisons = []
    for entry in read(_read_index, index, [], "tools/compare_detections.py writes it"):
        uri = read(image_uri, folder / Path(entry["file"]).name, None)
        if uri is not None:
            caption = f"disagreement {entry['disagreement']:.2f}"
            comparisons.append(Comparison(Path(entry["image"]).name, caption, uri))
    return comparisons, troubles


def _read_index(path: Path) -> list[dict]:
    kinds = {"image": str, "file": str, "disagreement": int | float}
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get(key), kind)
        for entry in entries
        for key, kind in kinds.items()
    ):
        raise ValueError(f"it is no list of mappings with {', '.join(kinds)}")
    return entries


def image_uri(path: Path) -> str:
    """
    A picture as the data URI of a JPEG, which is smaller than a PNG.

    Raises:
        OSError, ValueError: the file is missing, torn or no picture.
    """
    data = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.convert("RGB").save(data, "JPEG", quality=75, subsampling=0)
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _read_misalignment_of(run: Run, folder: Path) -> None:
    files = sorted((folder / misalignment.FOLDER).glob("**/*.json"))
    for path in files:
        details = attempt(run.troubles, "misalignment", read_misalignment, path, None)
        if details is not None:
            name = path.relative_to(folder / misalignment.FOLDER).with_suffix("").as_posix()
            run.misalignment[name] = details
    if not files:
        remedy = "train, or evaluate with --eval-only, with TEST.MISALIGNMENT True"
        run.troubles.append(("misalignment", f"{folder} has no misalignment figures; {remedy}"))


def _read_films_of(run: Run, folder: Path) -> None:
    """What :class:`Film` has written there, and has not forgotten since."""
    read = partial(attempt, run.troubles, "assignments")
    path = folder / "counts.jsonl"
    remedy = "train with VIS_PERIOD above 0, such as VIS_PERIOD 100"
    captions, torn = read(read_counts, path, ({}, 0), remedy)
    if torn:
        run.troubles.append(("assignments", f"{path}: {torn} torn lines are left out"))
    if path.is_file() and not captions:
        run.troubles.append(("assignments", f"{path} names no picture; {remedy}"))
    for image in sorted(path for path in folder.glob("*") if path.is_dir()):
        drawn = {path: captions.get(f"{image.name}/{path.name}") for path in image.glob("*.png")}
        paths = sorted(p for p, text in drawn.items() if text is not None and p.stem.isdecimal())
        frames = []
        for path in thinned(paths, MAX_FRAMES):
            uri = read(image_uri, path, None)
            if uri is not None:
                frames.append(Frame(int(path.stem), uri, drawn[path]))
        if frames:
            run.films[image.name] = frames


def read_counts(path: Path) -> tuple[dict[str, str], int]:
    """What the pictures count, as text by file; number of bad lines."""
    rows, torn = read_lines(path, lambda row: (str(row["file"]), row["counts"].items()))
    texts = {
        file: ", ".join(f"{name} {count}".replace("_", " ") for name, count in counts)
        for file, counts in rows
    }
    return texts, torn


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
