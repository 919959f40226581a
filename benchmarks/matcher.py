#!/usr/bin/env python3
"""
Time and memory of the matcher, beside other matchers on the same synthetic batches.

    python benchmarks/matcher.py --device cpu --threads 2
    python benchmarks/matcher.py --device cuda --scenarios voc coco

prints a table and writes table.md, results.json and objects.png (time and memory against the number
of objects) to the output folder.
"""

import argparse
import importlib.metadata
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from tabulate import tabulate
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the modules beside it

from benchmarks.measure import MIB, measure  # noqa: E402
from benchmarks.peers import MATCHERS, OURS, Case  # noqa: E402
from benchmarks.scenarios import SCENARIOS  # noqa: E402
from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.errors import run_main
from mutual_guidance.figures import NO_LATEX, write_png
from mutual_guidance.machine import processor
from mutual_guidance.run_files import write_text


def add_ratios(results: list[dict[str, Any]]) -> None:
    """Add ``ratio``: the median time over that of our matcher in the same scenario."""
    medians = {r["scenario"]: r.get("median_ms") for r in results if r["matcher"] == OURS}
    for result in results:
        base = medians.get(result["scenario"])
        has_both = base is not None and "median_ms" in result
        result["ratio"] = result["median_ms"] / base if has_both else None


def format_table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    headers = ["scenario", "matcher", "time (ms)", "interquartile (ms)", "time / ours"]
    headers += ["peak memory (MiB)", "kernels"]
    rows = []
    for result in results:
        row = [result["scenario"], result["matcher"]]
        if result["status"] != "ok":
            rows.append([*row, result["status"], "", "", "", ""])
            continue
        spread = f"{result['q1_ms']:.4g} to {result['q3_ms']:.4g}"
        ratio, peak = result["ratio"], result["peak_mib"]
        row += [f"{result['median_ms']:.4g}", spread, "" if ratio is None else f"{ratio:.2f}"]
        row += ["" if peak is None else f"{peak:.0f}", result["kernels"]]
        rows.append(row)
    alignment = ("left", "left", *["right"] * 5)
    return tabulate(
        rows, headers, tablefmt="github", colalign=alignment, disable_numparse=True, missingval=""
    )


def machine(device: str, threads: int | None) -> dict[str, Any]:
    """What the figures were measured on, and by which command."""
    packages = ("torch", "torchvision", "mmdet", "ultralytics")
    on_cuda = device.startswith("cuda")
    return {
        "cpu": processor(),
        "threads": threads or torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := version_of(name))},
        "command": shlex.join(["python", "benchmarks/matcher.py", *sys.argv[1:]]),
    }


def version_of(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@matplotlib.rc_context(NO_LATEX)
def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory against the number of objects in a batch of 8 images."""
    sweep = [r for r in results if r["scenario"].startswith("sweep_") and r["status"] == "ok"]
    if not sweep:
        return
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    fields = {"median_ms": "time of a call (ms)", "peak_mib": "peak memory of a call (MiB)"}
    for axis, (field, label) in zip(axes, fields.items(), strict=True):
        for name in MATCHERS:
            points = [r for r in sweep if r["matcher"] == name and r[field]]
            counts = [SCENARIOS[r["scenario"]].num_objects for r in points]
            if points:
                width = 2.5 if name == OURS else 1.2
                axis.plot(counts, [r[field] for r in points], "o-", label=name, linewidth=width)
        axis.set(xscale="log", yscale="log", xlabel="objects in the batch", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle("8 images, 8,400 anchors each")
    write_png(path, figure, dpi=150)


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    names = [name for name in SCENARIOS if not name.startswith("sweep_")] + ["sweep"]
    parser = Parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU; its own choice if left")
    for option, known in (("--scenarios", names), ("--matchers", list(MATCHERS))):
        parser.add_argument(
            option, nargs="+", metavar="NAME", choices=known, default=known, help="which ones"
        )
    parser.add_argument("--repeats", type=at_least_one, default=20, help="timed calls of a case")
    parser.add_argument("--seconds", type=float, default=60, help="no new repeat after so long")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of a case, all told")
    parser.add_argument("--memory-budget", type=int, default=1024, help="of ours, in MiB")
    parser.add_argument(
        "--output", type=Path, default=Path("output", "benchmark_matcher"), help="folder"
    )
    return parser.parse_args(args)


def make_cases(options: argparse.Namespace) -> list[Case]:
    """Every matcher in every scenario."""
    shared = (options.device, options.threads, options.repeats, options.seconds)
    shared += (options.memory_budget * MIB,)
    return [
        Case(scenario, matcher, *shared)
        for scenario in SCENARIOS
        if ("sweep" if scenario.startswith("sweep_") else scenario) in options.scenarios
        for matcher in options.matchers
    ]


def main(args: list[str] | None = None) -> None:
    """Measure all cases and report."""
    options = parse_args(args)
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    with tqdm(make_cases(options), unit="case") as progress:
        for case in progress:
            progress.set_postfix_str(f"{case.scenario}: {case.matcher}")
            results.append(result := measure(case, options.timeout))
            told = f"{result['median_ms']:.4g} ms" if result["status"] == "ok" else result["status"]
            tqdm.write(f"{case.scenario}: {case.matcher}: {told}")
    add_ratios(results)
    write(results, options)


def write(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the table; write it, the figures and the drawing."""
    table = format_table(results)
    write_text(options.output / "table.md", table + "\n")
    report = {
        "machine": machine(options.device, options.threads),
        "memory_budget_mib": options.memory_budget,
        "scenarios": {r["scenario"]: SCENARIOS[r["scenario"]]._asdict() for r in results},
        "results": results,
    }
    write_text(options.output / "results.json", json.dumps(report, indent=2) + "\n")
    draw(results, options.output / "objects.png")
    print(f"\n{table}\n\nWritten to {options.output}/")


if __name__ == "__main__":
    run_main(main)
