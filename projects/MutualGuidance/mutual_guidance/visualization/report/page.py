"""The report's page: what the template shows, made from the runs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml
from detectron2.config import get_cfg
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...config import add_mutual_guidance_config
from ...evaluation.misalignment import MEASURES, STAGES
from ...evaluation.misalignment_plot import PANELS
from ...run_files import CLASS_AP, flatten
from . import figures
from .about import about
from .curves import GROUPS, is_drawn, meaning, rank
from .detections import detections
from .runs import Frame, Run

_SIZES = ("APs", "APm", "APl")
_ABSENT = "–"
TABS = ("results", "detections", "curves", "misalignment", "assignments", "configuration")


@dataclass
class Table:
    """Cells of text."""

    headers: list[str]
    rows: list[list[str]]


@dataclass
class Result:
    """What was measured on one data set."""

    dataset: str
    table: Table
    charts: list[tuple[str, str]]  # alternative text and data URI


class Curve(NamedTuple):
    """A chart of one scalar."""

    name: str
    explanation: str
    uri: str


@dataclass
class Film:
    """Assignments on one image over time."""

    image: str
    iterations: list[int]
    frames: dict[str, list[Frame]]  # by run


def render_report(runs: list[Run]) -> str:
    """
    The page as HTML, with everything in it.

    Args:
        runs: at least one, as :func:`read_run` reads them.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = detections(runs)
    troubles = [trouble for run in runs for trouble in run.troubles]
    return environment.get_template("report.html").render(
        labels=[run.label for run in runs],
        about=about_table(runs),
        troubles={tab: [s for t, s in troubles if t == tab] for tab in TABS},
        results=results(runs),
        has_ema=any(run.ema_results for run in runs),
        configuration=configuration(runs),
        curves=curves(runs),
        misalignment=misalignment(runs),
        films=films(runs),
        detections=found,
    )


def about_table(runs: list[Run]) -> Table:
    """A row for what is told of a run, a column a run; only named where there are several."""
    told = [about(run) for run in runs]
    headers = ["", *(run.label for run in runs)] if len(runs) > 1 else []
    return Table(headers, [[n, *(t.get(n, _ABSENT) for t in told)] for n in _union(told)])


def results(runs: list[Run]) -> list[Result]:
    """Of each data set that a run was evaluated on."""
    return [_result(name, runs) for name in _union(run.results for run in runs)]


def _result(dataset: str, runs: list[Run]) -> Result:
    values = {run.label: run.results.get(dataset, {}) for run in runs}
    names = _union(values.values())
    means = [n for n in names if not n.startswith(CLASS_AP)]
    classes = [n for n in names if n.startswith(CLASS_AP)]
    rows = []
    for run in runs:
        averaged = run.ema_results.get(dataset)
        named = {run.label: values[run.label]}
        named |= {f"{run.label}, EMA": averaged} if averaged else {}
        rows += [[name, *(_number(v.get(m), ".1f") for m in means)] for name, v in named.items()]
    table = Table(["run", *means], rows)
    charts = []
    if classes:
        by_class = {
            run: {k.removeprefix(CLASS_AP): v for k, v in vs.items()} for run, vs in values.items()
        }
        uri = figures.bars(by_class, [c.removeprefix(CLASS_AP) for c in classes])
        charts.append((f"AP of each class on {dataset}", uri))
    if any(size in means for size in _SIZES):
        charts.append((f"AP of each size on {dataset}", figures.bars(values, list(_SIZES))))
    return Result(dataset, table, charts)


def configuration(runs: list[Run]) -> Table:
    """The keys in which the runs differ; of a single run, those that differ from the defaults."""
    cfg = get_cfg()
    add_mutual_guidance_config(cfg)
    known = [run for run in runs if run.config]
    columns = [flatten(yaml.safe_load(cfg.dump())), *(run.config for run in known)]
    first_compared = 1 if len(known) > 1 else 0
    rows = []
    for key in sorted(_union(columns[first_compared:])):
        values = [str(config.get(key, _ABSENT)) for config in columns]
        if key != "OUTPUT_DIR" and len(set(values[first_compared:])) > 1:
            rows.append([key, *values])
    return Table(["key", "default", *(run.label for run in known)], rows)


def curves(runs: list[Run]) -> dict[str, list[Curve]]:
    """
    By group, what was logged more than once, but the AP of single classes, times and the share of
    objects with a prediction. What was logged only once, as an evaluation at the end, is no curve.
    """
    logged = {n for run in runs for n, values in run.curves.items() if len(values) > 1}
    drawn: dict[str, list[Curve]] = {group: [] for group in GROUPS}
    for name in sorted(filter(is_drawn, logged), key=rank):
        group, explanation = meaning(name)
        uri = figures.curve({run.label: run.curves.get(name, {}) for run in runs}, name)
        drawn[group].append(Curve(name, explanation, uri))
    return {group: charts for group, charts in drawn.items() if charts}


def misalignment(runs: list[Run]) -> list[Result]:
    """Of each data set that it was measured on."""
    return [_misalignment_on(name, runs) for name in _union(run.misalignment for run in runs)]


def _misalignment_on(dataset: str, runs: list[Run]) -> Result:
    details = {r.label: r.misalignment[dataset] for r in runs if dataset in r.misalignment}
    rows = []
    for run, by_stage in details.items():
        for stage in STAGES:
            means = [by_stage[stage][measure]["mean"] for measure in MEASURES]
            suppressed = by_stage["suppressed"] if stage == STAGES[-1] else None
            values = [by_stage[stage]["found"], *means, suppressed]
            rows.append([run, f"{stage} NMS", *(_number(v, ".3f") for v in values)])
    headers = ["run", "", "share with a prediction", *MEASURES.values(), "best one suppressed"]
    shown = {figures.legend_label(run): by_stage for run, by_stage in details.items()}
    charts = [
        (f"misalignment on {dataset}", figures.chart(partial(draw, runs=shown))) for draw in PANELS
    ]
    return Result(dataset, Table(headers, rows), charts)


def films(runs: list[Run]) -> list[Film]:
    """The assignments of each image over time, the runs side by side."""
    made = []
    for image in sorted(_union(run.films for run in runs)):
        frames = {run.label: run.films[image] for run in runs if image in run.films}
        iterations = sorted({f.iteration for of_run in frames.values() for f in of_run})
        made.append(Film(image, iterations, frames))
    return made


def _union(mappings: Iterable[Iterable[str]]) -> list[str]:
    """All keys, each once, in the order of their first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _number(value: object, pattern: str) -> str:
    """A dash for what is no number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return format(value, pattern)
    return _ABSENT
