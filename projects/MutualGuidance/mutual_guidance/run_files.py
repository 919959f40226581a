"""What a training leaves in its output folder, read while it is still being written, too."""

import json
import re
from pathlib import Path

METRICS_FILE = "metrics.json"
RESULTS_FILE = "evaluation.json"
_TAIL = 8192  # bytes, more than a line of metrics.json
_ROW_START = re.compile(r'(?=\{")')


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
        f.seek(max(0, path.stat().st_size - _TAIL))
        rows = _rows(f.read().decode(errors="replace"))
    return max((row[0] + 1 for row in rows if row is not None), default=0)


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
