"""What a run leaves behind, read from its folder and kept small enough to be committed."""

import json
import platform
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..archives import archive_fault
from ..errors import ExperimentError
from ..machine import device_name
from ..run_files import (
    CLASS_AP,
    DETECTIONS_FOLDER,
    METRICS_FILE,
    RESULTS_FILE,
    checkpoint_files,
    iterations_done,
    read_metrics,
    read_results,
    write_text,
)
from .grid import Cell
from .schema import BASELINE, PLANNED

_RECORD_FILE = "record.json"
LOG_FILE = "train_net.log"
_FINAL_FILE = "model_final.pth"
_LAUNCH_FILE = "launch.json"
MATCHES_FILE = "matches.npz"
# Of every cell of an experiment, the value of each key; see Plan.config.
Configs = Mapping[Cell, dict[str, Any]]
# Of metrics.json, what says nothing about the training.
_TIMES = ("data_time", "rank_data_time", "time", "eta_seconds", "lr")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """A line for each key, and for each item of a list; see :func:`replace_file`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(key)}: {_json_lines(item)}" for key, item in value.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_text(path, text)


def _json_lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value, allow_nan=False)
    return "[\n  " + ",\n  ".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"


def check_folders(root: Path, configs: Configs) -> None:
    """
    Raises:
        ExperimentError: a folder has a run of another config, or from a start of another config.
    """
    differences = {c: difference(read_launch(root, c), launch(c, configs)) for c in configs}
    others = [f"{cell.folder} holds {text}" for cell, text in differences.items() if text]
    others += [f"{path.parent.relative_to(root)} holds {t}" for path, t in _planned(root, configs)]
    if others:
        more = f", and {len(others) - 1} more of its folders do" if len(others) > 1 else ""
        raise ExperimentError(
            f"{others[0]}{more}: delete what is old or move it elsewhere, or give the experiment's "
            "file another name"
        )


def _planned(root: Path, configs: Configs) -> Iterator[tuple[Path, str]]:
    """What the experiment's folder holds of other plans, outside of its cells."""
    cell = next(iter(configs))
    folder = root / cell.folder.parents[len(cell.place.parts) - 1]
    known = {root / cell.folder for cell in configs}
    for path in sorted(folder.rglob(_LAUNCH_FILE)):
        if path.parent not in known:
            text = other_plan(json.loads(path.read_text()), configs)
            if text:
                yield path, text


def other_plan(there: Mapping[str, Any], configs: Configs) -> str:
    """How a run outside of the experiment's grid had another plan than it; empty if it had not."""
    noted = there.get("config", {})
    plan = next((config for config in configs.values() if "primary" in config), {})
    for key in PLANNED if plan and "primary" in noted else ():
        if noted.get(key, plan[key]) != plan[key]:
            return f"a run with {key} {noted[key]!r} where the experiment has {plan[key]!r}"
    return ""


def note_launch(root: Path, cell: Cell, configs: Configs) -> None:
    """
    Write down in the run's folder its config, and the commit that it is going on with. What an
    earlier run found there is not this one's.
    """
    (root / cell.folder / MATCHES_FILE).unlink(missing_ok=True)
    commits = read_launch(root, cell).get("commits", [])
    commits = list(dict.fromkeys([*commits, _commit(root)]))
    write_json(root / cell.folder / _LAUNCH_FILE, {**launch(cell, configs), "commits": commits})


def launch(cell: Cell, configs: Configs) -> dict[str, dict[str, Any]]:
    """What a run is launched with: its config, and that of its start."""
    return {"config": configs[cell], "start": configs[cell.start] if cell.start else {}}


def difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """
    What a folder holds that is not what is here; empty if nothing. A key that is missing there is
    one that the project did not have then, but for a plan, which is made before the runs.
    """
    for stage, run in (("config", "a run"), ("start", "a run from a start")):
        noted = there.get(stage, {})
        if noted and ("primary" in noted) != ("primary" in here[stage]):
            had = "a plan (primary)" if "primary" in noted else "no plan (primary)"
            return f"{run} that was launched with {had}, unlike the experiment now"
        for key, value in here[stage].items():
            if noted.get(key, value) != value:
                return f"{run} with {key} {noted[key]!r} where the experiment has {value!r}"
    return ""


def read_launch(root: Path, cell: Cell) -> dict[str, Any]:
    """Empty where the run has not been launched."""
    path = root / cell.folder / _LAUNCH_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def is_finished(root: Path, cell: Cell) -> bool:
    """Whether the run has its record, which is written last."""
    return (root / cell.folder / _RECORD_FILE).is_file()


def read_record(root: Path, cell: Cell) -> dict | None:
    """Of a finished run; None for any other."""
    path = root / cell.folder / _RECORD_FILE
    return json.loads(path.read_text()) if is_finished(root, cell) else None


def progress(root: Path, cell: Cell, iterations: int) -> int:
    """How many of a run's iterations are done."""
    if is_finished(root, cell):
        return iterations
    return min(iterations, iterations_done(root / cell.folder / METRICS_FILE))


def write_record(root: Path, cell: Cell, iterations: int, ims_per_batch: int, device: str) -> None:
    """
    Mark a run as finished, with what the results page needs of it.

    Args:
        device: where it was trained, as MODEL.DEVICE has it.

    Raises:
        ExperimentError: its ``evaluation.json`` or ``model_final.pth`` is missing or torn.
    """
    folder = root / cell.folder
    fault = archive_fault(str(folder / _FINAL_FILE))
    if fault:
        raise ExperimentError(f"{folder / _FINAL_FILE}: {fault}")
    by_iteration = metrics_so_far(folder)
    seconds = [row["time"] for row in by_iteration.values() if "time" in row]
    record = {
        "protocol": cell.protocol,
        "config": cell.config,
        "variant": cell.variant,
        "strategy": cell.strategy,
        "baseline": cell.baseline,
        "fold": cell.fold,
        "seed": cell.seed,
        "command": shlex.join(["python", *cell.arguments]),
        "metrics": read_evaluation(folder),
        "iterations": iterations,
        "seconds_per_image": statistics.median(seconds) / ims_per_batch if seconds else None,
        "training_hours": statistics.mean(seconds) * iterations / 3600 if seconds else None,
        "history": history(by_iteration, iterations),
        "commits": read_launch(root, cell)["commits"],
        "environment": environment(device),
    }
    write_json(folder / _RECORD_FILE, record)


def write_finished(root: Path, cell: Cell, record: dict, launched: dict, matches: Path) -> None:
    """
    Make a run finished that finished elsewhere, without what an interrupted one has found here: its
    record comes last.
    """
    folder = root / cell.folder
    shutil.rmtree(folder / DETECTIONS_FOLDER, ignore_errors=True)
    (folder / MATCHES_FILE).unlink(missing_ok=True)
    write_json(folder / _LAUNCH_FILE, {**launched, "commits": record["commits"]})
    if matches.is_file():
        shutil.copyfile(matches, folder / MATCHES_FILE)
    write_json(folder / _RECORD_FILE, record)


def train_spent_starts(root: Path, configs: Configs) -> None:
    """Make starts unfinished whose weights are gone, but which an unfinished run needs."""
    begun = {cell for cell in configs if checkpoint_files(root / cell.folder)}
    left = [cell for cell in configs if not is_finished(root, cell) and cell not in begun]
    for start in {cell.start for cell in left if cell.start}:
        if not (root / start.folder / _FINAL_FILE).is_file():
            (root / start.folder / _RECORD_FILE).unlink(missing_ok=True)


def detections_file(folder: Path) -> Path | None:
    """Of a run's last evaluation; None where there is none."""
    return next((folder / DETECTIONS_FOLDER).glob("*.npz"), None)


def drop_checkpoints(folder: Path, keep: int) -> None:
    """
    Delete the checkpoints on the way to ``model_final.pth``, but for the newest, and only if the
    newest, or without ``keep`` that of the end, is whole; without ``keep`` that of the best AP,
    too.
    """
    best = [] if keep else folder.glob("model_best.pth")
    checkpoints = [*best, *sorted(folder.glob("model_[0-9]*.pth"))]
    old = checkpoints[: max(0, len(checkpoints) - keep)]
    successor = checkpoints[-1] if old and keep else folder / _FINAL_FILE
    if old and archive_fault(str(successor)) is None:
        for path in old:
            path.unlink(missing_ok=True)


def read_evaluation(folder: Path) -> dict[str, float | None]:
    """
    Metrics of ``evaluation.json``: those of boxes by their own name, others as "group/name".

    Raises:
        ExperimentError: the file is missing or torn, or holds several data sets.
    """
    path = folder / RESULTS_FILE
    try:
        (groups,) = read_results(path).values()
    except (OSError, ValueError) as error:
        raise ExperimentError(
            f"{path} does not hold the results of one data set ({error})"
        ) from error
    return {
        name if group == "bbox" else f"{group}/{name}": None if value is None else round(value, 4)
        for group, metrics in groups.items()
        for name, value in metrics.items()
    }


def metrics_so_far(folder: Path) -> dict[int, dict[str, float]]:
    """As :func:`read_metrics` reads them; none where the run has not begun."""
    path = folder / METRICS_FILE
    return read_metrics(path)[0] if path.is_file() else {}


def history(by_iteration: dict[int, dict[str, float]], last: int) -> list[dict[str, float]]:
    """
    The metrics of each evaluation without AP of single classes, and the means of the losses and of
    what is told about the labels since the one before, by the iterations done. Detectron2 counts
    the evaluation after the ``last`` iteration one too high.
    """
    kept = []
    since: dict[str, list[float]] = {}
    for iteration, row in by_iteration.items():
        for name, value in row.items():
            if name not in _TIMES and CLASS_AP not in name and value == value:  # not NaN
                since.setdefault(name.removeprefix("bbox/"), []).append(value)
        if "bbox/AP" in row:
            means = {name: statistics.mean(values) for name, values in since.items()}
            values = {name: float(f"{mean:.4g}") for name, mean in means.items()}
            point = {"iteration": min(iteration + 1, last), **values}
            if kept and kept[-1]["iteration"] == point["iteration"]:
                kept[-1].update(point)  # launched again after its end, a run evaluates once more
            else:
                kept.append(point)
            since = {}
    return kept


def environment(device: str) -> dict[str, str]:
    """Versions and machine."""
    names = ("torch", "torchvision", "detectron2", "numpy")
    versions = {"python": platform.python_version(), **{n: _version(n) for n in names}}
    return {**versions, "device": device_name(device)}


def _commit(root: Path) -> str:
    """Of the checkout, with "-dirty" where files differ from it; "unknown" outside of one."""
    return _git(root, "describe", "--always", "--dirty", "--exclude", "*") or UNKNOWN


UNCOMMITTED, UNKNOWN = "not committed", "unknown"


def plan_commits(root: Path, path: Path, runs: Iterable[dict]) -> list[str]:
    """
    The commits that the experiment's file ``path`` was of when the runs that are compared with the
    baseline were launched first: with "-dirty" where files differed from it, UNCOMMITTED where it
    was in none, UNKNOWN where the history here is not whole or lacks it.
    """
    launched = {run["commits"][0] for run in runs if run["strategy"] != BASELINE}
    return sorted({_plan_commit(root, path, commit) for commit in launched})


def _plan_commit(root: Path, path: Path, launched: str) -> str:
    commit = launched.removesuffix("-dirty")
    is_shallow = _git(root, "rev-parse", "--is-shallow-repository") == "true"
    if is_shallow or not _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        return UNKNOWN
    of_file = _git(root, "log", "-1", "--format=%h", commit, "--", str(path))
    return of_file + launched.removeprefix(commit) if of_file else UNCOMMITTED


def is_committed(root: Path, path: Path) -> bool:
    """Whether the file is in the commit of the checkout as it is."""
    of_file = _git(root, "ls-files", "--error-unmatch", "--", str(path))
    return bool(of_file) and not _git(root, "status", "--porcelain", "--", str(path))


def _git(root: Path, *arguments: str) -> str:
    """What git prints; empty where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return getattr(__import__(name), "__version__", "unknown")
