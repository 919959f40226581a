#!/usr/bin/env python3
"""
Write one self-contained HTML page on one run or several side by side.

    python tools/report.py output/quickstart/mutual_guidance
    python tools/report.py output/static output/mutual_guidance --output report.html

A run is the output folder of train_net.py. What it lacks is said on the page, with what makes it.
"""

import argparse
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip
from mutual_guidance.arguments import Parser
from mutual_guidance.errors import printable, run_main
from mutual_guidance.run_files import replace_file
from mutual_guidance.visualization.report import read_run, render_report, run_labels


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run")
    parser.add_argument("--output", type=Path, default="report.html", help="file")
    run_main(write_report, parser.parse_args(argv))


def write_report(args: argparse.Namespace) -> None:
    """Read the runs, write the page and say what they lack."""
    labels = run_labels(args.runs)
    runs = [read_run(f, label) for f, label in zip(args.runs, labels, strict=True)]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    # Of names that are no UTF-8 the page has escapes.
    page = render_report(runs).encode(errors="backslashreplace")
    replace_file(args.output, lambda f: f.write(page))
    for _, sentence in (trouble for run in runs for trouble in run.troubles):
        print(printable(f"warning: {sentence}"))
    print(printable(f"Report: {args.output}"))


if __name__ == "__main__":
    main()
