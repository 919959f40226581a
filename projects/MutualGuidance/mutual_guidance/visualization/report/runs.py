"""What runs left in their folders. Any file may be absent, torn or alien."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ...errors import InputError, UserError, printable
from ...evaluation import misalignment
from ...run_files import EMA_RESULTS_FILE, METRICS_FILE, RESULTS_FILE
from .. import ASSIGNMENTS_FOLDER
from ..film import COUNTS_FILE
from .files import (
    image_uri,
    read_boxes_results,
    read_command,
    read_config,
    read_counts,
    read_curves,
    read_misalignment,
    thinned,
)
from .found import Found, detection_files, read_found

T = TypeVar("T")
Troubles = list[tuple[str, str]]  # tab of the page and sentence

# Of a run's images, and of the pictures of each over time, that a page holds at most.
MAX_FILMS, MAX_FRAMES = 8, 12
LOG_FILE = "log.txt"


@dataclass
class Frame:
    """One picture of a film."""

    iteration: int
    uri: str
    caption: str


@dataclass
class Run:
    """An output folder. What could not be read is empty, and a sentence in ``troubles`` says so."""

    label: str
    command: str = ""  # that trained it
    date: str = ""  # on which something was last logged
    config: dict[str, Any] = field(default_factory=dict)  # by dotted key
    curves: dict[str, dict[int, float]] = field(default_factory=dict)  # by name and iteration
    results: dict[str, dict[str, float]] = field(default_factory=dict)  # by data set and metric
    ema_results: dict[str, dict[str, float]] = field(default_factory=dict)  # the same of the EMA
    misalignment: dict[str, dict] = field(default_factory=dict)  # by data set
    found: dict[str, Found] = field(default_factory=dict)  # by data set
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
    return [printable(path.relative_to(common).as_posix()) for path in paths]


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
    if (folder / EMA_RESULTS_FILE).is_file():
        run.ema_results = read("results", read_boxes_results, folder / EMA_RESULTS_FILE, {})
    if (folder / LOG_FILE).is_file():
        run.command = read("configuration", read_command, folder / LOG_FILE, "")
    if metrics.is_file():
        written = datetime.fromtimestamp(metrics.stat().st_mtime)
        run.date = written.strftime("%Y-%m-%d %H:%M")
    _read_misalignment_of(run, folder)
    _read_films_of(run, folder / ASSIGNMENTS_FOLDER)
    _read_found_of(run, folder, config)
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
    except UserError as error:
        sentence = f"{path} cannot be shown: {error}"
    troubles.append((tab, sentence))
    return empty


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
    path = folder / COUNTS_FILE
    remedy = "train with VIS_PERIOD 100, or draw checkpoints with tools/visualize_assignments.py"
    captions, torn = read(read_counts, path, ({}, 0), remedy)
    if torn:
        run.troubles.append(("assignments", f"{path}: {torn} torn lines are left out"))
    if path.is_file() and not captions:
        run.troubles.append(("assignments", f"{path} names no picture; {remedy}"))
    images = sorted({(folder / file).parent for file in captions})
    if len(images) > MAX_FILMS:
        sentence = f"{folder}: of {len(images)} images the first {MAX_FILMS} are shown"
        run.troubles.append(("assignments", sentence))
    for image in images[:MAX_FILMS]:
        drawn = {path: captions.get(f"{image.name}/{path.name}") for path in image.glob("*.png")}
        paths = sorted(p for p, text in drawn.items() if text is not None and p.stem.isdecimal())
        frames = []
        for path in thinned(paths, MAX_FRAMES):
            uri = read(image_uri, path, None)
            if uri is not None:
                frames.append(Frame(int(path.stem), uri, drawn[path]))
        if frames:
            run.films[image.name] = frames


def _read_found_of(run: Run, folder: Path, config: Path) -> None:
    files = detection_files(folder)
    for name, path in files.items():
        read = partial(read_found, dataset=name, config=config)
        found = attempt(run.troubles, "detections", read, path, None)
        if found is not None:
            run.found[name] = found
    if not files:
        remedy = "let the training end, or evaluate with train_net.py --eval-only"
        run.troubles.append(("detections", f"{folder} has no detections; {remedy}"))
