"""The files that a run leaves in its folder, one by one. Any may be absent, torn or alien."""

import ast
import base64
import io
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ...documents import read_yaml
from ...evaluation import misalignment
from ...run_files import flatten, read_metrics, read_results
from ..film import read_records

T = TypeVar("T")

# Keys are written sorted; half a YAML file is often YAML, too.
_LAST_KEY = "VIS_PERIOD"
_ARGUMENTS = re.compile(r"Command line arguments: (Namespace\(.*\))$", re.M)


def read_config(path: Path) -> dict[str, Any]:
    """Values by dotted key. Raises ValueError where the end is missing."""
    content = read_yaml(path)
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


def image_uri(path: Path) -> str:
    """
    A picture as a data URI.

    Raises:
        OSError, ValueError: the file is missing, torn or no picture.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return jpeg_uri(image)
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def jpeg_uri(image: Image.Image) -> str:
    """The data URI of a JPEG, which is smaller than a PNG."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=75, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def read_counts(path: Path) -> tuple[dict[str, str], int]:
    """What the pictures of a film count, as text by file; number of torn lines."""
    records, torn = read_records(path)
    texts = {
        record["file"]: ", ".join(f"{k} {n}".replace("_", " ") for k, n in record["counts"].items())
        for record in records
    }
    return texts, len(torn)


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def read_command(log: Path) -> str:
    """
    The command of the training that wrote the log: the last that did not go on from a checkpoint,
    since what was begun before left none.

    Raises:
        OSError: there is no log.
    """
    commands = {False: "", True: ""}  # by whether it resumed
    for text in _ARGUMENTS.findall(log.read_text(encoding="utf-8", errors="replace")):
        try:
            call = ast.parse(text, mode="eval").body
            args = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
            if args["eval_only"]:
                continue
            processes = ["--num-gpus", str(args["num_gpus"])] if args["num_gpus"] != 1 else []
            words = ["python", "train_net.py", "--config-file", args["config_file"], *processes]
            command = shlex.join(map(str, [*words, *args["opts"]]))
            resumed = bool(args.get("resume"))
            commands[resumed] = (resumed and commands[True]) or command
        except (AttributeError, KeyError, SyntaxError, TypeError, ValueError):
            continue
    return commands[False] or commands[True]
