"""
What stands on top of the report: of each run what it trained, on what, when and how. A person may
have edited the values of the config.
"""

import statistics
from typing import Any

from .runs import Run


def about(run: Run) -> dict[str, str]:
    """By name; what the files of the run do not tell is left out."""
    told = {
        "Strategy": run.config.get("MODEL.MUTUAL_GUIDANCE.STRATEGY"),
        "Detector": _detector(run),
        "Data": _data(run),
        "Training": _training(run),
        "Last written": run.date,
        "First command": run.command,
    }
    return {name: text for name, text in told.items() if text}


def _detector(run: Run) -> str | None:
    size = run.config.get("INPUT.SQUARE_SIZE")
    names = [run.config.get(key) for key in ("MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME")]
    return " on ".join(str(name) for name in names if name) + (f", {size} pixels" if size else "")


def _data(run: Run) -> str | None:
    names = [_listed(run.config.get(f"DATASETS.{k}", ())) for k in ("TRAIN", "TEST")]
    classes = run.config.get("DATASETS.CLASSES")
    if not any(names):
        return None
    text = f"trained on {names[0] or 'nothing'}, tested on {names[1] or 'nothing'}"
    if not classes or not isinstance(classes, (list, tuple)):
        return text
    shown = [*classes[:10], "..."] if len(classes) > 10 else classes
    return f"{text}; {len(classes)} classes: {_listed(shown)}"


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) if isinstance(names, (list, tuple)) else str(names)


def _training(run: Run) -> str | None:
    done = max((max(values) for values in run.curves.values()), default=-1) + 1
    if not done:
        return None
    most, batch = run.config.get("SOLVER.MAX_ITER"), run.config.get("SOLVER.IMS_PER_BATCH")
    # The evaluation at the end stands at the iteration after the last.
    is_known = isinstance(most, int) and most > 0
    text = f"{min(done, most)} of {most} iterations" if is_known else f"{done} iterations"
    text += f" of {batch} images" if batch else ""
    seconds = list(run.curves.get("time", {}).values())
    return text + (f", {statistics.median(seconds):.2g} s each" if seconds else "")
