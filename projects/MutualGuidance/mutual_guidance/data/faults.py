"""What can be wrong in a data set, and how it is told."""

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from tabulate import tabulate

from ..errors import printable
from ..run_files import write_text

# What a fault does, the gravest first.
STOPS, DROPPED, CLIPPED, IGNORED, TOLD = "stops", "dropped", "clipped", "ignored", "told"
_EFFECTS = (STOPS, DROPPED, CLIPPED, IGNORED, TOLD)
_MAX_REASONS = 30
_MAX_EXAMPLES = 3

# What stands between the lines and columns of the list, and may stand in names of files.
_BETWEEN = str.maketrans({"\t": r"\t", "\n": r"\n"})


class Fault(NamedTuple):
    """Something wrong or odd in a file."""

    file: str
    reason: str  # in the same words for all of its kind, which share a row of the table
    detail: str = ""  # where in the file, and what stands there
    effect: str = STOPS
    count: int = 1

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}" if self.detail else self.file


def repeated(names: Iterable[Hashable]) -> list[Hashable]:
    """What stands more than once, sorted."""
    return sorted((n for n, count in Counter(names).items() if count > 1), key=str)


def stopping(faults: Iterable[Fault]) -> bool:
    """Whether one of them stops a run."""
    return any(fault.effect == STOPS for fault in faults)


def fault_table(faults: Sequence[Fault]) -> str:
    """A row a reason, what stops the run first: how often, and where, for example."""
    kinds: dict[tuple[int, str], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((_EFFECTS.index(fault.effect), fault.reason), []).append(fault)
    ordered = sorted(kinds.items(), key=lambda kind: kind[0][0])
    rows = [
        (
            _EFFECTS[effect],
            sum(fault.count for fault in of_kind),
            reason,
            "\n".join(map(str, of_kind[:_MAX_EXAMPLES])),
        )
        for (effect, reason), of_kind in ordered
    ]
    headers = ("effect", "count", "reason", "for example")
    table = tabulate(rows[:_MAX_REASONS], headers, tablefmt="simple", disable_numparse=True)
    more = Counter(effect for effect, *_ in rows[_MAX_REASONS:])
    if more:
        table += "\n... and more reasons: " + ", ".join(f"{n} {e}" for e, n in more.items())
    return printable(table)


def write_faults(faults: Sequence[Fault], path: str) -> None:
    """Write every fault to a file, a line each: effect, count, file, reason and detail."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    rows = ((effect, count, *texts) for *texts, effect, count in faults)
    lines = ("\t".join(str(v).translate(_BETWEEN) for v in row) + "\n" for row in rows)
    write_text(path, printable("".join(lines)))
