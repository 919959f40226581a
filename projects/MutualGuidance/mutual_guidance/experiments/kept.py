"""Finished runs that the repository keeps, so that an experiment can go on on another machine."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ExperimentError
from .grid import Cell, run_place
from .records import (
    MATCHES_FILE,
    Configs,
    difference,
    is_finished,
    launch,
    other_plan,
    read_launch,
    read_record,
    write_finished,
    write_json,
)

_OTHERS = (
    "{} holds {}: give the experiment's file another name, or delete the results that are kept"
)


def collect_runs(root: Path, cells: list[Cell]) -> tuple[list[dict], dict[str, Any]]:
    """
    The records of the finished runs, each with its baseline of now, and with what it was launched
    with as "launched"; what all of them were launched with is returned beside them, once.
    """
    finished = [cell for cell in cells if is_finished(root, cell)]
    launches = [_flat(read_launch(root, cell)) for cell in finished]
    common = {
        key: value
        for key, value in (launches[0] if launches else {}).items()
        if all(key in other and other[key] == value for other in launches)
    }
    runs = []
    for cell, launched in zip(finished, launches, strict=True):
        own = {key: value for key, value in launched.items() if key not in common}
        runs.append({**read_record(root, cell), "baseline": cell.baseline, "launched": own})
    return runs, common


def _flat(launched: Mapping[str, Any]) -> dict[str, Any]:
    """From {"config": {key: value}, ...} to {"config/key": value}, without the commits."""
    stages = {stage: values for stage, values in launched.items() if stage != "commits"}
    return {f"{stage}/{key}": v for stage, values in stages.items() for key, v in values.items()}


def _launched_with(result: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of a kept run, what :func:`collect_runs` has taken apart."""
    nested: dict[str, dict[str, Any]] = {"config": {}, "start": {}}
    for name, value in {**result["launched"], **run["launched"]}.items():
        stage, key = name.split("/", 1)
        nested[stage][key] = value
    return nested


def read_results(path: Path) -> dict:
    """
    What ``tools/experiment.py`` wrote of an experiment.

    Raises:
        ExperimentError: the file is missing, torn or something else.
    """
    try:
        result = json.loads(path.read_text())
        if result["experiment"] and all(run_place(run) for run in result["runs"]):
            return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(f"{path} is no results.json of an experiment ({error!r})") from error
    raise ExperimentError(f"{path} is no results.json of an experiment")


def keep(results: Path, folder: Path) -> dict:
    """
    Keep the results of an experiment in a folder of the repository: the JSON, and beside it, where
    a plan asks for intervals over images, the matches of each run. Without a plan the page shows no
    such intervals, and the JSON has none that nothing kept could repeat.

    Args:
        results: results.json, in the experiment's output folder. folder: docs/results.

    Returns:
        The results.

    Raises:
        ExperimentError: as :func:`read_results`, or runs that are kept are missing.
    """
    result = read_results(results)
    target, path = folder / result["experiment"], folder / f"{result['experiment']}.json"
    if path.is_file():
        _check_none_is_lost(results, result, path)
    if "questions" in result:
        _keep_matches(result["runs"], results.parent, target)
    else:
        for row in result["rows"]:
            row.pop("bootstrap", None), row.pop("unmatched", None)
    write_json(path, result)
    return result


def _check_none_is_lost(results: Path, result: dict, kept: Path) -> None:
    """Raise ExperimentError where runs that are kept are not among the results."""
    old, new = (set(map(run_place, r["runs"])) for r in (read_results(kept), result))
    if old - new:
        raise ExperimentError(
            f"{results} lacks {len(old - new)} runs that {kept} keeps, as {min(old - new)}: let "
            "tools/experiment.py take over those that its file still names, and delete what is "
            "kept to give up the others"
        )


def _keep_matches(runs: list[dict], source: Path, target: Path) -> None:
    for run in runs:
        matches = source / run_place(run) / MATCHES_FILE
        if matches.is_file():
            kept = target / f"{run_place(run)}.npz"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(matches, kept)


def restore(root: Path, kept: Path, configs: Configs) -> None:
    """
    Put the runs that are kept back into the folders of those cells that have not finished here.
    Those that were kept before what they were launched with was, are left alone, and so is a start
    whose weights a run still needs.

    Args:
        kept: docs/results/NAME.json, which may be missing.

    Raises:
        ExperimentError: a kept run has another config, or the file is torn.
    """
    if not kept.is_file():
        return
    result = read_results(kept)
    runs = {run_place(run): run for run in result["runs"] if "launched" in run}
    finished = {cell for cell in configs if is_finished(root, cell)}
    found = {cell: runs[cell.place] for cell in configs if cell.place in runs}
    known = {cell.place for cell in configs}
    for text in (
        other_plan(_launched_with(result, run), configs)
        for place, run in runs.items()
        if place not in known
    ):
        if text:
            raise ExperimentError(_OTHERS.format(kept, text))
    for cell, run in found.items():
        needed = any(c.start == cell and c not in {*found, *finished} for c in configs)
        if cell in finished or needed:
            continue
        launched = _launched_with(result, run)
        text = difference(launched, launch(cell, configs))
        if text:
            raise ExperimentError(_OTHERS.format(kept, text))
        record = {key: value for key, value in run.items() if key != "launched"}
        write_finished(root, cell, record, launched, kept.with_suffix("") / f"{cell.place}.npz")
