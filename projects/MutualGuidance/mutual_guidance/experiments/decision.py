"""What an experiment says of the questions that were asked before its runs."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run_files import CLASS_AP
from .grid import Cell, compared_cells
from .report import IN_MEAN, mean_over
from .schema import BASELINE, PLACE, START
from .student import T_80, quantile, two_sided_p

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


def answer(
    questions: Mapping[str, Any],
    rows: Sequence[dict],
    cells: Sequence[Cell],
    finished: Collection[Path],
) -> dict:
    """
    Args:
        questions: "primary", "decision" and "secondary" of the experiment's file.
        rows: of the table, with their intervals. cells: of the experiment.
        finished: the :attr:`Cell.place` of each run that has finished.

    Returns:
        {"state"}: "not run yet" or "running: n of m runs" where runs of the primary comparison are
        missing, and nothing else; otherwise the verdict on "primary" (see :func:`verdict`; of what
        a bootstrap and the t-interval span together, which is its "span" where that is another
        one; of None without a t-interval) with the comparison, and "secondary", a list of
        comparisons with their "p" and "p_holm", corrected for how many they are. A comparison has
        "value", "baseline", "difference", "low", "high", "relative" and "interval", which says of
        what it is: "bootstrap", "t", "none" (with the reason, where runs have lost their
        detections) or a state as above.
    """
    state = _running(questions["primary"], cells, finished)
    if state:
        return {"state": state}
    classes = questions["primary"]["classes"]
    primary = _compare(questions["primary"], rows, classes)
    secondary = []
    for question in questions["secondary"]:
        state = _running(question, cells, finished)
        secondary.append(_nothing(question, state) if state else _compare(question, rows, classes))
    for comparison, p in zip(secondary, holm([c["p"] for c in secondary]), strict=True):
        comparison["p_holm"] = p
    both = _both_intervals(primary, _row(questions["primary"], rows), classes)
    state = verdict(both, questions["decision"]["paper_gain"])
    span = [both["low"], both["high"]]
    if span != [primary["low"], primary["high"]]:
        primary["span"] = span
    return {"state": state, "primary": primary, "secondary": secondary}


def verdict(comparison: Mapping[str, Any], paper_gain: float) -> str:
    """
    Confirmed if the interval lies above 0, and a gain of the paper's relative size refuted if the
    interval's upper end is below it.

    Args:
        paper_gain: in percent of the baseline.
    """
    low, high = comparison["low"], comparison["high"]
    if low is None:
        return UNDECIDED
    smaller = high < paper_gain / 100 * comparison["baseline"]
    if low > 0:
        return f"{CONFIRMED}, but less than the paper's gain" if smaller else CONFIRMED
    return f"{REFUTED}: less than the paper's gain" if smaller else UNDECIDED


def _running(question: Mapping[str, Any], cells: Sequence[Cell], finished: Collection[Path]) -> str:
    """How many runs of a comparison have finished; empty if all have."""
    runs = sum(compared_cells(question, cells), [])
    done = sum(cell.place in finished for cell in runs)
    if not done:
        return "not run yet"
    return "" if done == len(runs) else f"running: {done} of {len(runs)} runs"


def _nothing(question: Mapping[str, Any], interval: str) -> dict[str, Any]:
    return {**_asked(question), "low": None, "high": None, "p": None, "interval": interval}


def _asked(question: Mapping[str, Any]) -> dict[str, str]:
    return {key: question[key] for key in ("metric", *PLACE)}


def _compare(
    question: Mapping[str, Any], rows: Sequence[dict], classes: Collection[str]
) -> dict[str, Any]:
    """
    By the bootstrap where there is one of the metric, else by the runs' t-interval. Runs that have
    lost what they found do not change the rule.
    """
    row = _row(question, rows)
    metric, place = question["metric"], _asked(question)
    bootstrap = row.get("bootstrap", {"metrics": {}})
    if metric in bootstrap["metrics"]:
        found = {**place, **bootstrap["metrics"][metric], "interval": "bootstrap"}
        ps = found["p"], _p_of_runs(_of_runs(row, metric, classes))
        # Neither alone is to be believed (benchmarks/coverage.py).
        return {**found, "p": None if None in ps else max(ps)}
    if row.get("unmatched") and metric.startswith("AP"):
        return _nothing(question, f"none: {row['unmatched']} runs without their detections")
    summary = _of_runs(row, metric, classes)
    if not summary:
        return _nothing(question, "none")
    mean, difference = summary["mean"], summary["difference"]
    baseline = mean - difference
    return {
        **place,
        "value": mean,
        "baseline": baseline,
        "difference": difference,
        "low": summary["low"],
        "high": summary["high"],
        "relative": 100 * difference / baseline if baseline else None,
        "p": _p_of_runs(summary),
        "interval": "t",
    }


def _row(question: Mapping[str, Any], rows: Sequence[dict]) -> dict:
    """That of the comparison."""
    (row,) = (row for row in rows if all(row[key] == question[key] for key in PLACE))
    return row


def _of_runs(row: dict, metric: str, classes: Collection[str]) -> dict:
    """
    The mean and the t-interval of a metric over the runs; empty where there are none, as of AP50
    and AP75 over some of the classes.
    """
    of_classes = [name for name in row["metrics"] if name.startswith(CLASS_AP)]
    is_mean = metric.startswith("AP") and not metric.startswith(CLASS_AP)
    if is_mean and {f"{CLASS_AP}{name}" for name in classes} < set(of_classes):
        metric = IN_MEAN if metric == "AP" else ""
    summary = row["metrics"].get(metric, {})
    return summary if "difference" in summary else {}


def _both_intervals(comparison: dict, row: dict, classes: Collection[str]) -> dict:
    """The comparison, with what its bootstrap, if it is one, and its t-interval span together."""
    if comparison["interval"] != "bootstrap":
        return comparison
    summary = _of_runs(row, comparison["metric"], classes)
    if summary.get("low") is None:
        return {**comparison, "low": None, "high": None}
    low, high = min(comparison["low"], summary["low"]), max(comparison["high"], summary["high"])
    return {**comparison, "low": low, "high": high}


def _p_of_runs(summary: Mapping[str, Any]) -> float | None:
    """Of the t-test whose 95 % interval a summary has; None where it has none."""
    if summary.get("low") is None:
        return None
    difference, pairs = summary["difference"], summary["pairs"]
    half = difference - summary["low"]
    if half <= 0:
        return 0.0 if difference else 1.0
    return two_sided_p(difference / half * quantile(pairs - 1), pairs - 1)


def holm(ps: list[float | None]) -> list[float | None]:
    """
    Holm's correction: the chance of a single false finding among all is at most the p. Those that
    are not known yet count as well: a finding shall not cease to be one when their runs finish.
    """
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(ps) - rank)))
        corrected[i] = largest
    return corrected


def power(
    questions: Mapping[str, Any], spread_of: Iterable[dict], pairs: int
) -> dict[str, float] | None:
    """
    What difference of the primary metric so many pairs of runs show in four of five experiments,
    where pairing by seed and fold takes away what folds have in common, and no more. That the test
    images are a sample, too, is not in it.

    Args:
        spread_of: records of runs, of which the static ones with the primary's metric count, and
            only those of its variant and config if there are any.

    Returns:
        {"runs", "spread": their standard deviation within folds, "mean", "difference"}; None with
        too few runs.
    """
    primary = questions["primary"]
    static = [r for r in spread_of if r["strategy"] == BASELINE and r["variant"] != START]
    for key in ("variant", "config"):
        static = [r for r in static if r[key] == primary[key]] or static
    by_fold: dict[Any, list[float]] = {}
    for record in static:
        value = _in_mean(record["metrics"], primary)
        if value is not None:
            place = tuple(record.get(key) for key in ("protocol", "config", "variant", "fold"))
            by_fold.setdefault(place, []).append(value)
    values = [v for of_fold in by_fold.values() for v in of_fold]
    freedom = len(values) - len(by_fold)
    if freedom < 1 or pairs < 2:
        return None
    squares = sum((v - statistics.mean(f)) ** 2 for f in by_fold.values() for v in f)
    spread = math.sqrt(squares / freedom)
    error = math.sqrt(2 / pairs) * spread
    shown = (quantile(pairs - 1) + quantile(pairs - 1, T_80)) * error
    mean = statistics.mean(values)
    return {"runs": len(values), "spread": spread, "mean": mean, "difference": shown}


def _in_mean(metrics: Mapping[str, float], primary: Mapping[str, Any]) -> float | None:
    """The primary metric of a run: AP over its classes, any other as it is."""
    if primary["metric"] != "AP":
        return metrics.get(primary["metric"])
    return mean_over(metrics, primary["classes"])
