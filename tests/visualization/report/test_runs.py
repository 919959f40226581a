import json

import pytest
from PIL import Image

from mutual_guidance.errors import InputError
from mutual_guidance.visualization import Film
from mutual_guidance.visualization.report import read_run, run_labels
from mutual_guidance.visualization.report.files import thinned
from mutual_guidance.visualization.report.runs import MAX_FILMS, MAX_FRAMES

from .conftest import NASTY

TORN = {
    "config.yaml": "configuration",
    "metrics.json": "curves",
    "evaluation.json": "results",
    "misalignment/shapes_test.json": "misalignment",
    "detections/shapes_test.npz": "detections",
    "visualization/assignments/000001/0000050.png": "assignments",
}


def test_a_whole_run(run_folder):
    run = read_run(run_folder, "a")
    assert run.troubles == [] and run.label == "a"
    assert run.config["MODEL.MUTUAL_GUIDANCE.STRATEGY"] == "static"
    assert run.config["SOLVER.EPOCHS"] == 12.0
    assert list(run.curves["total_loss"].items())[:2] == [(0, 3.0), (20, 2.8)]
    assert run.results["shapes_test"][f"AP-{NASTY}"] == 30
    assert run.misalignment["shapes_test"]["num_gts"] == 20
    frames = run.films["000001"]
    assert [f.iteration for f in frames] == [0, 50, 100]
    assert frames[1].caption == "only static 57" and frames[1].uri.startswith("data:image/jpeg")


@pytest.mark.parametrize(("file", "tab"), TORN.items())
def test_a_torn_file_is_one_sentence(run_folder, file, tab):
    path = run_folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    troubles = [t for t in read_run(run_folder, "a").troubles if str(path) in t[1]]
    ((where, sentence),) = troubles[:1]
    assert where == tab and "torn" in sentence and "\n" not in sentence


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "evaluation.json"])
def test_a_missing_file_is_one_sentence(run_folder, name):
    (run_folder / name).unlink()
    where, sentence = read_run(run_folder, "a").troubles[0]
    assert where == TORN[name] and f"{name} is missing; " in sentence


def test_what_was_not_asked_for_says_how_to_get_it(run_folder):
    (run_folder / "misalignment" / "shapes_test.json").unlink()
    (run_folder / "visualization").rename(run_folder / "elsewhere")
    troubles = dict(read_run(run_folder, "a").troubles)
    assert "TEST.MISALIGNMENT True" in troubles["misalignment"]
    assert "VIS_PERIOD" in troubles["assignments"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "[1, 2]"),
        ("config.yaml", "a: !!python/object/apply:os.getcwd []"),
        ("evaluation.json", "[]"),
        ("evaluation.json", '{"x": {"bbox": {"AP": "<b>"}}}'),
        ("evaluation.json", '{"x": {}}'),
        ("evaluation.json", "{}"),
        ("misalignment/shapes_test.json", "{}"),
        ("misalignment/shapes_test.json", "[3]"),
        ("visualization/assignments/000001/0000050.png", "<svg>"),
    ],
)
def test_alien_content_is_one_sentence(run_folder, file, content):
    (run_folder / file).write_text(content)
    where, sentence = read_run(run_folder, "a").troubles[0]
    assert where == TORN[file] and str(run_folder / file) in sentence


def test_of_a_resumed_run_the_later_values_count(run_folder):
    with open(run_folder / "metrics.json", "a") as f:
        f.write('\n{"iteration": 40, "total_loss": 9.0}\n{"iteration": 60, "total_loss": NaN}')
        f.write('\n{"iteration": 80, "total_lo')
    run = read_run(run_folder, "a")
    assert run.curves["total_loss"] == {0: 3.0, 20: 2.8, 40: 9.0, 80: 2.2}
    assert run.troubles == [("curves", f"{run_folder / 'metrics.json'}: 1 torn lines are left out")]


def test_a_row_behind_a_torn_one_counts(run_folder):
    with open(run_folder / "metrics.json", "a") as f:
        f.write('\n{"iteration": 100, "total_lo{"iteration": 90, "total_loss": 2.0}\n')
    run = read_run(run_folder, "a")
    assert run.curves["total_loss"][90] == 2.0 and 100 not in run.curves["total_loss"]
    assert run.troubles == [("curves", f"{run_folder / 'metrics.json'}: 1 torn lines are left out")]


def test_a_torn_line_of_counts_costs_its_picture(run_folder):
    path = run_folder / "visualization" / "assignments" / "counts.jsonl"
    lines = path.read_text().splitlines()
    alien = json.dumps({"file": "x.png", "counts": {}})  # names no iteration
    path.write_text("\n".join([lines[0], json.dumps([1]), lines[2][:40], alien]))
    run = read_run(run_folder, "a")
    assert [f.caption for f in run.films["000001"]] == ["only static 7"]
    assert run.troubles == [("assignments", f"{path}: 3 torn lines are left out")]


def test_of_many_films_the_first_are_shown(run_folder):
    film = Film(run_folder / "visualization" / "assignments")
    for i in range(MAX_FILMS + 1):
        film.add(f"1{i:05d}", 40, Image.new("RGB", (60, 40)), {"only_static": 7})
    run = read_run(run_folder, "a")
    ((tab, sentence),) = run.troubles
    assert len(run.films) == MAX_FILMS and "images the first 8 are shown" in sentence
    film.forget_from(0)  # whose folders stay
    film.add("200000", 40, Image.new("RGB", (60, 40)), {"only_static": 7})
    assert list(read_run(run_folder, "a").films) == ["200000"]


def test_pictures_that_the_film_has_forgotten_are_not_shown(run_folder):
    film = Film(run_folder / "visualization" / "assignments")
    film.forget_from(50)  # the training goes on from there, perhaps with another VIS_PERIOD
    run = read_run(run_folder, "a")
    assert [f.iteration for f in run.films["000001"]] == [0] and run.troubles == []
    film.add("000001", 40, Image.new("RGB", (60, 40)), {"only_static": 47})
    assert [f.iteration for f in read_run(run_folder, "a").films["000001"]] == [0, 40]
    film.forget_from(0)
    run = read_run(run_folder, "a")
    ((tab, sentence),) = run.troubles
    assert run.films == {} and tab == "assignments" and "names no picture" in sentence


def test_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no output folder of a run: it has none of config"):
        read_run(tmp_path, "a")


def test_labels(tmp_path):
    a, b = tmp_path / "x" / "static", tmp_path / "y" / "static"
    assert run_labels([a]) == ["static"]
    assert run_labels([a, b]) == ["x/static", "y/static"]
    assert run_labels([a, a.parent / "other"]) == ["static", "other"]
    with pytest.raises(InputError, match="given twice"):
        run_labels([a, a.parent / "." / "static"])


def test_thinned_keeps_the_ends():
    assert thinned([1, 2, 3], 3) == [1, 2, 3]
    chosen = thinned(list(range(1000)), MAX_FRAMES)
    assert len(set(chosen)) == MAX_FRAMES and chosen[0] == 0 and chosen[-1] == 999


@pytest.mark.parametrize("where", [("suppressed",), ("after", "iou_lost", "histogram", "counts")])
def test_misalignment_of_no_numbers_is_one_sentence(run_folder, where):
    path = run_folder / "misalignment" / "shapes_test.json"
    details = json.loads(path.read_text())
    *outer, last = where
    inner = details
    for key in outer:
        inner = inner[key]
    inner[last] = "many"
    path.write_text(json.dumps(details))
    ((tab, sentence),) = read_run(run_folder, "a").troubles
    assert tab == "misalignment" and str(path) in sentence
