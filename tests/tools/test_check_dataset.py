import errno

import cv2
import numpy as np
import pytest
import yaml
from detectron2.model_zoo import get_config_file

from mutual_guidance.data import Record
from tests.conftest import REPOSITORY, load_script, write_coco

tool = load_script("tools/check_dataset.py")


@pytest.fixture
def voc_entry(voc_entry):
    """Of classes that the images have."""
    return {**voc_entry, "classes": ["red", "green"]}


@pytest.fixture
def write_config(tmp_path):
    """Writes a config that trains on the first of the entries and tests on the last."""

    def write(*entries, base=REPOSITORY / "configs" / "Base-Anchors.yaml", **more):
        names = [entry["name"] for entry in entries]
        data = {"REGISTER": list(entries), "TRAIN": names[:1], "TEST": names[-1:]}
        content = {"DATASETS": data, "INPUT": {"SQUARE_SIZE": 64}, **more}
        (tmp_path / "own.yaml").write_text(
            yaml.safe_dump({**content, "_BASE_": str(base)} if base else content)
        )
        return str(tmp_path / "own.yaml")

    return write


def test_objects_are_counted_at_the_size_of_the_detectors_input(
    voc, voc_entry, write_config, tmp_path, capsys
):
    voc.add("a", [("red", (1, 1, 64, 32)), ("green", (33, 33, 128, 64))], size=(128, 64))
    voc.add("b", [])
    name = voc_entry["name"]
    config = write_config(voc_entry)
    tool.main([config, "--output", str(tmp_path / "pictures")])
    output = capsys.readouterr().out
    assert f"{name}: 2 objects in 2 images, 1 of them without any" in output
    # 128 x 64 is warped to 64 x 64: widths are halved, 64 -> 32 and 96 -> 48.
    (widths,) = (line.split("|") for line in output.splitlines() if "width (px)" in line)
    assert [float(widths[i]) for i in (2, 8)] == [32, 48]
    assert (tmp_path / "pictures" / f"{name}.png").stat().st_size > 10_000
    assert output.count("best anchor is") == 1  # TRAIN and TEST are one set
    drawn = tmp_path / "pictures" / f"{name}_images.png"
    assert drawn.stat().st_size > 5_000

    (tmp_path / "dataset_faults.txt").write_text("of an earlier check")
    tool.main([name, "--config-file", config, "--output", str(tmp_path)])
    assert not (tmp_path / "dataset_faults.txt").exists()
    assert capsys.readouterr().out.count("2 objects in 2 images") == 1


def test_crowds_are_told_apart(write_config, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 128, 3), np.uint8))
    crowds = [(0, box, {"iscrowd": 1}) for box in ((5, 5, 105, 55), (30, 10, 90, 50))]
    objects = [(0, (1, 1, 61, 31)), *crowds]
    write_coco(tmp_path / "coco.json", ["red", "green"], [("a.png", (128, 64), objects)])
    entry = {"name": "crowded", "format": "coco", "root": str(tmp_path)}
    config = write_config({**entry, "annotations": "coco.json", "images": "."})
    tool.main([config, "--output", str(tmp_path / "pictures")])
    line = "crowded: 1 objects in 1 images, 0 of them without any; crowd regions, which no detector"
    assert f"{line} learns: 2\n" in capsys.readouterr().out


def test_images_are_drawn_from_the_first_to_the_last():
    objects = {"crowd": np.array([False])}
    records = [Record(str(i), i, 1, 1, objects) for i in range(17)]
    drawn = [r.image_id for r in tool.spread(records)]
    assert drawn == [0, 2, 4, 6, 8, 10, 12, 14, 16]


def test_a_full_disk_is_one_sentence(voc, voc_entry, write_config, tmp_path, monkeypatch):
    voc.add("a", [("red", (1, 1, 64, 32)), ("green", (3, 3, 28, 64))])

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SystemExit, match=r"^error: .*\.png: No space left on device$"):
        arguments = [voc_entry["name"], "--config-file", write_config(voc_entry)]
        tool.main([*arguments, "--output", str(tmp_path / "pictures")])
    assert list((tmp_path / "pictures").iterdir()) == []


def test_anchors_are_judged_on_what_is_trained_on(voc, voc_entry, write_config, tmp_path, capsys):
    # 8 and 24 pixels of 64: anchors begin at 24.
    voc.add("a", [("red", (1, 1, 8, 8)), ("green", (33, 33, 56, 56))])
    voc.add("b", [("red", (1, 1, 24, 24))], split="test")
    sets = voc_entry, {**voc_entry, "name": "judged_test", "split": "test"}
    arguments = [write_config(*sets), "--output", str(tmp_path)]
    tool.main(arguments)
    output = capsys.readouterr().out
    assert output.count("best anchor is") == 1 and "judged_test: 1 objects in 1 images" in output
    assert "SIZES: [[8.0, 11.31], [16.0, 22.63], [32.0, 45.25]]" in output
    sizes = [[8, 11.31], [16, 22.63], [32, 45], [64, 90]]
    write_config(*sets, MODEL={"ANCHOR_GENERATOR": {"SIZES": sizes}})
    tool.main(arguments)
    output = capsys.readouterr().out
    assert "Your anchors fit" in output and "SIZES" not in output


def test_objects_that_ssds_augmentation_drops_are_told(
    voc, voc_entry, write_config, tmp_path, capsys
):
    # Of 400 pixels, 3 are less than 1 %.
    voc.add("a", [("red", (1, 1, 3, 90)), ("red", (1, 1, 90, 90))], size=(400, 400))
    voc.add("b", [("green", (1, 1, 90, 3))], size=(400, 400))
    voc.add("c", [("green", (1, 1, 90, 4))], size=(400, 400), split="test")
    sets = voc_entry, {**voc_entry, "name": "small_test", "split": "test"}
    points = REPOSITORY / "configs" / "Base-FCOS.yaml"
    tool.main([write_config(*sets, base=points), "--output", str(tmp_path)])
    output = capsys.readouterr().out
    assert output.count("SSD's augmentation") == 1
    assert "\n66.7 % of the objects are below 1 % of their image's width or height" in output
    assert "enlarges them; 1 images have no others" in output
    config = write_config(*sets, base=points, INPUT={"SQUARE_SIZE": 64, "SSD_AUGMENTATION": False})
    tool.main([config, "--output", str(tmp_path)])
    assert "SSD's augmentation" not in capsys.readouterr().out


def test_faults_end_it_with_the_table(voc, voc_entry, write_config):
    voc.add("a", [("red", (1, 1, 9, 9))])
    (voc.root / "JPEGImages" / "a.jpg").unlink()
    config = write_config({**voc_entry, "name": "faulty"})
    with pytest.raises(SystemExit, match=r"error: .*\n.*\n.*\nstops +1 +image is missing"):
        tool.main([config])
    with pytest.raises(SystemExit, match="error: unknown data set 'fualty'"):
        tool.main(["fualty", "--config-file", config])
    with pytest.raises(SystemExit, match=r"DATASETS\.TRAIN is empty"):
        tool.main([str(REPOSITORY / "configs" / "Base-Anchors.yaml")])


@pytest.mark.parametrize(
    ("base", "more"),
    [
        (REPOSITORY / "configs" / "Base-FCOS.yaml", {}),  # points
        (None, {}),  # two stages
        (get_config_file("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"), {"WEIGHTS": ""}),
    ],
    ids=["points", "detectron2s_default", "faster_rcnn"],
)
def test_detectors_that_have_no_anchors_to_judge(
    voc, voc_entry, write_config, base, more, tmp_path, capsys
):
    voc.add("a", [("red", (1, 1, 9, 9))])
    tool.main([write_config(voc_entry, base=base, MODEL=more), "--output", str(tmp_path)])
    output = capsys.readouterr().out
    assert ": 1 objects in 1 images" in output and "anchor" not in output


def test_objects_of_no_width_and_names_like_mathematics_are_drawn(write_config, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 1100, 3), np.uint8))
    objects = [(0, (1000, 5, 1000 + 1e-6, 25))]
    write_coco(tmp_path / "a.json", ["cost_$_vs_$"], [("a.png", (1100, 64), objects)])
    entry = {"name": "a_$_vs_$", "format": "coco", "root": str(tmp_path)}
    config = write_config({**entry, "annotations": "a.json", "images": "."}, INPUT={})
    tool.main([config, "--output", str(tmp_path / "out")])
    assert "a_$_vs_$: 1 objects in 1 images" in capsys.readouterr().out
    assert (tmp_path / "out" / "a_$_vs_$.png").stat().st_size > 10_000


def test_what_a_training_would_stop_at_ends_it(voc, voc_entry, write_config, tmp_path, capsys):
    voc.add("a", [("red", (1, 1, 9, 9))])
    config = write_config(voc_entry, MODEL={"WEIGHTS": "none.pth"})
    arguments = [config, "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="32 cannot be divided among 3 processes"):
        tool.main([*arguments, "--num-gpus", "3"])
    with pytest.raises(SystemExit, match=r"MODEL\.WEIGHTS: there is no file none\.pth"):
        tool.main(arguments)
    assert f"{voc_entry['name']}: 1 objects in 1 images" in capsys.readouterr().out
    voc.rewrite("a", ("</name>", "</name><difficult>1</difficult>"))
    write_config({**voc_entry, "name": "difficult"})
    with pytest.raises(SystemExit, match="nothing to find, no AP"):
        tool.main(arguments)
