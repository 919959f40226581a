#!/usr/bin/env python3
"""
Rewrite the tables of docs/results.md from the results that are kept in docs/results.

    python tools/results_page.py                                     # from what is kept
    python tools/results_page.py output/experiments/*/results.json   # keep these first
"""

from pathlib import Path

from mutual_guidance.arguments import Parser
from mutual_guidance.errors import ExperimentError, run_main
from mutual_guidance.experiments.grid import load_experiment
from mutual_guidance.experiments.kept import keep, read_results
from mutual_guidance.experiments.page import decisions, exploratory_sections, planned_sections
from mutual_guidance.experiments.plots import plot
from mutual_guidance.experiments.schema import START
from mutual_guidance.run_files import write_text

ROOT = Path(__file__).resolve().parents[1]
# What is written by this tool, each between begin(NAME) and end(NAME).
DECISIONS, PLANNED, EXPLORATORY = "decisions", "planned experiments", "exploratory experiments"


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="results.json of experiments to keep")
    args = parser.parse_args(argv)
    page, kept = ROOT / "docs" / "results.md", ROOT / "docs" / "results"
    text = page.read_text()
    for name in (DECISIONS, PLANNED, EXPLORATORY):
        if text.count(begin(name)) != 1 or text.count(end(name)) != 1:
            lines = f"{begin(name)!r} and {end(name)!r}"
            raise ExperimentError(f"{page} needs the lines {lines} once each")
    for path in args.results:
        read(path)
    for path in args.results:
        result = keep(path, kept)
        plot(result, kept / f"{result['experiment']}.png")
    write_text(page, written(text, kept, ROOT / "experiments"))
    print(f"Written: {page.relative_to(ROOT)}")


def read(path: Path) -> dict:
    """The results of an experiment. Raises ExperimentError where there are none."""
    result = read_results(path)
    if not result["runs"] or all(row["variant"] == START for row in result["rows"]):
        raise ExperimentError(f"{path} has no finished run yet, but for starts")
    return result


def written(text: str, kept: Path, experiments: Path) -> str:
    """The page with what is kept of the results, and the plans of the experiments."""
    results = [read(path) for path in sorted(kept.glob("*.json"))]
    planned = [r for r in results if "questions" in r]
    others = [r for r in results if "questions" not in r]
    plans = [load_experiment(path, Path()) for path in sorted(experiments.glob("*.yaml"))]
    contents = {
        DECISIONS: decisions(
            [e for e in plans if e.questions], {r["experiment"]: r for r in planned}
        ),
        PLANNED: planned_sections(planned, kept.name),
        EXPLORATORY: exploratory_sections(others, kept.name),
    }
    for name, content in contents.items():
        before, rest = text.split(begin(name))
        after = rest.split(end(name))[1]
        text = f"{before}{begin(name)}\n\n{content or 'None yet.'}\n\n{end(name)}{after}"
    return text


def begin(name: str) -> str:
    return f"<!-- {name}: written by tools/results_page.py -->"


def end(name: str) -> str:
    return f"<!-- end of {name} -->"


if __name__ == "__main__":
    run_main(main)
