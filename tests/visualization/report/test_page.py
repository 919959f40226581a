import base64
import re

import pytest
from matplotlib.axes import Axes

from mutual_guidance.visualization.report import figures, read_run, render_report
from mutual_guidance.visualization.report.page import (
    TABS,
    about_table,
    configuration,
    curves,
    results,
)

from .conftest import NASTY, write_run


@pytest.fixture
def runs(tmp_path):
    folders = [write_run(tmp_path / s, s, ap) for s, ap in (("static", 20.0), ("guided", 22.0))]
    return [read_run(folder, folder.name) for folder in folders]


def test_what_stands_on_top(runs):
    table = about_table(runs[:1])
    assert table.headers == []
    rows = dict(table.rows)
    assert rows["Strategy"] == "static" and rows["First command"].endswith("mine.yaml A 20.0")
    assert rows["Detector"] == "GuidedRetinaNet on build_top_down_resnet_backbone, 128 pixels"
    data = "trained on shapes_train, tested on shapes_test; 2 classes: ring, "
    assert rows["Data"] == data + NASTY
    assert "EMA is the moving average" not in render_report(runs[:1])
    assert rows["Training"].startswith("81 of ") and rows["Training"].endswith("of 16 images")
    most = runs[0].config["SOLVER.MAX_ITER"]
    runs[0].curves["bbox/AP"][most] = 1.0  # by the evaluation at the end
    training = dict(about_table(runs[:1]).rows)["Training"]
    assert training.startswith(f"{most} of {most} iterations")
    assert about_table(runs).headers == ["", "static", "guided"]
    assert about_table(runs).rows[0] == ["Strategy", "static", "guided"]


@pytest.mark.parametrize(
    ("key", "value", "row"),
    [
        ("SOLVER.MAX_ITER", "many", ["Training", "81 iterations of 16 images"]),
        ("DATASETS.CLASSES", None, ["Data", "trained on shapes_train, tested on shapes_test"]),
        ("DATASETS.CLASSES", 3, ["Data", "trained on shapes_train, tested on shapes_test"]),
        (
            "MODEL.META_ARCHITECTURE",
            3,
            ["Detector", "3 on build_top_down_resnet_backbone, 128 pixels"],
        ),
    ],
)
def test_edited_values_of_a_config_are_told_or_left_out(runs, key, value, row):
    runs[0].config[key] = value
    assert row in about_table(runs[:1]).rows


def test_results_by_hand(runs):
    (result,) = results(runs)
    assert result.dataset == "shapes_test"
    assert result.table.headers == ["run", "AP", "AP50", "APs"]
    assert result.table.rows == [["static", "20.0", "40.0", "–"], ["guided", "22.0", "40.0", "–"]]
    runs[0].ema_results = {"shapes_test": {"AP": 21.0}}
    (result,) = results(runs[:1])
    assert result.table.rows[1] == ["static, EMA", "21.0", "–", "–"]
    assert [text.split(" on ")[0] for text, _ in result.charts] == [
        "AP of each class",
        "AP of each size",
    ]


def test_configuration_differences(runs):
    table = configuration(runs)
    assert table.headers == ["key", "default", "static", "guided"]
    assert table.rows == [["MODEL.MUTUAL_GUIDANCE.STRATEGY", "mutual_guidance", "static", "guided"]]
    alone = {row[0]: row[1:] for row in configuration(runs[:1]).rows}
    assert alone["SOLVER.EPOCHS"] == ["0.0", "12.0"] and "OUTPUT_DIR" not in alone
    runs[0].config = {}
    assert configuration(runs[:1]).rows == []
    assert "Keys that differ from the defaults" in render_report(runs)  # those of one config


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
    assert names_of(curves(runs[:1])) == {"Test set": [names[0]], "Misalignment": [names[2]]}


def test_curves(runs):
    runs[1].curves["loss_cls"] = {20: 1.0, 40: 0.5}
    runs[1].curves["bbox/AP50"] = {100: 40.0}  # once: no curve
    drawn = curves(runs)
    assert names_of(drawn) == {"Losses": ["total_loss", "loss_cls"], "Test set": ["bbox/AP"]}
    assert drawn["Losses"][0].explanation == "Sum of all losses."


def names_of(drawn):
    return {group: [curve.name for curve in charts] for group, charts in drawn.items()}


def test_everything_is_inside_and_escaped(runs):
    runs[0].label = f"{NASTY} $x^{{"  # and no mathematics for matplotlib
    page = render_report(runs)
    assert "document.title" in page and "<script>document" not in page
    assert page.count("<script") == 1
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 10 and all(s.startswith("data:") for s in sources)
    assert "http" not in re.sub(r'"data:[^"]*"|http-equiv', "", page)
    assert all(f'<section id="{tab}"' in page for tab in TABS)
    assert "disagreement 0.00" in page


def test_names_that_begin_with_an_underscore_are_in_the_legends():
    values = {"_static": {1: 0.5, 2: 0.6}, "guided": {1: 0.5, 2: 0.7}}
    with pytest.MonkeyPatch.context() as patch:
        legends = []
        show = Axes.legend
        patch.setattr(Axes, "legend", lambda axes, **kw: legends.append(show(axes, **kw)))
        figures.curve(values, "AP")
    assert [text.get_text() for text in legends[0].get_texts()] == [" _static", "guided"]


def test_charts_leave_letters_to_the_fonts_of_the_reader(recwarn):
    uri = figures.bars({"static": {"红细胞": 50.0}}, ["红细胞"])
    assert "红细胞" in base64.b64decode(uri.split(",")[1]).decode()
    assert not [w for w in recwarn if "missing from" in str(w.message)]


def test_what_is_wrong_is_said_in_its_place(run_folder):
    (run_folder / "evaluation.json").unlink()
    (run_folder / "detections" / "shapes_test.npz").unlink()
    page = render_report([read_run(run_folder, "static")])
    section = page.split('<section id="results"')[1].split("</section>")[0]
    assert "evaluation.json is missing" in section
    section = page.split('<section id="detections"')[1].split("</section>")[0]
    assert "has no detections; let the training end, or evaluate" in section


def test_a_bare_run(tmp_path):
    (tmp_path / "metrics.json").write_text("")
    page = render_report([read_run(tmp_path, "bare")])
    # Of the configuration, the results, the misalignment, the assignments and the detections.
    assert page.count('class="trouble"') == 5
    assert "Last written" in page and "Strategy" not in page
