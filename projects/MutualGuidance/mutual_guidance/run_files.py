"""What a training leaves in its output folder: written whole, read while it is being written."""

import errno
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

METRICS_FILE = "metrics.json"
RESULTS_FILE = "evaluation.json"
EMA_RESULTS_FILE = "evaluation_ema.json"  # of the moving average of the weights
DETECTIONS_FOLDER = "detections"  # what was detected, by data set
CLASS_AP = "AP-"  # before the name of a class, in the results
_CHECKPOINT = re.compile(r"model_(\d{7,}|final)\.pth")
_UNFINISHED = ".unfinished"
# Bytes at the end of metrics.json: more than most lines, and more than AP of 10,000 classes.
_TAILS = (8192, 1 << 20)
_ROW_START = re.compile(r'(?=\{")')


def replace_file(path: str | os.PathLike, write: Callable[[IO[bytes]], Any]) -> None:
    """
    Write a file so that, whatever happens, ``path`` is the old or the new one, whole.

    Raises:
        OSError: it cannot be written; the error names the path.
    """
    folder, name = os.path.split(os.fspath(path))
    # Of a long name the end: 60 letters of 4 bytes, and ours, fit in the 255 that a name may have.
    temporary = os.path.join(folder, f"{name[-60:]}{_UNFINISHED}")
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.isfile(temporary):
            os.remove(temporary)
        cause = _error_of_the_system(error)
        if cause:  # that of a full disk names no file
            raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error
        raise
    _keep_name(folder or ".")


def _keep_name(folder: str) -> None:
    """Have a rename outlast a loss of power, where the file system can do that for a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remedy(error: OSError) -> str:
    """What a person can do where a file cannot be written."""
    return "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"


def _error_of_the_system(error: BaseException | None) -> OSError | None:
    """Itself, or what it was raised on: PyTorch's writer follows one with a RuntimeError."""
    while isinstance(error, RuntimeError):
        error = error.__context__
    return error if isinstance(error, OSError) else None


def write_text(path: str | os.PathLike, text: str) -> None:
    """:func:`replace_file` with a text."""
    replace_file(path, lambda f: f.write(text.encode()))


def checkpoint_files(folder: str) -> list[str]:
    """Checkpoints of a run: that of the end, then the others, the highest iteration first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    # Not by the time of the file, which a copy does not keep.
    found = [(_iteration(m[1]), m[0]) for m in map(_CHECKPOINT.fullmatch, names) if m]
    return [os.path.join(folder, name) for _, name in sorted(found, reverse=True)]


def _iteration(name: str) -> float:
    return math.inf if name == "final" else int(name)


def forget_unfinished(folder: str) -> None:
    """Remove what :func:`replace_file` left of files when its process was killed."""
    for entry in os.scandir(folder):
        if entry.name.endswith(_UNFINISHED) and entry.is_file():
            os.remove(entry.path)


def read_metrics(path: Path) -> tuple[dict[int, dict[str, float]], int]:
    """
    The scalars of ``metrics.json`` by iteration, ascending, and by name.

    A run that was killed and resumed may have left part of a row, with the next row behind it on
    the same line, and wrote some iterations twice, of which the later counts.

    Returns:
        The scalars, and the number of torn rows, which are left out.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    by_iteration: dict[int, dict[str, float]] = {}
    rows = _rows(path.read_text(encoding="utf-8", errors="replace"))
    whole = [row for row in rows if row is not None]
    for iteration, values in whole:
        by_iteration.setdefault(iteration, {}).update(values)
    return dict(sorted(by_iteration.items())), len(rows) - len(whole)


def iterations_done(path: Path) -> int:
    """As far as ``metrics.json`` knows, without reading all of it; 0 where it is missing."""
    if not path.is_file():
        return 0
    with path.open("rb") as f:
        for tail in _TAILS:
            f.seek(max(0, path.stat().st_size - tail))
            rows = [row for row in _rows(f.read().decode(errors="replace")) if row is not None]
            if rows:
                return 1 + max(iteration for iteration, _ in rows)
    return 0


def _rows(text: str) -> list[tuple[int, dict[str, float]] | None]:
    """Iteration and scalars of each row; None for a torn one."""
    rows = []
    for line in text.splitlines():
        row = _row(line)
        rows += [row] if row else [_row(part) for part in _ROW_START.split(line) if part]
    return rows


def _row(text: str) -> tuple[int, dict[str, float]] | None:
    try:
        row = json.loads(text)
        return int(row.pop("iteration")), {name: float(value) for name, value in row.items()}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def read_results(path: Path) -> dict[str, dict[str, dict[str, float | None]]]:
    """
    The results of ``evaluation.json`` by data set, group ("bbox" and perhaps others) and metric,
    None where a metric is not defined.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is torn or holds anything else.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    if not results:
        raise ValueError("it holds the results of no data set")
    try:
        values = [
            value
            for groups in results.values()
            for metrics in (groups["bbox"], *groups.values())
            for value in metrics.values()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError('it does not hold {data set: {"bbox": {metric: value}}}') from error
    if not all(isinstance(value, int | float | None) for value in values):
        raise ValueError("a metric in it is no number")
    return results


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys of a config to dotted ones."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
