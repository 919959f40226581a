#!/usr/bin/env python3
"""
Run the trainings of an experiment and compare the strategies.

    python tools/experiment.py experiments/bccd.yaml --dry-run
    python tools/experiment.py experiments/bccd.yaml --jobs 2

The same command again skips what is finished, here or in docs/results, and resumes what was
interrupted. See docs/experiments.md.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

# Before Detectron2 reads it: the runs work in another folder.
if datasets := os.getenv("DETECTRON2_DATASETS"):
    os.environ["DETECTRON2_DATASETS"] = os.path.abspath(os.path.expanduser(datasets))

import mutual_guidance.quiet  # noqa: F401 # isort: skip
from tabulate import tabulate

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.engine.output import check_output
from mutual_guidance.errors import ExperimentError, OutputError, run_main
from mutual_guidance.experiments.decision import answer, power
from mutual_guidance.experiments.grid import (
    Cell,
    Experiment,
    compared_cells,
    load_experiment,
    run_place,
)
from mutual_guidance.experiments.intervals import Intervals
from mutual_guidance.experiments.kept import collect_runs, read_results, restore
from mutual_guidance.experiments.page import verdict_section
from mutual_guidance.experiments.plan import Plan, fetch_weights, make_plans, seconds_per_image
from mutual_guidance.experiments.records import (
    check_folders,
    is_committed,
    is_finished,
    plan_commits,
    progress,
    train_spent_starts,
    write_json,
)
from mutual_guidance.experiments.report import markdown, summarize, to_csv
from mutual_guidance.experiments.runner import Runner, slots
from mutual_guidance.experiments.schema import BASELINE
from mutual_guidance.run_files import write_text

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("output", "experiments")
KEPT = Path("docs", "results")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT.yaml", help="its grid")
    parser.add_argument(
        "--jobs", type=at_least_one, help="runs at a time (default: one a GPU, or one on the CPU)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only list the runs, their cost and faults of data"
    )
    parser.add_argument(
        "--spread-of",
        type=Path,
        metavar="RESULTS.json",
        help="with --dry-run: finished runs whose spread tells what difference this grid can show",
    )
    args = parser.parse_args(argv)
    if args.spread_of and not args.dry_run:
        parser.error("--spread-of tells what a grid can show before its runs: add --dry-run")
    return args


def enter_root(args: argparse.Namespace) -> None:
    """Work where the runs do, in the project's root; given paths mean what they did before."""
    for name in ("experiment", "spread_of"):
        if path := getattr(args, name):
            path = Path(os.path.abspath(path))
            setattr(args, name, path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    os.chdir(ROOT)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    enter_root(args)
    experiment = load_experiment(args.experiment, OUTPUT)
    if args.spread_of and not experiment.questions:
        raise ExperimentError(
            f"{args.experiment} has no plan (primary) whose difference --spread-of could tell: "
            "leave it out"
        )
    plans = make_plans(ROOT, experiment.cells, experiment.questions)
    environments = slots(args.jobs)
    put_kept_back(experiment, plans, args.dry_run)
    left = unfinished(plans, args.dry_run)
    for warning in warnings(experiment, left, args.experiment):
        print(f"warning: {warning}", file=sys.stderr)
    if not args.dry_run:
        run(experiment, plans, left, environments, args.experiment)
        return
    print(listing(plans, len(environments)))
    if experiment.questions:
        print(f"\n{power_line(experiment, args.spread_of)}")


def put_kept_back(experiment: Experiment, plans: dict[Cell, Plan], is_dry: bool) -> None:
    """Restore the runs that are kept, unless, in a dry run, another call is at work there."""
    folder = ROOT / OUTPUT / experiment.name
    try:
        if folder.exists():
            check_output(str(folder), is_new_run=False)  # before anything in it changes
    except OutputError:
        if is_dry:
            return
        raise
    configs = {cell: plan.config for cell, plan in plans.items()}
    restore(ROOT, ROOT / KEPT / f"{experiment.name}.json", configs)


def unfinished(plans: dict[Cell, Plan], is_dry: bool) -> dict[Cell, Plan]:
    """The plans of what is left to do, each fit to be done."""
    configs = {cell: plan.config for cell, plan in plans.items()}
    if not is_dry:
        train_spent_starts(ROOT, configs)
    check_folders(ROOT, configs)
    left = {cell: plan for cell, plan in plans.items() if not is_finished(ROOT, cell)}
    unfit = [f"{cell.folder}: {plan.unfit}" for cell, plan in left.items() if plan.unfit]
    if unfit:
        raise ExperimentError(unfit[0])
    return left


def run(
    experiment: Experiment,
    plans: dict[Cell, Plan],
    left: dict[Cell, Plan],
    environments: list[dict[str, str]],
    path: Path,
) -> None:
    """Do what is left, then write the tables; exit with the reasons of runs that failed."""
    missing = [plan.missing for plan in left.values() if plan.missing]
    if missing:
        raise ExperimentError(missing[0])
    fetch_weights(ROOT, plans)
    folder = OUTPUT / experiment.name
    check_output(str(ROOT / folder), is_new_run=False)
    try:
        failed = Runner(ROOT, plans, environments).run()
    finally:
        print(save_results(experiment, plans, path, ROOT / folder))
        print(f"\nAll figures: {folder}/results.md, .csv and .json")
    if failed:
        reasons = "\n".join(f"  {cell.folder}: {reason}" for cell, reason in failed.items())
        sys.exit(
            f"error: {len(failed)} of {len(plans)} runs failed (see train_net.log in each "
            f"folder):\n{reasons}"
        )


def warnings(experiment: Experiment, left: dict[Cell, Plan], path: Path) -> list[str]:
    """What should be known before the runs that are left."""
    told = list(dict.fromkeys(plan.slow for plan in left.values() if plan.slow))
    compared = any(cell.strategy != BASELINE for cell in left)
    if experiment.questions and compared and not is_committed(ROOT, path.resolve()):
        told.append(
            f"{path} is not committed as it is: nothing will show that its plan was made before "
            "the runs; commit it first"
        )
    return told


def listing(plans: dict[Cell, Plan], jobs: int) -> str:
    """The runs with their state and cost, and why their data cannot be used."""
    speeds = seconds_per_image(ROOT, list(plans))
    rows, seconds_left = [], []
    for cell, plan in plans.items():
        length = str(plan.iterations or f"{plan.epochs:g} epochs")
        cost = None
        if cell.config in speeds and plan.iterations:
            seconds = speeds[cell.config] * plan.ims_per_batch  # an iteration
            cost = seconds * plan.iterations
            iterations = plan.iterations - progress(ROOT, cell, plan.iterations)
            seconds_left.append(seconds * iterations)
        state = "finished" if is_finished(ROOT, cell) else "no data" if plan.missing else "to do"
        hours = "unknown" if cost is None else f"{cost / 3600:.2f}"
        rows.append(
            [str(cell.folder.relative_to(OUTPUT)), length, plan.ims_per_batch, hours, state]
        )
    headers = ["run", "iterations", "batch", "hours", "state"]
    parts = [tabulate(rows, headers, disable_numparse=True)]
    missing = [p.missing for c, p in plans.items() if p.missing and not is_finished(ROOT, c)]
    parts += dict.fromkeys(f"Data that cannot be used: {reason}" for reason in missing)
    unknown = sum(row[3] == "unknown" and row[4] != "finished" for row in rows)
    left = f"{len(rows)} runs, {jobs} at a time."
    if any(seconds_left):
        hours = max(sum(seconds_left) / jobs, *seconds_left) / 3600
        left += f" Left: {hours:.1f} hours of training at the speed of its runs so far, "
        left += "wherever they ran, and the evaluations."
    if unknown:
        left += f" The cost of {unknown} runs is unknown until a run of their config has begun."
    parts.append(left)
    return "\n\n".join(parts)


def power_line(experiment: Experiment, spread_of: Path | None) -> str:
    """What difference the grid can show, by the spread of its own static runs or of others."""
    primary = experiment.questions["primary"]
    pairs = len(compared_cells(primary, experiment.cells)[0])
    own = collect_runs(ROOT, experiment.cells)[0]
    runs = read_results(spread_of)["runs"] if spread_of else own
    shown = power(experiment.questions, runs, pairs)
    if shown is None and spread_of:
        return (
            f"{spread_of} does not tell what difference it can show: that takes two static runs of "
            "a fold with primary's metric and classes, and two pairs here."
        )
    if shown is None:
        return (
            "What difference it can show is known once two static runs of a fold have finished; "
            "--spread-of RESULTS.json takes the spread from other runs."
        )
    gain = experiment.questions["decision"]["paper_gain"]
    return (
        f"{pairs} pairs show a difference of {shown['difference']:.1f} {primary['metric']} in four "
        f"of five such experiments, by the spread of {shown['runs']} static runs "
        f"({shown['mean']:.1f}, standard deviation {shown['spread']:.1f} with equal data); what "
        "other test images would add to it is not in this. "
        f"The paper's gain of {gain:g} % is {gain / 100 * shown['mean']:.1f}."
    )


def save_results(experiment: Experiment, plans: dict[Cell, Plan], path: Path, folder: Path) -> str:
    """Write results.md, .csv and .json of the finished runs; return the Markdown."""
    runs, launched = collect_runs(ROOT, experiment.cells)
    missing = [str(cell.folder) for cell in experiment.cells if not is_finished(ROOT, cell)]
    questions = experiment.questions
    in_mean = questions["primary"]["classes"] if questions else ()
    rows = summarize(runs, experiment.paper, in_mean)
    Intervals(ROOT, plans, in_mean).add(rows)
    asked = {}
    if questions:
        asked["questions"] = questions
        asked["plan_commits"] = plan_commits(ROOT, path.resolve(), runs)
        places = [run_place(run) for run in runs]
        asked["answer"] = answer(questions, rows, experiment.cells, places)
    source = experiment.paper.get("source", "")
    result = {
        "experiment": experiment.name,
        "command": shlex.join(["python", "tools/experiment.py", str(path)]),
        "paper_source": source,
        **asked,
        "missing": missing,
        "rows": rows,
        "launched": launched,
        "runs": runs,
    }
    write_json(folder / "results.json", result)
    write_text(folder / "results.csv", to_csv(rows))
    text = markdown(rows, source) if rows else "No run is finished yet."
    if questions:
        text = f"{verdict_section(result)}\n\n{text}"
    if missing:
        text += f"\n\n{len(missing)} of {len(experiment.cells)} runs are not finished."
    write_text(folder / "results.md", text + "\n")
    return text


if __name__ == "__main__":
    run_main(main, interrupted="Interrupted: give the same command again to go on.")
