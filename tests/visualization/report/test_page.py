import re

import pytest

from mutual_guidance.visualization.report import read_comparisons, read_run, render_report
from mutual_guidance.visualization.report.page import TABS, configuration, curves, results

from .conftest import NASTY, write_comparison, write_run


@pytest.fixture
def runs(tmp_path):
    folders = [write_run(tmp_path / s, s, ap) for s, ap in (("static", 20.0), ("guided", 22.0))]
    return [read_run(folder, folder.name) for folder in folders]


def render(*runs, comparison=None):
    comparisons, troubles = read_comparisons(comparison) if comparison else ([], [])
    return render_report(runs, comparisons, [t for r in runs for t in r.troubles] + troubles)


def test_results_by_hand(runs):
    (result,) = results(runs)
    assert result.dataset == "shapes_test"
    assert result.table.headers == ["run", "AP", "AP50", "APs"]
    assert result.table.rows == [["static", "20.0", "40.0", "–"], ["guided", "22.0", "40.0", "–"]]
    assert [text.split(" on ")[0] for text, _ in result.charts] == [
        "AP of each class",
        "AP of each size",
    ]


def test_configuration_differences(runs):
    table = configuration(runs)
    assert table.headers == ["key", "default", "static", "guided"]
    assert table.rows == [["MODEL.MUTUAL_GUIDANCE.STRATEGY", "mutual_guidance", "static", "guided"]]
    alone = {row[0]: row[1:] for row in configuration(runs[:1]).rows}
    assert alone["SOLVER.EPOCHS"] == ["0.0", "27.0"] and "OUTPUT_DIR" not in alone
    runs[0].config = {}
    assert configuration(runs[:1]).rows == []


def test_a_run_may_be_called_default(runs):
    strategy = "MODEL.MUTUAL_GUIDANCE.STRATEGY"
    runs[0].label = "default"
    table = configuration(runs)
    assert table.headers == ["key", "default", "default", "guided"]  # first the defaults
    assert table.rows == [[strategy, "mutual_guidance", "static", "guided"]]
    alone = {row[0]: row[1:] for row in configuration(runs[:1]).rows}
    assert alone[strategy] == ["mutual_guidance", "static"]


def test_curves_of_a_data_set_with_a_hyphen(runs):
    names = ("my-val/bbox/AP", "my-val/bbox/AP-ring", "my-val/misalignment/top_iou_after")
    runs[0].curves = {name: {0: 1.0, 20: 2.0} for name in names}
    assert [name for name, _ in curves(runs[:1])] == [names[0], names[2]]


def test_curves(runs):
    runs[1].curves["loss_cls"] = {20: 1.0, 40: 0.5}
    runs[1].curves["bbox/AP50"] = {100: 40.0}  # once: no curve
    assert [name for name, _ in curves(runs)] == ["total_loss", "loss_cls", "bbox/AP"]


def test_everything_is_inside_and_escaped(runs, tmp_path):
    runs[0].label = f"{NASTY} $x^{{"  # and no mathematics for matplotlib
    page = render(*runs, comparison=write_comparison(tmp_path / "comparison"))
    assert "document.title" in page and "<script>document" not in page
    assert page.count("<script") == 1
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 10 and all(s.startswith("data:") for s in sources)
    assert "http" not in re.sub(r'"data:[^"]*"|http-equiv', "", page)
    assert all(f'<section id="{tab}"' in page for tab in TABS)
    assert "class AP" not in page and "disagreement 1.25" in page


def test_what_is_wrong_is_said_in_its_place(run_folder, tmp_path):
    (run_folder / "evaluation.json").unlink()
    page = render(read_run(run_folder, "static"), comparison=tmp_path / "none")
    section = page.split('<section id="results"')[1].split("</section>")[0]
    assert "evaluation.json is missing" in section
    section = page.split('<section id="detections"')[1].split("</section>")[0]
    assert "comparison.json is missing; tools/compare_detections.py writes it" in section


@pytest.mark.parametrize("content", ["{", "{}", "3", '[{"image": "a"}]', "[1]"])
def test_a_torn_comparison_is_one_sentence(content, run_folder, tmp_path):
    folder = write_comparison(tmp_path / "comparison")
    (folder / "comparison.json").write_text(content)
    page = render(read_run(run_folder, "static"), comparison=folder)
    assert page.count('class="trouble"') == 1 and "comparison.json cannot be read" in page


def test_a_comparison_reaches_no_file_outside_its_folder(run_folder, tmp_path):
    folder = write_comparison(tmp_path / "comparison")
    text = (folder / "comparison.json").read_text()
    (folder / "comparison.json").write_text(text.replace("000_a.png", "../static/x.png"))
    page = render(read_run(run_folder, "static"), comparison=folder)
    assert f"{folder / 'x.png'} is missing" in page


def test_a_bare_run(tmp_path):
    (tmp_path / "metrics.json").write_text("")
    page = render(read_run(tmp_path, "bare"))
    assert page.count('class="trouble"') == 4  # config, results, misalignment, assignments
    assert "compare_detections.py RUN RUN" in page
