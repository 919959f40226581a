import json
from pathlib import Path

import pytest

from mutual_guidance.errors import ExperimentError
from mutual_guidance.experiments.bootstrap import compare, resample
from mutual_guidance.experiments.decision import answer
from mutual_guidance.experiments.grid import load_experiment, run_place
from mutual_guidance.experiments.matches import pool, read_matches
from mutual_guidance.experiments.page import planned_sections
from mutual_guidance.experiments.report import LEGEND, LEGENDS, summarize
from tests.conftest import REPOSITORY, load_script


def run(strategy, seed, ap, variant=""):
    points = [{"iteration": 10 * i, "AP": ap * i / 3} for i in (1, 2, 3)]
    return {
        "protocol": "warm",
        "config": "configs/A/x.yaml",
        "variant": variant,
        "strategy": strategy,
        "baseline": "" if strategy != "static" else None,
        "seed": seed,
        "metrics": {"AP": ap, "AP50": 2 * ap, "AP75": ap / 2},
        "training_hours": 0.25,
        "history": points,
        "commits": ["abc1234"],
        "environment": {"torch": "2.0", "device": "a machine"},
    }


@pytest.fixture
def result():
    runs = [run("static", seed, 20.0 + seed) for seed in (1, 2)]
    runs += [run("mutual_guidance", seed, 22.0 + 2 * seed) for seed in (1, 2)]
    runs.append(run("static", 1, 15.0, variant="start"))
    return {
        "experiment": "tiny",
        "command": "python tools/experiment.py experiments/tiny.yaml",
        "paper_source": "",
        "missing": ["out/start/seed_2"],
        "rows": summarize(runs, {}),
        "runs": runs,
    }


@pytest.fixture
def tool(tmp_path, monkeypatch):
    tool = load_script("tools/results_page.py")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "experiments").mkdir()
    names = (tool.DECISIONS, tool.PLANNED, tool.EXPLORATORY)
    parts = [f"{tool.begin(name)}\nstale\n{tool.end(name)}\n" for name in names]
    (tmp_path / "docs/results.md").write_text("\n".join(["before", *parts, "after\n"]))
    return tool


@pytest.fixture
def page_of(tool, tmp_path):
    """Calls the script, with results or none; the page that it writes."""

    def call(*results):
        (tmp_path / "results.json").write_text("".join(map(json.dumps, results)))
        tool.main([str(tmp_path / "results.json")] * len(results))
        return (tool.ROOT / "docs/results.md").read_text()

    return call


def test_keeps_results_and_rewrites_the_page(page_of, tmp_path, result):
    page = page_of(result)
    assert page.startswith("before\n") and page.endswith("after\n") and "stale" not in page
    assert json.loads((tmp_path / "docs/results/tiny.json").read_text()) == result
    assert "5 runs, 1.2 hours of training in all. Still missing: 1 of 6 runs." in page
    assert (
        "Commits abc1234; torch 2.0, on a machine." in page and "![tiny](results/tiny.png)" in page
    )
    assert 1000 < (tmp_path / "docs/results/tiny.png").stat().st_size < 300_000
    assert page_of() == page  # from what is kept


def rows_of(page, first):
    """The cells of the lines of tables that begin so."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_tables_figures_are_the_json(page_of, result):
    got = rows_of(page_of(result), "A/x")
    # static 21 and 22; mutual_guidance 24 and 26, hence differences 3 and 4: mean 3.5, half width
    # 12.706 * 0.7071 / 1.4142 = 6.4.
    assert got[0][:5] == ["A/x", "", "static", "2", "21.5 ± 0.7"]
    assert got[1][:5] == ["A/x", "", "mutual_guidance", "2", "25.0 ± 1.4"]
    assert got[1][7] == "+3.5 (-2.9 to +9.9)"
    assert got[2][:5] == ["A/x", "start", "static", "1", "15.0"]


PLAN = """
configs: [configs/A/x.yaml]
strategies: [static, mutual_guidance]
seeds: [1, 2]
primary: {claim: it helps, metric: AP, strategy: mutual_guidance, classes: [a]}
decision: {paper_gain: 3.5}
secondary: [{metric: AP75}, {metric: misalignment/x}]
"""


@pytest.fixture
def planned(tool, tmp_path, result):
    """The result as that of an experiment with a plan."""
    (tmp_path / "experiments" / "tiny.yaml").write_text(PLAN)
    questions = load_experiment(tmp_path / "experiments" / "tiny.yaml", tmp_path).questions
    guided = next(row for row in result["rows"] if row["strategy"] == "mutual_guidance")
    ap = {"value": 25.0, "baseline": 21.5, "difference": 3.5, "low": 1.25, "high": 5.75, "p": 0.01}
    ap.update(relative=16.28, relative_low=5.8, relative_high=26.7)
    guided["bootstrap"] = {
        "images": 91, "seeds": [1, 2], "draws": 2000, "in_mean": ["a"], "rounding": 0.012,
        "metrics": {"AP": ap, "AP75": {**ap, "p": 0.3}},
    }  # fmt: skip
    guided["metrics"]["AP"].update(low=0.5, high=6.5)  # both intervals have to say it
    result.update(questions=questions, plan_commits=["0123abc"], missing=[])
    cells = load_experiment(tmp_path / "experiments" / "tiny.yaml", tmp_path).cells
    for run in result["runs"]:
        run["protocol"] = "long"
    for row in result["rows"]:
        row["protocol"] = "long"
    places = [cell.place for cell in cells]
    result["answer"] = answer(questions, result["rows"], cells, places)
    return result


def test_while_runs_are_missing_no_table_is_the_plans(page_of, planned):
    planned["answer"] = {"state": "running: 2 of 4 runs"}
    page = page_of(planned)
    assert "**running: 2 of 4 runs**: nothing is decided; the tables are of the runs so far" in page
    assert not rows_of(page, "mutual_guidance ") and "The first line decides" not in page


def test_a_legend_stands_below_the_first_table_of_its_kind(planned):
    text = planned_sections([planned, planned], "results")
    assert text.count("### tiny") == 2 and text.index(LEGEND) < text.rindex("### tiny")
    assert all(text.count(legend) <= 1 for legend in LEGENDS)
    assert text.count(LEGEND) == text.count("The first line decides.") == 1


def test_the_decision_opens_the_page(page_of, planned):
    page = page_of(planned)
    (decision,) = rows_of(page, "it helps")
    assert decision == [
        "it helps", "tiny", "**confirmed**",
        "AP +3.5 (+1.2 to +5.8); +16.3 (+5.8 to +26.7) %; both intervals together +0.5 to +6.5 AP",
        "+3.5 %", "`0123abc`",
    ]  # fmt: skip
    first, second, third = rows_of(page, "mutual_guidance ")
    assert first == [
        "mutual_guidance AP", "21.5", "25.0", "+3.5 (+1.2 to +5.8)", "+16.3 (+5.8 to +26.7)",
        "bootstrap", "",
    ]  # fmt: skip
    assert ["Δ", "A/x mutual_guidance"] in rows_of(page, "Δ")
    assert ["AP75", "+3.5 (+1.2 to +5.8); +16.3 (+5.8 to +26.7) %"] in rows_of(page, "AP75 ")
    assert second[0] == "mutual_guidance AP75" and second[-1] == "0.600"
    assert third == ["mutual_guidance x", "", "", "", "", "none", ""]
    planned["answer"]["secondary"][0]["p_holm"] = 0.0004
    assert rows_of(page_of(planned), "mutual_guidance ")[1][-1] == "< 0.001"
    assert "2,000 draws" in page and "91 images and 2 seeds, with AP, AP50 and AP75 over a" in page
    assert "within 0.01 of what it printed. Believe only what the t-interval confirms" in page
    assert "AP of the detections, with folds of all of them in one ranking" in page
    asked = {"config": "configs/A/x.yaml", "variant": "", "strategy": "mutual_guidance"}
    reason = "none: 3 runs lack them"
    planned["answer"]["primary"] = {"metric": "AP", **asked, "interval": reason}
    assert rows_of(page_of(planned), "it helps")[0][3] == f"AP {reason}"


def test_the_decided_come_before_those_not_run(page_of, tmp_path, planned):
    (tmp_path / "experiments" / "a.yaml").write_text(PLAN)
    rows = rows_of(page_of(planned), "it helps")
    assert [row[1:3] for row in rows] == [["tiny", "**confirmed**"], ["a", "**not run yet**"]]


def test_an_experiment_that_is_not_finished_only_says_so(page_of, planned):
    (decision,) = rows_of(page_of(), "it helps")
    assert decision[2:4] == ["**not run yet**", ""]
    planned["answer"] = {"state": "running: 3 of 4 runs"}
    page = page_of(planned)
    assert rows_of(page, "it helps")[0][2:4] == ["**running: 3 of 4 runs**", ""]
    assert not rows_of(page, "mutual_guidance ")


def test_mistakes_are_named(page_of, tmp_path, result):
    for content, message in (
        ("a word", "is no results.json"),
        ({**result, "runs": []}, "has no finished run"),
        ({**result, "rows": result["rows"][-1:]}, "has no finished run yet, but for st"),
    ):
        with pytest.raises(ExperimentError, match=message):
            page_of(content)
        assert not (tmp_path / "docs/results").exists()
    (tmp_path / "docs/results.md").write_text("no markers\n")
    with pytest.raises(ExperimentError, match="needs the lines"):
        page_of()


def test_the_committed_page_is_that_of_the_committed_results():
    tool = load_script("tools/results_page.py")
    text = (REPOSITORY / "docs/results.md").read_text()
    assert tool.written(text, REPOSITORY / "docs/results", REPOSITORY / "experiments") == text
    paths = list((REPOSITORY / "docs/results").glob("*.json"))
    assert paths
    for path in paths:
        result = json.loads(path.read_text())
        rows = {json.dumps(row): row for row in result["rows"]}
        paper = {json.dumps(_without_paper(row), sort_keys=True) for row in rows.values()}
        again = summarize(result["runs"], {})
        assert {json.dumps(_without_paper(row), sort_keys=True) for row in again} == paper, path
        assert path.with_suffix(".png").is_file()


def _rounded(value):
    """The last digits of a p are another on every kind of processor."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


RESULTS = sorted((REPOSITORY / "docs/results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_committed_answers_are_those_of_the_kept_matches(path):
    """All but the draws, of which there are fewer here: their intervals are nearly the same."""
    result = json.loads(path.read_text())
    if "questions" in result:
        cells = load_experiment(REPOSITORY / "experiments" / f"{path.stem}.yaml", Path()).cells
        finished = [run_place(run) for run in result["runs"]]
        again = answer(result["questions"], result["rows"], cells, finished)
        assert _rounded(again) == _rounded(result["answer"])
    for row in (row for row in result["rows"] if "bootstrap" in row):
        kept, classes, folds = row["bootstrap"], [], {}
        baseline = next(r["baseline"] for r in result["runs"] if _key(r) == _key(row))
        others = (*_key(row)[:2], baseline, "static")
        for run in sorted(result["runs"], key=lambda run: run["fold"] or 0):
            if run["seed"] in kept["seeds"] and _key(run) in (_key(row), others):
                file = path.with_suffix("") / f"{run_place(run)}.npz"
                classes, matches = read_matches(file)
                folds.setdefault((_key(run), run["seed"]), []).append(matches)
        guided, static = (
            [pool(folds[key, seed]) for seed in kept["seeds"]] for key in (_key(row), others)
        )
        got = compare(*(resample(s, classes, kept["in_mean"], draws=100) for s in (guided, static)))
        for name, summary in kept["metrics"].items():
            for key in ("value", "baseline", "difference"):
                assert got[name][key] == pytest.approx(summary[key], abs=1e-3), (name, key)
            width = summary["high"] - summary["low"]
            assert got[name]["low"] == pytest.approx(summary["low"], abs=0.3 * width + 1e-3)
            assert got[name]["high"] == pytest.approx(summary["high"], abs=0.3 * width + 1e-3)


def _key(row):
    return tuple(row[key] for key in ("protocol", "config", "variant", "strategy"))


def _without_paper(row):
    metrics = {
        name: {k: v for k, v in summary.items() if k != "paper"}
        for name, summary in row["metrics"].items()
    }
    # Rows that were kept before there were folds have no number of runs.
    row = {key: value for key, value in row.items() if key != "bootstrap"}
    return {"runs": len(row["seeds"]), **row, "metrics": metrics}
