from contextlib import nullcontext

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from mutual_guidance.data import check_datasets, records_of, register_datasets
from mutual_guidance.data.faults import DROPPED, IGNORED, STOPS, TOLD, stopping
from mutual_guidance.data.yolo import label_path, load_yolo
from mutual_guidance.data.yolo_yaml import YOLONames, read_names, split_sources
from mutual_guidance.errors import DatasetError
from tests.conftest import CLASSES, write_coco
from tests.evaluation.perfect import config_evaluator, metrics_of, noisy_detections


class YOLOWriter:
    """Writes a data set in YOLO's layout, below images/train and labels/train."""

    def __init__(self, root):
        self.root = root
        self.images, self.labels = root / "images" / "train", root / "labels" / "train"
        self.images.mkdir(parents=True)
        self.labels.mkdir(parents=True)
        (root / "data.yaml").write_text("names: [red, green, blue]\n")

    def add(self, name, label=None, size=(64, 32)):
        """label: text of the label file; None writes none."""
        cv2.imwrite(str(self.images / f"{name}.jpg"), np.zeros((size[1], size[0], 3), np.uint8))
        if label is not None:
            (self.labels / f"{name}.txt").write_text(label)

    def load(self, *sources, classes=CLASSES, keypoint_values=0):
        names = YOLONames("data.yaml", CLASSES, keypoint_values)
        return load_yolo(str(self.root), sources or ["images/train"], names, classes)


def boxes_of(record):
    """(class, box) of each object."""
    return list(zip(record.objects["class"].tolist(), record.objects["box"].tolist(), strict=True))


@pytest.fixture
def yolo(tmp_path):
    return YOLOWriter(tmp_path / "yolo")


def entry_of(yolo, name):
    return {"name": name, "format": "yolo", "root": str(yolo.root), "images": "images/train"}


def test_reads_shares_of_width_and_height(yolo):
    yolo.add("a", "1 0.5 0.5 1 1\n\n2 0.25 0.5 0.125 0.25\n")
    records, faults = yolo.load()
    assert all(f.effect == TOLD for f in faults)
    assert (records[0].width, records[0].height) == (64, 32)
    # Centre (16, 16), size 8 x 8: from (12, 12) to (20, 20).
    assert boxes_of(records[0]) == [(1, [0.0, 0.0, 64.0, 32.0]), (2, [12.0, 12.0, 20.0, 20.0])]


def test_image_without_label_file_has_no_object(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    yolo.add("b")
    yolo.add("c", "")
    records, faults = yolo.load()
    assert not stopping(faults) and [len(r.objects) for r in records] == [1, 0, 0]


def test_labels_that_are_there_but_not_read_are_told(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    yolo.add("b")
    yolo.add("c")
    labels = yolo.root / "labels" / "train"
    yolo.add("e\u0301")
    (labels / "b.txt").symlink_to("nowhere.txt")
    (labels / "c.TXT").write_text("0 0.5 0.5 0.5 0.5")
    (labels / "\xe9.txt").write_text("0 0.5 0.5 0.5 0.5")
    images = "".join(f"images/train/{name}.jpg\n" for name in ("a", "b", "c", "e\u0301"))
    (yolo.root / "train.txt").write_text(images)
    for source in ("images/train", "train.txt"):
        stopped = [f for f in yolo.load(source)[1] if f.effect == STOPS]
        assert {f.file.rsplit("/", 1)[1]: f.reason for f in stopped} == {
            name: f"label file is missing: it is there {how}; correct that, or give an empty file"
            for name, how in (
                ("b.txt", "as a link that leads nowhere"),
                ("c.txt", "in other capitals"),
                ("e\u0301.txt", "in another Unicode form (é as one sign or as two)"),
            )
        }


def test_labels_in_a_folder_of_other_capitals_are_without_images(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    yolo.images.rename(yolo.root / "images" / "Train")
    (yolo.root / "images" / "b.jpg").write_bytes((yolo.root / "images/Train/a.jpg").read_bytes())
    (yolo.root / "labels" / "b.txt").write_text("0 0.5 0.5 0.5 0.5")
    (yolo.root / "labels" / "lost.txt").symlink_to("nowhere.txt")
    stopped = {
        f.file.rsplit("/", 1)[1]: f.reason for f in yolo.load("images")[1] if f.effect == STOPS
    }
    reason = "the image of these labels is missing: add it, or remove them"
    assert stopped == {"a.txt": reason, "lost.txt": reason}


def test_labels_that_may_be_keypoints_are_told(yolo):
    yolo.add("a", "1 0.5 0.5 1 1 0.1 0.1 0.9 0.9 0.5 0.5\n" * 10)
    told = [f.reason for f in yolo.load()[1]]
    assert "labels may be keypoints behind boxes, which need kpt_shape in data.yaml" in told
    yolo.add("b", "1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9")
    assert not any("keypoints" in f.reason for f in yolo.load()[1])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0 0.5", "without area"),
        ("0 0.5 0.5 -0.5 0.5", "inverted"),
        ("0 nan 0.5 0.5 0.5", "not finite"),
        ("0 0.1 0.1 nan nan 0.9 0.9 0.1 0.9", "not finite"),
        ("0 -3 0.5 0.1 0.1", "outside"),
    ],
)
def test_degenerate_boxes_are_dropped_and_told(yolo, line, reason):
    yolo.add("a", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    records, (fault, *told) = yolo.load()
    assert len(records[0].objects) == 1 and not stopping(told)
    assert fault.detail.startswith("line 2: ") and reason in fault.reason
    assert fault.file.endswith("a.txt") and fault.effect == DROPPED


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3 0.5 0.5 0.5 0.5", "unknown class 3: 3 classes have the indices 0 to 2"),
        ("-1 0.5 0.5 0.5 0.5", "unknown class -1"),
        ("0.5 0.5 0.5 0.5 0.5", "unknown class 0.5"),
        ("red 0.5 0.5 0.5 0.5", "class 'red' is not an index: 3 classes have the indices 0 to 2"),
        ("0 0.5 0,5 0.5 0.5", "'0,5', not a number"),
        ("0 0.5 0.5 0.5", "4 values: a line is `class x y w h`, or a class and a polygon"),
        ("0 0.5 0.5 0.5 0.5 0.9", "6 values"),  # a score
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.5", "8 values"),
        ("0 32 16 20 10", "not shares"),  # pixels
        ("0 1 1 30 10 30 20 9 20", "not shares"),
        ("0 1e30 0.5 0.5 0.5", "not shares"),
    ],
)
def test_structural_faults_of_a_label(yolo, line, reason):
    yolo.add("a", line)
    _, (fault, *told) = yolo.load()
    assert reason in fault.reason and fault.effect == STOPS and not stopping(told)
    assert fault.detail == f"line 1: {line}"


def test_box_of_a_polygon_and_of_keypoints(yolo):
    # A triangle from (0.25, 0.5) to (0.75, 1), and an index as some exporters write it.
    yolo.add("a", "1.0 0.25 0.5 0.75 0.5 0.5 1.0")
    records, faults = yolo.load()
    assert boxes_of(records[0]) == [(1, [16.0, 16.0, 48.0, 32.0])] and not stopping(faults)
    # Two keypoints of x, y, visibility; without kpt_shape it would be a polygon of five corners.
    yolo.add("a", "1 0.5 0.5 1 1  0.1 0.1 1 0.9 0.9 0")
    records, faults = yolo.load(keypoint_values=6)
    assert boxes_of(records[0]) == [(1, [0.0, 0.0, 64.0, 32.0])] and not stopping(faults)
    yolo.add("a", "1 0.5 0.5 1 1 0.1 0.1")
    _, (fault, *_) = yolo.load(keypoint_values=6)
    assert "7 values" in fault.reason and fault.effect == STOPS


def test_a_subset_of_the_classes(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5\n2 0.5 0.5 1 1\n1 0.5 0.5 0.5 0.5")
    records, (fault,) = yolo.load(classes=["blue", "red"])
    assert [c for c, _ in boxes_of(records[0])] == [1, 0]
    assert (fault.effect, fault.count, fault.detail) == (IGNORED, 1, "1 of 'green'")
    _, faults = yolo.load(classes=["bleu"])
    stopped = [f.reason for f in faults if f.effect == STOPS]
    assert stopped == ["no class 'bleu'; did you mean 'blue'?"]


def test_structural_faults_of_files(yolo):
    yolo.add("torn", "0 0.5 0.5 0.5 0.5")
    (yolo.images / "torn.jpg").write_bytes(b"")
    yolo.add("binary")
    (yolo.labels / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (yolo.labels / "orphan.txt").write_text("0 0.5 0.5 0.5 0.5")
    (yolo.labels / "classes.txt").write_text("0\n1\n2\n")
    (yolo.labels / "README.roboflow.txt").write_text("\nExported from ...")
    (yolo.labels / "empty.txt").write_text("")
    (yolo.labels / "cache.txt").write_bytes(b"\0")
    yolo.add("folder")
    (yolo.labels / "folder.txt").mkdir()
    _, faults = yolo.load()
    stopped = {f.file.rsplit("/", 1)[1] for f in faults if f.effect == STOPS}
    assert stopped == {"torn.jpg", "binary.txt", "orphan.txt", "empty.txt", "folder.txt"}


def test_images_that_are_not_there_are_blamed_and_not_their_labels(yolo):
    (yolo.root / "train.txt").write_text("/home/bob/images/a.jpg\n")
    _, faults = yolo.load("train.txt")
    (fault,) = (f for f in faults if f.effect == STOPS)
    assert fault.file == "/home/bob/images/a.jpg" and "image is missing" in fault.reason


def test_missing_or_empty_folders_are_named(yolo):
    with pytest.raises(DatasetError, match="images/train has no image"):
        yolo.load()
    yolo.add("a")
    with pytest.raises(DatasetError, match="images/val is missing"):
        yolo.load("images/train", "images/val")
    with pytest.raises(DatasetError, match=r"none of 1 images has a label file: .*train/a\.txt"):
        yolo.load()


def test_images_that_would_share_labels_are_refused(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    cv2.imwrite(str(yolo.images / "a.bmp"), np.zeros((4, 4, 3), np.uint8))
    _, faults = yolo.load()
    assert [f.reason.split(":")[0] for f in faults if f.effect == STOPS] == [
        "several images would share these labels"
    ]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.png", "labels/train/a.txt"),
        ("train/images/a.png", "train/labels/a.txt"),
        ("images/images/train/b/a.jpg", "images/labels/train/b/a.txt"),
        ("a/a.b.tif", "a/a.b.txt"),
    ],
)
def test_labels_lie_where_yolo_keeps_them(image, label):
    # A folder of that name above the data set is none of its own.
    assert label_path(f"/images/data/{image}", "/images/data") == f"/images/data/{label}"
    assert label_path("/else/images/a.png", "/images/data") == "/else/labels/a.txt"


def test_text_files_list_images(yolo):
    for name in ("a", "b", "c"):
        yolo.add(name, "0 0.5 0.5 0.5 0.5")
    # Relative to the file, to the root, and absolute; with Windows' line ends and mark.
    lines = ["./images/train/b.jpg", "images/train/a.jpg", str(yolo.images / "c.jpg"), ""]
    (yolo.root / "lists").mkdir()
    (yolo.root / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (yolo.root / "lists" / "train.txt").write_text("images/train/a.jpg\nimages/train/none.jpg\n")
    records, faults = yolo.load("train.txt")
    assert [r.file_name.rsplit("/", 1)[1] for r in records] == ["b.jpg", "a.jpg", "c.jpg"]
    assert not stopping(faults)
    # As CVAT writes them, as if the data set lay in a folder "data".
    (yolo.root / "cvat.txt").write_text("data/images/train/a.jpg\n")
    records, faults = yolo.load("cvat.txt")
    assert records[0].file_name == str(yolo.images / "a.jpg") and not stopping(faults)
    _, faults = yolo.load("lists/train.txt", "train.txt")
    assert {f.reason for f in faults if f.effect == STOPS} == {
        "image is missing, its folder as well", "image is listed twice"
    }  # fmt: skip


def test_images_below_a_linked_folder_are_read(yolo, tmp_path):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    (tmp_path / "more").mkdir()
    cv2.imwrite(str(tmp_path / "more" / "b.bmp"), np.zeros((4, 4, 3), np.uint8))
    (yolo.images / "linked").symlink_to(tmp_path / "more")
    (yolo.images / "circle").symlink_to(yolo.images)
    records, _ = yolo.load()
    assert [r.file_name.rsplit("/", 1)[1] for r in records] == ["a.jpg", "b.bmp"]


def names_of(yolo, text):
    (yolo.root / "data.yaml").write_bytes(text.encode("utf-8-sig"))
    return read_names(str(yolo.root / "data.yaml"))


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("names: [red, green]", ["red", "green"]),
        ("nc: 2\nnames: {0: cat, 1: dog}", ["cat", "dog"]),
        ("names: {'1': dog, '0': cat}", ["cat", "dog"]),
        ("nc: 1\nnames: person", ["person"]),
        ("names: [' cat ', 7, 'yes']", ["cat", "7", "yes"]),
    ],
)
def test_names(yolo, text, classes):
    assert names_of(yolo, text).classes == classes
    assert names_of(yolo, f"{text}\nkpt_shape: [17, 3]").keypoint_values == 51


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b, a]", "'a' stands there twice"),
        ("names: [a, ' a']", "'a' stands there twice"),
        ("names: []", "names no class"),
        ("names: [yes, no]", "True is not the name of a class: YAML reads yes, .* quote it"),
        ("names: [a, ~]", "None is not the name of a class: .* quote it"),
        ("names: [a, 2020-01-01]", "is not the name of a class"),
        ("names: a, b", "'a, b' is not the name of one class; write a list"),
        ("names: data.yaml", "'data.yaml' is not the name of one class"),
        ("names: {1: a, 2: b}", "its indices are .1, 2.; .* numbered from 0 without a gap"),
        ("names: {0: a, 2: b}", "numbered from 0 without a gap"),
        ("nc: 3\nnames: [a, b]", "nc is 3, but names has 2"),
        ("nc: 3", "has no names of the classes"),
        ("- a", "has no names of the classes"),
        ("names: [a", r"not YAML of plain values \(line 2\)"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]", "is not the name of a class"),
        ("names: !!python/object/apply:os.getcwd []", "not YAML of plain values"),
        ("names: [a]\nkpt_shape: 17", "kpt_shape is 17"),
    ],
)
def test_bad_names_are_refused(yolo, text, message):
    with pytest.raises(DatasetError, match=message):
        names_of(yolo, f"{text}\n")


def test_missing_names_are_named(yolo):
    with pytest.raises(DatasetError, match=r"none\.yaml is missing: check root .*, or give"):
        read_names(str(yolo.root / "none.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val: images/train", ["images/train"]),
        ("val: [images/train, train.txt]", ["images/train", "train.txt"]),
        ("path: images\nval: train", ["images/train"]),
        ("path: /somewhere/else\nval: images/train", ["images/train"]),
        ("val: ../images/train", ["images/train"]),  # as Roboflow writes it
    ],
)
def test_splits_of_data_yaml(yolo, text, expected):
    (yolo.root / "train.txt").write_text("images/train/a.jpg")
    (yolo.root / "data.yaml").write_text(f"names: [red]\n{text}")
    paths = split_sources(str(yolo.root / "data.yaml"), "val")
    assert paths == [str(yolo.root / e) for e in expected]
    with pytest.raises(DatasetError, match="data.yaml: no 'train'; .*it has val"):
        split_sources(str(yolo.root / "data.yaml"), "train")


def test_a_split_that_is_not_there_is_told_as_data_yaml_has_it(yolo):
    (yolo.root / "data.yaml").write_text("names: [red]\nval: ../valid/images\ntest:")
    path = str(yolo.root / "data.yaml")
    with pytest.raises(DatasetError, match=r"val: \.\./valid/images is missing: it would be /"):
        split_sources(path, "val")
    with pytest.raises(DatasetError, match="its 'test' is None; expected"):
        split_sources(path, "test")


def test_a_split_that_may_mean_a_neighbour_is_refused(yolo):
    (yolo.root.parent / "images" / "train").mkdir(parents=True)
    (yolo.root / "data.yaml").write_text("names: [red]\nval: ../images/train")
    with pytest.raises(DatasetError, match=r"train may mean /.* or .*yolo/images/train: write it"):
        split_sources(str(yolo.root / "data.yaml"), "val")


def test_a_split_of_data_yaml_is_trained_on(yolo, monkeypatch):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    (yolo.root / "my.yaml").write_text("names: [red, green, blue]\ntrain: images/train")
    entry = {k: v for k, v in entry_of(yolo, "yolo_split").items() if k != "images"}
    register_datasets([{**entry, "data": "my.yaml", "split": "train"}])
    check_datasets(["yolo_split"])
    assert len(records_of("yolo_split")) == 1
    monkeypatch.chdir(yolo.root.parent)
    for datasets, root in ((".", "yolo"), (str(yolo.root.parent), "yolo")):
        monkeypatch.setenv("DETECTRON2_DATASETS", datasets)
        entry = {**entry, "name": f"yolo_below_{len(datasets)}", "root": root}
        register_datasets([{**entry, "data": "my.yaml", "split": "train"}])
        check_datasets([entry["name"]])
    with pytest.raises(DatasetError, match="either images .* or split"):
        register_datasets([{**entry, "name": "yolo_neither"}])


def test_labels_without_any_object_are_refused(yolo):
    yolo.add("a", "")
    register_datasets([entry_of(yolo, "yolo_no_object")])
    with pytest.raises(DatasetError, match="no usable object.* yolo_no_object"):
        check_datasets(["yolo_no_object"])


def test_evaluation_equals_that_of_the_same_data_in_cocos_json(yolo, tmp_path):
    generator = np.random.default_rng(1)
    for i in range(12):
        # Whole pixels, which both formats write without rounding at 64 x 32.
        corners = generator.integers(0, (32, 16), (3, 2))
        sizes = generator.integers(4, (32, 16), (3, 2))
        shares = np.hstack([corners + sizes / 2, sizes]) / (64, 32, 64, 32)
        rows = [f"{c} " + " ".join(map(str, s)) for c, s in enumerate(shares)]
        yolo.add(f"{i:02d}", "\n".join(rows) if i else None)
    records, faults = yolo.load()
    assert not stopping(faults)
    images = [(r.file_name, (r.width, r.height), boxes_of(r)) for r in records]
    write_coco(tmp_path / "same.json", CLASSES, images)
    coco = {"name": "yolo_as_coco", "format": "coco", "root": str(tmp_path), "images": "."}
    register_datasets([entry_of(yolo, "yolo_own"), {**coco, "annotations": "same.json"}])
    check_datasets(["yolo_own", "yolo_as_coco"])
    metrics, same = (
        metrics_of(config_evaluator(name, tmp_path / "out"), noisy_detections(name))
        for name in ("yolo_own", "yolo_as_coco")
    )
    assert metrics == pytest.approx(same, abs=0, rel=0, nan_ok=True)
    assert 5 < metrics["AP"] < 95
    assert MetadataCatalog.get("yolo_own").thing_classes == CLASSES


def test_a_file_of_names_that_is_named_must_be_there(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    entry = {
        "name": "yolo_typo", "format": "yolo", "root": str(yolo.root), "data": "none.yaml",
        "images": "images/train", "classes": ["green", "red"],
    }  # fmt: skip
    register_datasets([entry])
    with pytest.raises(DatasetError, match=r"none\.yaml is missing"):
        check_datasets(["yolo_typo"])


@pytest.mark.parametrize("file", ["classes.txt", "obj.names", "labels/train/classes.txt"])
def test_classes_in_the_order_of_another_tool_are_refused(yolo, file):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    (yolo.root / "data.yaml").unlink()
    (yolo.root / file).write_text("red\ngreen\n")
    for name, classes in ((f"as_{file}", ["red", "green"]), (f"swap_{file}", ["green", "red"])):
        name = name.replace("/", "_")
        register_datasets([{**entry_of(yolo, name), "classes": classes}])
        refused = pytest.raises(DatasetError, match="another order")
        with refused if "swap" in name else nullcontext():
            check_datasets([name])


def test_names_that_look_alike_are_told(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    names = ["Red", "red"]
    _, faults = load_yolo(str(yolo.root), ["images/train"], YOLONames("data.yaml", names), names)
    assert "'Red', 'red'" in [fault.detail for fault in faults]


def test_names_in_another_encoding(yolo):
    (yolo.root / "data.yaml").write_bytes("names: [Café]".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"data.yaml is not text in UTF-8 \(byte 11\)"):
        read_names(str(yolo.root / "data.yaml"))
