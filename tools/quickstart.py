#!/usr/bin/env python3
"""
Train and evaluate a detector on a drawn data set, from nothing, in minutes on two CPU cores.

    python tools/quickstart.py --strategies static mutual_guidance

draws datasets/Shapes, trains each strategy with the same seed and schedule, and ends with one
table and a report to look at in a browser. A run that was interrupted goes on where it was when the
command is given again.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from mutual_guidance.arguments import Parser
from mutual_guidance.assignment import STRATEGIES
from mutual_guidance.errors import run_main
from mutual_guidance.run_files import CLASS_AP, RESULTS_FILE, read_results

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/Shapes/retinanet_R_18.yaml"
METRICS = ("AP", "AP50", "AP75")
# What the report shows besides AP and curves.
REPORTED = ("VIS_PERIOD", "100", "TEST.MISALIGNMENT", "True")


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="STRATEGY",
        choices=list(STRATEGIES),
        default=["mutual_guidance"],
        help=f"one after the other, of {', '.join(STRATEGIES)}",
    )
    strategies = dict.fromkeys(parser.parse_args(argv).strategies)
    output = Path("output", "quickstart")
    run("datasets/draw_shapes.py")
    metrics = {strategy: train(strategy, output / strategy) for strategy in strategies}
    path = output / "results.json"
    results = {s: {m: values[m] for m in METRICS} for s, values in metrics.items()}
    (ROOT / path).write_text(json.dumps(results, indent=2))
    page = report([output / strategy for strategy in strategies], output)
    print(f"\n{summary(metrics)}\n\nReport: {ROOT / page}\nFigures: {ROOT / path}")
    print(f"Checkpoints and logs: {ROOT / output}/")


def train(strategy: str, folder: Path) -> dict[str, float]:
    """Train one strategy, or go on with it, and return its metrics in percent."""
    print(f"\n==> Training {strategy}", flush=True)
    overrides = ["MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy, "OUTPUT_DIR", str(folder)]
    run("train_net.py", "--config-file", CONFIG, "--resume", *REPORTED, *overrides)
    (result,) = read_results(ROOT / folder / RESULTS_FILE).values()
    return result["bbox"]


def report(folders: list[Path], output: Path) -> Path:
    """Write the report."""
    page = output / "report.html"
    run("tools/report.py", *map(str, folders), "--output", str(page))
    return page


def run(*command: str) -> None:
    """Run one of the project's scripts from its root; leave with its status where it fails."""
    env = {**os.environ, "DETECTRON2_DATASETS": "datasets"}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env)
    # Or it would train on, alone.
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    except KeyboardInterrupt:  # which a training gets as well, and writes a checkpoint
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    if status:
        sys.exit(status)


def summary(metrics: dict[str, dict[str, float]]) -> str:
    """One table: a row a strategy, the means, then AP of each class."""
    names = list(next(iter(metrics.values())))
    headers = ["strategy", *(n.removeprefix(CLASS_AP) for n in names)]
    rows = [[strategy, *(values[n] for n in names)] for strategy, values in metrics.items()]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f")


if __name__ == "__main__":
    run_main(main, interrupted="Interrupted: give the same command again to go on.")
