#!/usr/bin/env python3
"""
Rewrite the experiments of docs/results.md from the results that are kept in docs/results.

    python tools/results_page.py                                     # from what is kept
    python tools/results_page.py output/experiments/*/results.json   # keep these first
"""

import json
import sys
from pathlib import Path

from mutual_guidance.arguments import Parser
from mutual_guidance.experiments.kept import keep
from mutual_guidance.experiments.plots import plot
from mutual_guidance.experiments.report import section
from mutual_guidance.experiments.schema import START

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- experiments: written by tools/results_page.py -->"
END = "<!-- end of experiments -->"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="results.json of experiments to keep")
    args = parser.parse_args()
    page, kept = ROOT / "docs" / "results.md", ROOT / "docs" / "results"
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"error: {page} needs the lines {BEGIN!r} and {END!r} once each")
    for path in args.results:
        read(path)
    for path in args.results:
        result = keep(path, kept)
        plot(result, kept / f"{result['experiment']}.png")
    page.write_text(replace(text, experiments(kept)))
    print(f"Written: {page.relative_to(ROOT)}")


def read(path: Path) -> dict:
    """The results of an experiment; leave with a sentence where they are none."""
    try:
        result = json.loads(path.read_text())
        if result["runs"] and any(row["variant"] != START for row in result["rows"]):
            return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path} is no results.json of tools/experiment.py ({error!r})")
    sys.exit(f"error: {path} has no finished run yet, but for starts")


def experiments(folder: Path) -> str:
    """The sections of all results in the folder, by name."""
    results = [read(path) for path in sorted(folder.glob("*.json"))]
    if not results:
        return "None has been run yet; [how to](experiments.md)."
    figure = "![{0}]({1}/{0}.png)"
    return "\n\n".join(
        f"{section(r)}\n\n{figure.format(r['experiment'], folder.name)}" for r in results
    )


def replace(text: str, content: str) -> str:
    """What stands between the markers becomes the content."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    main()
