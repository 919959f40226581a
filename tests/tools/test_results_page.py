import importlib.util
import json

import pytest

from mutual_guidance.experiments.report import summarize
from tests.conftest import REPOSITORY


def load_tool():
    path = REPOSITORY / "tools" / "results_page.py"
    spec = importlib.util.spec_from_file_location("results_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    tool = load_tool()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results.md").write_text(f"before\n{tool.BEGIN}\nstale\n{tool.END}\nafter\n")
    return tool


def call(tool, monkeypatch, *paths):
    monkeypatch.setattr("sys.argv", ["results_page.py", *map(str, paths)])
    tool.main()
    return (tool.ROOT / "docs/results.md").read_text()


def test_keeps_results_and_rewrites_the_page(tool, tmp_path, monkeypatch, result):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(result))
    page = call(tool, monkeypatch, path)
    assert page.startswith("before\n") and page.endswith("after\n") and "stale" not in page
    assert json.loads((tmp_path / "docs/results/tiny.json").read_text()) == result
    assert "5 runs, 1.2 hours of training in all. Still missing: 1 of 6 runs." in page
    assert (
        "Commits abc1234; torch 2.0, on a machine." in page and "![tiny](results/tiny.png)" in page
    )
    assert 1000 < (tmp_path / "docs/results/tiny.png").stat().st_size < 300_000
    assert call(tool, monkeypatch) == page  # from what is kept


def test_the_tables_figures_are_the_json(tool, tmp_path, monkeypatch, result):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(result))
    table = [x for x in call(tool, monkeypatch, path).splitlines() if x.startswith("| A/x")]
    got = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    # static 21 and 22; mutual_guidance 24 and 26, hence differences 3 and 4: mean 3.5, half width
    # 12.706 * 0.7071 / 1.4142 = 6.4.
    assert got[0][:5] == ["A/x", "", "static", "2", "21.5 ± 0.7"]
    assert got[1][:5] == ["A/x", "", "mutual_guidance", "2", "25.0 ± 1.4"]
    assert got[1][7] == "+3.5 (-2.9 to +9.9)"
    assert got[2][:5] == ["A/x", "start", "static", "1", "15.0"]


def test_mistakes_are_named(tool, tmp_path, monkeypatch, result):
    path = tmp_path / "results.json"
    for text, message in (
        ("{", "is no results.json"),
        (json.dumps({**result, "runs": []}), "has no finished run"),
        (
            json.dumps({**result, "rows": result["rows"][-1:]}),
            "has no finished run yet, but for st",
        ),
    ):
        path.write_text(text)
        with pytest.raises(SystemExit, match=message):
            call(tool, monkeypatch, path)
        assert not (tmp_path / "docs/results").exists()
    (tmp_path / "docs/results.md").write_text("no markers\n")
    with pytest.raises(SystemExit, match="needs the lines"):
        call(tool, monkeypatch)


def test_the_committed_page_is_that_of_the_committed_results():
    tool = load_tool()
    text = (REPOSITORY / "docs/results.md").read_text()
    assert tool.replace(text, tool.experiments(REPOSITORY / "docs/results")) == text
    paths = list((REPOSITORY / "docs/results").glob("*.json"))
    assert paths
    for path in paths:
        result = json.loads(path.read_text())
        rows = {json.dumps(row): row for row in result["rows"]}
        paper = {json.dumps(_without_paper(row), sort_keys=True) for row in rows.values()}
        again = summarize(result["runs"], {})
        assert {json.dumps(_without_paper(row), sort_keys=True) for row in again} == paper, path
        assert path.with_suffix(".png").is_file()


def _without_paper(row):
    metrics = {
        name: {k: v for k, v in summary.items() if k != "paper"}
        for name, summary in row["metrics"].items()
    }
    # Rows that were kept before there were folds have no number of runs.
    return {"runs": len(row["seeds"]), **row, "metrics": metrics}
