"""The parts of docs/results.md that are written from the results of experiments."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .decision import answer
from .grid import Experiment
from .records import UNCOMMITTED, UNKNOWN
from .report import LEGEND, LEGENDS, markdown, of_bootstrap, short_table, signed


def decisions(experiments: Iterable[Experiment], results: Mapping[str, dict]) -> str:
    """
    A table of the claims, what was found and what the paper gained; those decided come first.

    Args:
        experiments: those with a plan. results: the JSON of those that have begun, by name.
    """
    rows = [_decision(e, results.get(e.name)) for e in experiments]
    rows.sort(key=lambda row: not row[3])  # those without an answer
    headers = (
        "claim",
        "experiment",
        "verdict",
        "difference",
        "paper's gain (VOC, at least)",
        "plan",
    )
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def _decision(experiment: Experiment, result: dict | None) -> list[str]:
    # What was asked of the runs, once there are some.
    questions = result["questions"] if result else experiment.questions
    given = result["answer"] if result else answer(questions, [], experiment.cells, [])
    commits = result["plan_commits"] if result else []
    return [
        questions["primary"]["claim"],
        experiment.name,
        f"**{given['state']}**",
        _found(given),
        f"+{questions['decision']['paper_gain']:g} %",
        ", ".join(c if c in (UNCOMMITTED, UNKNOWN) else f"`{c}`" for c in commits),
    ]


def verdict_section(result: Mapping[str, Any]) -> str:
    """Of an experiment with a plan: its claim, what became of it, and its comparisons."""
    given, claim = result["answer"], result["questions"]["primary"]["claim"]
    verdict = f"{claim}: **{given['state']}**. {_found(given)}".rstrip()
    return "\n\n".join([verdict, *_answers(result)])


def _found(given: Mapping[str, Any]) -> str:
    """The difference of an answer's primary comparison, or why there is none, or ""."""
    primary = given.get("primary")
    if primary is None:
        return ""
    text = f"{primary['metric']} {of_bootstrap(primary) or primary['interval']}"
    if "span" not in primary:
        return text
    low, high = primary["span"]
    if low is None:
        return f"{text}; no t-interval"
    return f"{text}; both intervals together {low:+.1f} to {high:+.1f} {primary['metric']}"


def _answers(result: Mapping[str, Any]) -> list[str]:
    """The comparisons and what they mean; none while runs of the primary one are missing."""
    comparisons = result["answer"].get("secondary")
    if comparisons is None:
        return []
    return [_comparisons([result["answer"]["primary"], *comparisons]), _COMPARISONS_LEGEND]


def planned_sections(results: Sequence[dict], pictures: str) -> str:
    """
    Of experiments with a plan: their comparisons, then all tables, and a legend below the first
    table of its kind; ``pictures`` is a folder.
    """
    text = "\n\n".join(_planned_section(result, pictures) for result in results)
    for legend in (_COMPARISONS_LEGEND, *LEGENDS):
        before, first, after = text.partition(legend)
        text = before + first + after.replace(f"\n\n{legend}", "")
    return text


def _planned_section(result: dict, pictures: str) -> str:
    interim = (
        f"**{result['answer']['state']}**: nothing is decided; the tables are of the runs so far, "
        "and not the planned comparisons."
    )
    parts = [_heading(result), *(_answers(result) or [interim])]
    parts += [markdown(result["rows"], result["paper_source"]), _picture(result, pictures)]
    return "\n\n".join([*parts, _runs(result)])


_COMPARISONS_LEGEND = (
    "The first line decides. bootstrap: the interval over images and seeds below, for AP of the "
    "detections, with folds of all of them in one ranking, not the mean of the runs' AP; t: over "
    "pairs of runs, which must agree on the first line. p is the larger of both. p (Holm): "
    "corrected for the number of the other lines, also those not run yet; above 0.05 it is no "
    "finding. Near 0.05 it rests on a few of the draws: another 2,000 may move it by a third."
)


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for c in comparisons:
        digits = 1 if c["metric"].startswith("AP") else 3
        what = [c["strategy"], c["variant"], c["metric"].removeprefix("misalignment/")]
        rows.append(
            [
                " ".join(filter(None, what)),
                *(_number(c.get(name), digits) for name in ("baseline", "value")),
                signed(c, ("difference", "low", "high"), digits),
                signed(c, ("relative", "relative_low", "relative_high")),
                c["interval"],
                _p_value(c.get("p_holm")),
            ]
        )
    headers = ["comparison", "static", "value", "difference", "in percent", "interval", "p (Holm)"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _p_value(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else _number(p, 3)


def exploratory_sections(results: Sequence[dict], pictures: str) -> str:
    """Of experiments without a plan: a table each."""
    parts = [LEGEND] if results else []
    for result in results:
        table = short_table(result["rows"])
        parts += [_heading(result), table, _picture(result, pictures), _runs(result)]
    return "\n\n".join(parts)


def _picture(result: Mapping[str, Any], folder: str) -> str:
    return f"![{result['experiment']}]({folder}/{result['experiment']}.png)"


def _heading(result: Mapping[str, Any]) -> str:
    return f"### {result['experiment']}\n\n```\n{result['command']}\n```"


def _runs(result: Mapping[str, Any]) -> str:
    """How many runs, of which commits and on what machines."""
    runs = result["runs"]
    hours = sum(run["training_hours"] or 0.0 for run in runs)
    commits = dict.fromkeys(commit for run in runs for commit in run["commits"])
    machines = dict.fromkeys(
        ", ".join(f"{k} {v}" for k, v in run["environment"].items() if k != "device")
        + f", on {run['environment']['device']}"
        for run in runs
    )
    missing = len(result["missing"])
    state = f" Still missing: {missing} of {len(runs) + missing} runs." if missing else ""
    return (
        f"{len(runs)} runs, {hours:.1f} hours of training in all.{state} "
        f"Commits {', '.join(commits)}; {'; '.join(machines)}."
    )
