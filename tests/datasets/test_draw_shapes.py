"""The drawn data set: reproducible, correctly annotated, and never half written."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from mutual_guidance.errors import InputError
from tests.conftest import REPOSITORY, load_script

SCRIPT = REPOSITORY / "datasets" / "draw_shapes.py"
TRAIN, TEST, SIZE = 24, 4, 96


shapes = load_script("datasets/draw_shapes.py")


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` by its relative path."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def box_by_scanning(mask: np.ndarray) -> list[int]:
    """The 1-based inclusive box of a mask, computed another way than the script does."""
    rows, cols = np.nonzero(mask)
    return [cols.min() + 1, rows.min() + 1, cols.max() + 1, rows.max() + 1]


@pytest.fixture(scope="module")
def samples() -> list:
    """Images and their objects."""
    return [shapes.draw_sample(index, SIZE, seed=0) for index in range(1, TRAIN + TEST + 1)]


def boxes_of(objects: list) -> np.ndarray:
    return np.array([shapes.tight_box(mask) for mask in shapes.visible_masks(objects)])


def is_cut(placed) -> bool:
    return placed.mask.sum() < placed.num_pixels


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "Shapes"
    assert shapes.draw_dataset(root, TRAIN, TEST, SIZE, seed=0)
    return root


def draw_small(root: Path, seed: int = 0) -> bool:
    return shapes.draw_dataset(root, train=2, test=1, size=SIZE, seed=seed)


# ---------------------------------------------------------------------------- samples
def test_boxes_are_tight_around_the_visible_masks(samples):
    for image, objects in samples:
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        masks = shapes.visible_masks(objects)
        assert boxes_of(objects).tolist() == [box_by_scanning(mask) for mask in masks]


def test_boxes_lie_inside_the_image_and_have_an_area(samples):
    boxes = np.concatenate([boxes_of(objects) for _, objects in samples])
    assert boxes.min() >= 1 and boxes.max() <= SIZE
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_tight_box_counts_from_one_and_includes_its_end():
    assert shapes.tight_box(np.ones((5, 7), dtype=bool)) == (1, 1, 7, 5)
    mask = np.zeros((5, 7), dtype=bool)
    mask[2, 3] = True
    assert shapes.tight_box(mask) == (4, 3, 4, 3)


def test_every_object_keeps_enough_of_itself(samples):
    for _, objects in samples:
        masks = shapes.visible_masks(objects)
        for mask, placed in zip(masks, objects, strict=True):
            assert mask.sum() >= 0.55 * placed.num_pixels
        # What is hidden is hidden by exactly one neighbour: visible masks do not overlap.
        assert masks.sum(axis=0).max() == 1


def test_a_later_object_covers_an_earlier_one():
    # Two 40 px squares, the second 20 px further right: it hides the right half of the first.
    square = [np.array([(-20.0, -20.0), (20.0, -20.0), (20.0, 20.0), (-20.0, 20.0)])]
    placed = [shapes.place(square, 0, np.array([x, 50.0]), 20, SIZE) for x in (30.0, 50.0)]
    assert [o.num_pixels for o in placed] == [1600, 1600]
    assert shapes.visible_masks(placed).sum(axis=(1, 2)).tolist() == [800, 1600]
    assert not shapes.fits(placed)  # 0.5 < MIN_VISIBLE
    assert shapes.fits(placed[:1])


def test_the_border_cuts_and_its_pixels_are_counted():
    # Centred 10 px from the left border, a 40 px square keeps 30 of its 40 columns.
    square = [np.array([(-20.0, -20.0), (20.0, -20.0), (20.0, 20.0), (-20.0, 20.0)])]
    placed = shapes.place(square, 0, np.array([10.0, 50.0]), 20, SIZE)
    assert placed.num_pixels == 1600 and placed.mask.sum() == 1200
    assert shapes.tight_box(placed.mask) == (1, 31, 30, 70)


def test_some_objects_are_cut_by_the_border(samples):
    cut = [is_cut(placed) for _, objects in samples for placed in objects]
    assert 0 < sum(cut) < len(cut) / 2
    for _, objects in samples:
        for box, placed in zip(boxes_of(objects), objects, strict=True):
            # A cut object would touch the border, unless a neighbour hides that end of it.
            if is_cut(placed):
                assert box.min() == 1 or box.max() == SIZE or len(objects) > 1


def test_every_class_occurs_in_train(samples):
    classes = {placed.class_id for _, objects in samples[:TRAIN] for placed in objects}
    assert classes == set(range(len(shapes.CLASS_NAMES)))


def test_one_to_five_objects(samples):
    counts = [len(objects) for _, objects in samples]
    assert min(counts) >= 1 and max(counts) <= 5 and len(set(counts)) > 2


@pytest.mark.parametrize("class_id", range(6))
def test_outlines_have_the_asked_side_and_leave_background_in_their_box(class_id):
    for index in range(20):
        polygons = shapes.draw_outline(np.random.default_rng(index), class_id, side=60.0)
        corners = np.concatenate(polygons)
        assert np.ptp(corners, axis=0).max() == pytest.approx(60.0)
        width, height = np.ptp(corners, axis=0)
        placed = shapes.place(polygons, class_id, np.array([80.0, 80.0]), 30, 160)
        assert 0.1 < placed.num_pixels / (width * height) < 0.75


# ---------------------------------------------------------------------------- reproducibility
def test_the_objects_are_those_of_the_reported_results():
    # Whatever draws others is another data set, and raises VERSION. A pixel may be OpenCV's.
    _, objects = shapes.draw_sample(2, 160, seed=0)
    names = [shapes.CLASS_NAMES[placed.class_id] for placed in objects]
    assert names == ["crescent", "arrow", "serpent", "ring", "boomerang"]
    expected = [[1, 118, 36, 160], [12, 81, 46, 128], [28, 45, 48, 92], [17, 17, 74, 62]]
    expected += [[24, 69, 71, 105]]
    assert np.abs(boxes_of(objects) - expected).max() <= 1


def test_same_seed_same_bytes(drawn, tmp_path):
    assert shapes.draw_dataset(tmp_path / "again", TRAIN, TEST, SIZE, seed=0)
    assert files_of(tmp_path / "again") == files_of(drawn)


def test_other_seed_differs(drawn, tmp_path):
    assert draw_small(tmp_path / "other", seed=1)
    first, other = files_of(drawn), files_of(tmp_path / "other")
    for name in ("JPEGImages/000001.jpg", "Annotations/000001.xml"):
        assert first[name] != other[name]


def test_an_image_does_not_depend_on_the_counts(drawn, tmp_path):
    assert draw_small(tmp_path / "fewer")
    first, fewer = files_of(drawn), files_of(tmp_path / "fewer")
    for index in (1, 2, 3):
        for name in (f"JPEGImages/{index:06d}.jpg", f"Annotations/{index:06d}.xml"):
            assert first[name] == fewer[name]


# ---------------------------------------------------------------------------- files
def test_layout_and_splits(drawn):
    names = [f"{index:06d}" for index in range(1, TRAIN + TEST + 1)]
    main = drawn / "ImageSets" / "Main"
    assert (main / "train.txt").read_text().split() == names[:TRAIN]
    assert (main / "test.txt").read_text().split() == names[TRAIN:]
    assert sorted(p.stem for p in drawn.glob("JPEGImages/*.jpg")) == names
    assert sorted(p.stem for p in drawn.glob("Annotations/*.xml")) == names
    assert cv2.imread(str(drawn / "JPEGImages" / "000001.jpg")).shape == (SIZE, SIZE, 3)


def test_jpeg_keeps_the_colours_in_order(drawn, samples):
    stored = cv2.imread(str(drawn / "JPEGImages" / "000001.jpg"))[..., ::-1].astype(int)
    assert np.abs(stored - samples[0][0]).mean() < 5


def test_annotations_hold_the_samples(drawn, samples):
    for index, (_, objects) in enumerate(samples, start=1):
        root = ET.parse(drawn / "Annotations" / f"{index:06d}.xml").getroot()
        assert root.findtext("filename") == f"{index:06d}.jpg"
        extent = [int(root.findtext(f"size/{tag}")) for tag in ("width", "height", "depth")]
        assert extent == [SIZE, SIZE, 3]
        nodes = root.findall("object")
        names = [shapes.CLASS_NAMES[placed.class_id] for placed in objects]
        assert [node.findtext("name") for node in nodes] == names
        corners = ("xmin", "ymin", "xmax", "ymax")
        boxes = [[int(node.findtext(f"bndbox/{tag}")) for tag in corners] for node in nodes]
        assert boxes == boxes_of(objects).tolist()
        truncated = [node.findtext("truncated") for node in nodes]
        assert truncated == [str(int(is_cut(placed))) for placed in objects]
        assert {node.findtext("difficult") for node in nodes} == {"0"}
        assert {node.findtext("pose") for node in nodes} == {"Unspecified"}


# ---------------------------------------------------------------------------- second call
def test_second_call_does_nothing(tmp_path):
    root = tmp_path / "Shapes"
    assert draw_small(root)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert not draw_small(root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_other_parameters_redraw(tmp_path, monkeypatch):
    root = tmp_path / "Shapes"
    assert draw_small(root, seed=0)
    assert draw_small(root, seed=1)
    assert json.loads((root / "dataset.json").read_text())["seed"] == 1
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    assert draw_small(root, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ["Shapes"]


@pytest.mark.parametrize(
    "lost", ["JPEGImages/000002.jpg", "Annotations/000002.xml", "ImageSets/Main/test.txt"]
)
def test_torn_data_set_is_redrawn(tmp_path, lost):
    root = tmp_path / "Shapes"
    assert draw_small(root)
    whole = files_of(root)
    (root / lost).unlink()
    assert draw_small(root)
    assert files_of(root) == whole


def test_interrupted_drawing_does_not_count(tmp_path, monkeypatch):
    root = tmp_path / "Shapes"

    def interrupt_at_two(index: int, size: int, seed: int, draw=shapes.draw_sample):
        if index == 2:
            raise KeyboardInterrupt
        return draw(index, size, seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shapes, "draw_sample", interrupt_at_two)
        draw_small(root)
    assert not root.exists()
    assert draw_small(root)
    assert [p.name for p in tmp_path.iterdir()] == ["Shapes"]


def test_faults_of_the_command_are_one_sentence(tmp_path, monkeypatch, capsys):
    def raise_(error):
        def fail(*_):
            raise error

        return fail

    arguments = ["--root", str(tmp_path / "Shapes"), "--train", "1", "--test", "0"]
    monkeypatch.setattr(shapes, "draw_sample", raise_(OSError("no space left")))
    with pytest.raises(SystemExit, match="^error: no space left$"):
        shapes.main(arguments)
    monkeypatch.setattr(shapes, "draw_sample", raise_(KeyboardInterrupt()))
    with pytest.raises(SystemExit, match="130"):
        shapes.main(arguments)
    assert "Interrupted: give the" in capsys.readouterr().err


def test_interrupted_redraw_keeps_the_old_set(tmp_path, monkeypatch):
    root = tmp_path / "Shapes"
    assert draw_small(root)
    before = files_of(root)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shapes, "draw_sample", interrupt)
        draw_small(root, seed=1)
    assert files_of(root) == before


@pytest.mark.parametrize("marker", [None, "{}", '{"made_by": "someone else"}', "not JSON"])
def test_foreign_folder_is_refused(tmp_path, marker):
    root = tmp_path / "holiday"
    root.mkdir()
    (root / "photo.jpg").write_bytes(b"irreplaceable")
    if marker is not None:
        (root / "dataset.json").write_text(marker)
    before = files_of(root)
    with pytest.raises(FileExistsError, match="holiday exists but was not made by draw_shapes.py"):
        draw_small(root)
    with pytest.raises(SystemExit, match="error: .*holiday exists but was not made by"):
        shapes.main(["--root", str(root), "--train", "1", "--test", "0"])
    assert files_of(root) == before


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "Shapes").write_text("a file")
    with pytest.raises(FileExistsError, match="Shapes exists but was not made by"):
        draw_small(tmp_path / "Shapes")


def test_empty_folder_is_used(tmp_path):
    assert draw_small(tmp_path)
    assert (tmp_path / "dataset.json").is_file()


@pytest.mark.parametrize("wrong", [{"train": -1}, {"test": -1}, {"size": 63}, {"seed": -1}])
def test_parameters_out_of_range(tmp_path, wrong):
    with pytest.raises(InputError, match="must be 0 or more and size at least 64"):
        shapes.draw_dataset(tmp_path / "Shapes", **wrong)


def test_command_line(tmp_path, capsys, monkeypatch):
    argv = ["--root", str(tmp_path / "Shapes"), "--train", "1", "--test", "1", "--size", "64"]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    shapes.main(argv[2:])
    shapes.main(argv)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("Shapes: drawn") and lines[1].endswith("Shapes: already there")
