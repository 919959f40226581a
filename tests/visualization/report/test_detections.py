import json

import pytest

from mutual_guidance.evaluation.detections import read_detections, write_detections
from mutual_guidance.visualization.report import read_run, render_report
from mutual_guidance.visualization.report.detections import detections

from .conftest import NASTY, write_run


def test_what_a_run_found_by_hand(run_folder):
    run = read_run(run_folder, "static")
    (of_set,) = detections([run])
    (of_run,) = of_set.runs
    assert (of_set.dataset, of_run.label, run.troubles) == ("shapes_test", "static", [])
    # From 0.7 on: right, wrong, right. Precision is 2 / 3, recall 2 / 4 and F1 4 / 7.
    assert of_run.sentence == (
        "Precision and recall balance best (F1 0.57) at a score of 0.70: with it 2 of 4 objects "
        "are found, and 1 detections are false."
    )
    assert of_run.confusion.names == ["ring", NASTY, "background"]
    counts = [[count for count, _ in row] for row in of_run.confusion.rows]
    assert counts == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert of_run.confusion.rows[0][0][1] == pytest.approx(1 / 3)
    assert len(of_run.charts) == 2


def test_the_worst_and_the_best_images(run_folder):
    (of_set,) = detections([read_run(run_folder, "static")])
    shown = {
        kind: [(p.name[0], p.caption) for p in pictures]
        for kind, pictures in of_set.pictures.items()
    }
    # The object of c is missed; of a one is found, one missed, one false; all of b is right.
    assert shown == {
        "worst images": [("c", "quality 0.00"), ("a", "quality 0.50")],
        "best images": [("b", "quality 1.00")],
    }


def test_several_runs_side_by_side(tmp_path):
    runs = [read_run(write_run(tmp_path / name), name) for name in ("one", "other")]
    for field in runs[1].found["shapes_test"].matches[0]:
        field[:] = field[0]  # as if the second object were found as the first
    (of_set,) = detections(runs)
    assert [r.label for r in of_set.runs] == ["one", "other"]
    ((kind, pictures),) = of_set.pictures.items()
    assert kind == "where the runs differ most" and pictures[0].name.startswith("a")


def test_runs_on_other_files_have_no_common_pictures(tmp_path):
    runs = [read_run(write_run(tmp_path / name / "run"), name) for name in ("one", "other")]
    (of_set,) = detections(runs)
    assert of_set.pictures == {} and len(of_set.runs) == 2
    ((tab, sentence),) = runs[0].troubles
    assert tab == "detections" and "the runs name other files or classes of it" in sentence


def test_an_image_that_is_gone_costs_the_detections(run_folder):
    for path in (run_folder.parent / "data").glob("c*.png"):
        path.unlink()
    run = read_run(run_folder, "static")
    ((tab, sentence),) = run.troubles
    assert run.found == {} and tab == "detections" and "c" in sentence and "missing" in sentence


def test_an_image_that_goes_meanwhile_costs_the_pictures_alone(run_folder):
    run = read_run(run_folder, "static")
    for path in (run_folder.parent / "data").glob("c*.png"):
        path.unlink()
    (of_set,) = detections([run])
    assert of_set.pictures == {} and len(of_set.runs) == 1
    ((tab, sentence),) = run.troubles
    assert tab == "detections" and "cannot be drawn" in sentence and "missing" in sentence


def test_detections_of_other_classes_are_refused(run_folder):
    path = run_folder / "detections" / "shapes_test.npz"
    there = read_detections(path)
    there["1"].classes[:] = 7
    write_detections(path, there)
    run = read_run(run_folder, "static")
    ((tab, sentence),) = run.troubles
    assert tab == "detections" and run.found == {} and f"{path} cannot be read" in sentence
    assert "it tells of class 7, and shapes_test has 2 classes" in sentence


@pytest.mark.parametrize("key", ["images", "classes"])
def test_another_data_set_is_refused(run_folder, key):
    path = run_folder.parent / "data" / "data.json"
    data = json.loads(path.read_text())
    if key == "images":
        data["images"], data["annotations"] = data["images"][:2], data["annotations"][:3]
    else:
        data["categories"][0]["name"] = "circle"
    path.write_text(json.dumps(data))
    run = read_run(run_folder, "static")
    ((tab, sentence),) = run.troubles
    assert tab == "detections" and run.found == {} and f"shapes_test has other {key}" in sentence


def test_many_classes_are_summed_up(run_folder):
    run = read_run(run_folder, "static")
    found = run.found["shapes_test"]
    found.classes = [*found.classes, *(f"c{i}" for i in range(30))]
    (of_set,) = detections([run])
    names, num_single, rows = vars(of_set.runs[0].confusion).values()
    assert len(names) == 13 and num_single == 11 and names[-2:] == ["other classes", "background"]
    assert {"ring", NASTY} <= set(names)
    assert sum(count for row in rows for count, _ in row) == 4
    # What the others are taken for among each other is no right.
    page = render_report([run])
    assert "where their row meets their column" in page
    assert page.count('class="right"') == num_single
