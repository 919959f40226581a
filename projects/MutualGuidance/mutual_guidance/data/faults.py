"""What can be wrong in a data set, and how it is told."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from tabulate import tabulate

_MAX_ROWS = 30


def repeated(names: Iterable[Hashable]) -> list[Hashable]:
    """What stands more than once, sorted."""
    return sorted((n for n, count in Counter(names).items() if count > 1), key=str)


class Fault(NamedTuple):
    """One thing wrong in one file."""

    file: str
    reason: str
    structural: bool  # stops the run; otherwise the box is dropped


def box_fault(box: Sequence[float], width: float, height: float) -> str | None:
    """Why a box (XYXY, pixels) of an image of that size is of no use, or None."""
    x0, y0, x1, y1 = box
    if not all(math.isfinite(v) for v in box):
        return f"box {list(box)} is not finite"
    if x1 <= x0 or y1 <= y0:
        return f"zero-area or inverted box {list(box)}"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return f"box {list(box)} outside the {width}x{height} image"
    if x0 < -width or y0 < -height or x1 > 2 * width or y1 > 2 * height:
        return f"box {list(box)} reaches more than a {width}x{height} image beyond the image"
    return None


def fault_table(faults: Sequence[Fault]) -> str:
    """A table by file and reason, what stops the run first, cut at 30 rows."""
    ordered = sorted(faults, key=lambda f: (not f.structural, f.file))
    rows = [(f.file, f.reason, "stops" if f.structural else "dropped") for f in ordered]
    table = tabulate(rows[:_MAX_ROWS], headers=("file", "reason", ""), tablefmt="pipe")
    if len(rows) > _MAX_ROWS:
        effects = Counter(effect for _, _, effect in rows[_MAX_ROWS:])
        more = ", ".join(f"{count} {effect}" for effect, count in effects.items())
        table += f"\n... and more: {more}"
    return table
