"""From the records of runs to tables: means over seeds, and differences from the static rule."""

import csv
import io
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from ..run_files import CLASS_AP
from .schema import BASELINE, COMPARED, SIZES, START
from .student import quantile

_Run = tuple[int, int]  # fold, or 0, and seed
_MOST_CLASSES = 10  # in a table
# What lies behind AP, with the headings of its tables.
_MISALIGNMENT = {
    "misalignment/iou_lost_before": "IoU lost",
    "misalignment/rank_correlation_before": "rank correlation",
    "misalignment/suppressed": "suppressed",
}
_LABELS = {
    "assignment/cls_as_static": "as static, cls",
    "assignment/loc_as_static": "as static, loc",
    "assignment/cls_regressed_iou": "regressed IoU, cls",
    "assignment/loc_regressed_iou": "regressed IoU, loc",
    "assignment/cls_positives_per_object": "positives per object, cls",
}
LEGEND = (
    "Mean ± standard deviation over the runs. Δ is the difference from `static` with the same "
    "seeds, folds and variant, or with no variant if it has no `static`; in parentheses its paired "
    "95 % t-interval (n/a with one pair), which covers other trainings on these images, as if all "
    "pairs were independent. [1 of 3]: from 1 of 3 runs only."
)
_MISALIGNMENT_LEGEND = (
    "Misalignment of the trained detectors, before NMS (docs/misalignment.md): less IoU lost, a "
    "higher rank correlation and a smaller share of best predictions suppressed are better. "
    "Scores of different losses do not compare: NMS sees other candidates."
)
_LABELS_LEGEND = (
    "Labels logged between the last two evaluations that have any between them "
    "(docs/visualize.md): of the anchors positive for classification (cls) or localisation (loc) "
    "by the strategy or by `static`, the share positive by both; the IoU of the positives' "
    "regressed boxes; and positives per object."
)
_CLASSES_LEGEND = "AP of each class, and Δ as above."
# Of tables that are alike, but for what differs by experiment.
LEGENDS = (LEGEND, _MISALIGNMENT_LEGEND, _LABELS_LEGEND, _CLASSES_LEGEND)

# AP over the classes of an experiment's primary comparison, where they are not all.
IN_MEAN = "AP over primary.classes"


def paired_difference(values: list[float], baseline: list[float]) -> dict[str, float | None]:
    """
    The mean of the differences of corresponding values, and its 95 % t-interval.

    Returns:
        "difference", "low" and "high"; the last two are None for a single pair.
    """
    differences = [v - b for v, b in zip(values, baseline, strict=True)]
    mean, count = statistics.mean(differences), len(differences)
    if count == 1:
        return {"difference": mean, "low": None, "high": None}
    half = quantile(count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def summarize(
    records: list[dict], paper: dict[str, Any], in_mean: Collection[str] = ()
) -> list[dict]:
    """
    Rows of the table, in the order of the records.

    Args:
        records: of finished runs. paper: of the experiment, or empty.
        in_mean: the classes of its primary comparison, of which runs get IN_MEAN.

    Returns:
        {"protocol", "config", "variant", "strategy", "seeds", "runs", "metrics"} with, for each
        metric and each of the last labels' figures (``assignment/...``), {"mean", "std", "count"}
        over the runs that have it, {"difference", "low", "high", "pairs"} where the baseline has
        some of the same fold and seed, and {"paper"} where the paper has it.
    """
    groups: dict[tuple, dict[_Run, dict]] = {}
    baselines: dict[tuple, tuple] = {}
    for r in records:
        key = (r["protocol"], r["config"], r["variant"], r["strategy"])
        run = (r.get("fold") or 0, r["seed"])
        metrics = {**_last_labels(r["history"]), **r["metrics"]}
        if 0 < len(in_mean) < sum(name.startswith(CLASS_AP) for name in metrics):
            metrics[IN_MEAN] = mean_over(metrics, in_mean)
        groups.setdefault(key, {})[run] = metrics
        baselines[key] = (r["protocol"], r["config"], r["baseline"], BASELINE)
    rows = []
    for key, by_run in groups.items():
        protocol, config, variant, strategy = key
        baseline = groups.get(baselines[key], {})
        names = dict.fromkeys(name for metrics in by_run.values() for name in metrics)
        metrics = {name: _summary(name, by_run, baseline) for name in names}
        if variant == "":
            for name, value in _paper_row(paper, config, strategy).items():
                metrics.setdefault(name, {})["paper"] = value
        rows.append(
            {
                "protocol": protocol,
                "config": config,
                "variant": variant,
                "strategy": strategy,
                "seeds": sorted({seed for _, seed in by_run}),
                "runs": len(by_run),
                "metrics": metrics,
            }
        )
    return rows


def mean_over(metrics: Mapping[str, float | None], classes: Collection[str]) -> float | None:
    """AP of a run over some classes; None where it has none of one."""
    of_classes = [metrics.get(f"{CLASS_AP}{name}") for name in classes]
    return None if None in of_classes else statistics.mean(of_classes)


def _last_labels(history: list[dict]) -> dict[str, float]:
    values = (item for point in history for item in point.items())
    return {name: value for name, value in values if name.startswith("assignment/")}


def _summary(
    metric: str, by_run: dict[_Run, dict], baseline: dict[_Run, dict]
) -> dict[str, float | None]:
    values = _values(metric, by_run)
    if not values:
        return {"mean": None, "std": None, "count": 0}
    std = statistics.stdev(values.values()) if len(values) > 1 else None
    summary = {"mean": statistics.mean(values.values()), "std": std}
    others = _values(metric, baseline)
    common = sorted(values.keys() & others.keys())
    counts = {"count": len(values)}
    if common:
        pairs = [values[run] for run in common], [others[run] for run in common]
        summary.update(paired_difference(*pairs))
        counts["pairs"] = len(common)
    # Finer than the runs' own figures: p is computed from them, also where they are shares.
    rounded = {n: None if value is None else round(value, 6) for n, value in summary.items()}
    return rounded | counts


def _values(metric: str, by_run: dict[_Run, dict]) -> dict[_Run, float]:
    """By run, where the metric is a number."""
    return {run: m[metric] for run, m in by_run.items() if m.get(metric) is not None}


def _num_runs(row: dict) -> int:
    """Of a row of the table; rows that were kept before there were folds have only the seeds."""
    return row.get("runs", len(row["seeds"]))


def _paper_row(paper: dict[str, Any], config: str, strategy: str) -> dict[str, float]:
    row = paper.get("figures", {}).get(config, {}).get(strategy)
    return dict(zip(paper["metrics"], row, strict=True)) if row else {}


def markdown(rows: list[dict], paper_source: str = "") -> str:
    """
    Tables for each protocol: AP, and where they were measured, misalignment and labels. AP of
    more than ten classes is left to the other formats.
    """
    parts = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        chosen = [row for row in rows if row["protocol"] == protocol]
        parts += [f"**Protocol: {protocol}**", _ap_table(chosen, paper_source), LEGEND]
        drawn = [row for row in chosen if "bootstrap" in row]
        if drawn:
            parts += [_bootstrap_table(drawn), _bootstrap_legend(drawn)]
        for classes, of_data in _by_classes(chosen).items():
            if 0 < len(classes) <= _MOST_CLASSES:
                columns = {m: m.removeprefix(CLASS_AP) for m in classes}
                table = _table([_place(of_data), _compared(of_data, columns, digits=1)])
                parts += [table, _CLASSES_LEGEND]
        if _have(chosen, _MISALIGNMENT):
            table = _table([_place(chosen), _compared(chosen, _MISALIGNMENT, digits=3)])
            parts += [table, _MISALIGNMENT_LEGEND]
        # Of a start the last evaluation may follow on the one before at once.
        chosen = [row for row in chosen if row["variant"] != START]
        if _have(chosen, _LABELS):
            table = _table([_place(chosen), _means(chosen, _LABELS, digits=3)])
            parts += [table, _LABELS_LEGEND]
    return "\n\n".join(parts)


def _by_classes(rows: list[dict]) -> dict[tuple[str, ...], list[dict]]:
    """The rows by the classes of their data set."""
    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in rows:
        classes = tuple(m for m in row["metrics"] if m.startswith(CLASS_AP))
        groups.setdefault(classes, []).append(row)
    return groups


def _ap_table(rows: list[dict], paper_source: str) -> str:
    shown = [*COMPARED, *(m for m in SIZES if any(m in row["metrics"] for row in rows))]
    blocks = [_place(rows), _means(rows, {m: m for m in shown}, digits=1)]
    blocks += [{f"Δ{m}": _differences(rows, m, digits=1)} for m in COMPARED]
    figures = {m: [row["metrics"].get(m, {}).get("paper") for row in rows] for m in shown}
    figures = {m: column for m, column in figures.items() if any(v is not None for v in column)}
    if figures:
        by_row = zip(*figures.values(), strict=True)
        of_paper = [" / ".join(f"{v:.1f}" for v in row if v is not None) for row in by_row]
        blocks.append({f"paper, {paper_source}: {' / '.join(figures)}": of_paper})
    return _table(blocks)


def _differences(rows: list[dict], metric: str, digits: int) -> list[str]:
    return [_difference(row["metrics"].get(metric, {}), digits, _num_runs(row)) for row in rows]


def _bootstrap_table(rows: list[dict]) -> str:
    """Of drawn images and seeds: a line a metric, since there is one of every class."""
    names = dict.fromkeys(name for row in rows for name in row["bootstrap"]["metrics"])
    columns = {"Δ": [name.removeprefix(CLASS_AP) for name in names]}
    for place, row in zip(_places(rows), rows, strict=True):
        summaries = [row["bootstrap"]["metrics"].get(name) for name in names]
        columns[place] = [of_bootstrap(s) if s else "" for s in summaries]
    return _table([columns])


def _places(rows: list[dict]) -> list[str]:
    """Which runs each row is of, in a word or three."""
    cells = _place(rows)
    del cells["runs"]
    return [" ".join(filter(None, row)) for row in zip(*cells.values(), strict=True)]


def of_bootstrap(summary: Mapping[str, float | None]) -> str:
    """A difference with its interval, and the same in percent."""
    text = signed(summary, ("difference", "low", "high"))
    if summary.get("relative") is None:
        return text
    return f"{text}; {signed(summary, ('relative', 'relative_low', 'relative_high'))} %"


def signed(summary: Mapping[str, float | None], names: Sequence[str], digits: int = 1) -> str:
    """A value and its interval, of which either may be missing."""
    value, low, high = (summary.get(name) for name in names)
    if value is None:
        return ""
    if low is None:
        return f"{value:+.{digits}f}"
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def _bootstrap_legend(rows: list[dict]) -> str:
    texts = {
        f"{b['images']} images and {len(b['seeds'])} seed{'s'[: len(b['seeds']) != 1]}, with AP, "
        f"AP50 and AP75 over {', '.join(b['in_mean'])}"
        for b in (row["bootstrap"] for row in rows)
    }
    draws = rows[0]["bootstrap"]["draws"]
    rounding = max(row["bootstrap"]["rounding"] for row in rows)
    return (
        f"Δ from `static` with the test images of all folds together, and its 95 % interval over "
        f"{draws:,} draws of images and seeds, the same for both strategies: what other such "
        "test images and seeds would show after training on the same images. In percent of "
        f"`static`'s. Drawn from {'; '.join(sorted(texts))}. A run's AP, AP50 and AP75 from its "
        f"kept matches are within {rounding:.2f} of what it printed. Believe only what the "
        "t-interval confirms: this one is too narrow if each training's luck is the same on all "
        "images (docs/experiments.md)."
    )


def short_table(rows: list[dict]) -> str:
    """Of all protocols, AP and how it and the agreement of scores and boxes differ."""
    protocols = [row["protocol"] for row in rows]
    blocks = [_place(rows), _means(rows, {m: m for m in COMPARED}, digits=1)]
    if len(set(protocols)) > 1:
        blocks.insert(0, {"protocol": protocols})
    blocks += [{f"Δ{m}": _differences(rows, m, digits=1)} for m in COMPARED]
    correlation = "misalignment/rank_correlation_before"
    if _have(rows, [correlation]):
        blocks.append({"Δ rank correlation": _differences(rows, correlation, digits=3)})
    return _table(blocks)


def _have(rows: list[dict], names: Iterable[str]) -> bool:
    return any(name in row["metrics"] for row in rows for name in names)


def _place(rows: list[dict]) -> dict[str, list[str]]:
    """The columns that say which runs a row is of."""
    columns = {
        "config": [r["config"].removeprefix("configs/").removesuffix(".yaml") for r in rows],
        "variant": [row["variant"] for row in rows],
        "strategy": [row["strategy"] for row in rows],
        "runs": [str(_num_runs(row)) for row in rows],
    }
    if not any(columns["variant"]):
        del columns["variant"]
    return columns


def _means(rows: list[dict], columns: dict[str, str], digits: int) -> dict[str, list[str]]:
    """The columns of the metrics, by heading."""
    return {
        heading: [_mean(row["metrics"].get(metric, {}), digits, _num_runs(row)) for row in rows]
        for metric, heading in columns.items()
    }


def _compared(rows: list[dict], columns: dict[str, str], digits: int) -> dict[str, list[str]]:
    """As :func:`_means`, with the difference from the baseline in the same cell."""
    cells = _means(rows, columns, digits)
    for metric, heading in columns.items():
        for i, row in enumerate(rows):
            summary = row["metrics"].get(metric, {})
            if "difference" in summary:
                cells[heading][i] += f", Δ {_difference(summary, digits, _num_runs(row))}"
    return cells


def _table(blocks: list[dict[str, list[str]]]) -> str:
    """The columns of all blocks side by side."""
    columns = {heading: column for block in blocks for heading, column in block.items()}
    return tabulate(columns, headers="keys", tablefmt="pipe", disable_numparse=True)


def _mean(summary: dict, digits: int, runs: int) -> str:
    if summary.get("mean") is None:
        return ""
    std = summary["std"]
    mean = f"{summary['mean']:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")
    return mean + _fewer(summary["count"], runs)


def _difference(summary: dict, digits: int, runs: int) -> str:
    if "difference" not in summary:
        return ""
    low, high = summary["low"], summary["high"]
    interval = "n/a" if low is None else f"{low:+.{digits}f} to {high:+.{digits}f}"
    return f"{summary['difference']:+.{digits}f} ({interval}){_fewer(summary['pairs'], runs)}"


def _fewer(count: int, runs: int) -> str:
    return f" [{count} of {runs}]" if count < runs else ""


def to_csv(rows: Iterable[dict]) -> str:
    """A line a row of the table and metric, all metrics included."""
    names = ("mean", "std", "count", "difference", "low", "high", "pairs", "paper")
    places = ("protocol", "config", "variant", "strategy")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*places, "seeds", "metric", *names])
    for row in rows:
        for metric, summary in row["metrics"].items():
            seeds = " ".join(map(str, row["seeds"]))
            values = [summary.get(n) for n in names]
            writer.writerow([*(row[p] for p in places), seeds, metric, *values])
    return text.getvalue()
