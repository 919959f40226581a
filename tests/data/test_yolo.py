import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.data.yolo import load_yolo, read_names
from mutual_guidance.engine import load_config
from mutual_guidance.errors import DatasetError
from mutual_guidance.evaluation import build_evaluator
from tests.conftest import REPOSITORY

CLASSES = ["red", "green", "blue"]


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

    def load(self):
        return load_yolo(str(self.root), "images/train", CLASSES)


@pytest.fixture
def yolo(tmp_path):
    return YOLOWriter(tmp_path / "yolo")


def entry_of(yolo, name):
    return {"name": name, "format": "yolo", "root": str(yolo.root), "images": "images/train"}


def test_reads_shares_of_width_and_height(yolo):
    yolo.add("a", "1 0.5 0.5 1 1\n\n2 0.25 0.5 0.125 0.25\n")
    records, faults = yolo.load()
    assert faults == [] and (records[0]["width"], records[0]["height"]) == (64, 32)
    boxes = [(a["category_id"], a["bbox"]) for a in records[0]["annotations"]]
    # Centre (16, 16), size 8 x 8: from (12, 12) to (20, 20).
    assert boxes == [(1, [0.0, 0.0, 64.0, 32.0]), (2, [12.0, 12.0, 20.0, 20.0])]


def test_image_without_label_file_has_no_object(yolo):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    yolo.add("b")
    yolo.add("c", "")
    records, faults = yolo.load()
    assert faults == [] and [len(r["annotations"]) for r in records] == [1, 0, 0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0 0.5", "zero-area"),
        ("0 0.5 0.5 -0.5 0.5", "inverted"),
        ("0 nan 0.5 0.5 0.5", "not finite"),
        ("0 -3 0.5 0.1 0.1", "outside"),
    ],
)
def test_degenerate_boxes_are_dropped_and_told(yolo, line, reason):
    yolo.add("a", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    records, (fault,) = yolo.load()
    assert len(records[0]["annotations"]) == 1
    assert fault.reason.startswith("line 2: ") and reason in fault.reason
    assert fault.file.endswith("a.txt") and not fault.structural


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3 0.5 0.5 0.5 0.5", "unknown class 3; the data set has 3"),
        ("-1 0.5 0.5 0.5 0.5", "unknown class -1"),
        ("red 0.5 0.5 0.5 0.5", "invalid literal"),
        ("0 0.5 0.5 0.5", "4 values where `class x y w h` has 5"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9", "7 values"),  # a polygon
        ("0 32 16 20 10", "not a share"),  # pixels
        ("0 1e30 0.5 0.5 0.5", "not a share"),
    ],
)
def test_structural_faults_of_a_label(yolo, line, reason):
    yolo.add("a", line)
    _, (fault,) = yolo.load()
    assert reason in fault.reason and fault.structural


def test_structural_faults_of_files(yolo):
    yolo.add("torn", "0 0.5 0.5 0.5 0.5")
    (yolo.images / "torn.jpg").write_bytes(b"")
    yolo.add("binary")
    (yolo.labels / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (yolo.labels / "orphan.txt").write_text("0 0.5 0.5 0.5 0.5")
    (yolo.labels / "classes.txt").write_text("red\ngreen\nblue\n")
    _, faults = yolo.load()
    assert {(f.file.rsplit("/", 1)[1], f.structural) for f in faults} == {
        ("torn.jpg", True), ("binary.txt", True), ("orphan.txt", True)
    }  # fmt: skip


def test_missing_or_empty_folders_are_named(yolo):
    with pytest.raises(DatasetError, match="images/train has no image"):
        yolo.load()
    yolo.add("a")
    cv2.imwrite(str(yolo.images / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DatasetError, match="would share their labels"):
        yolo.load()
    (yolo.images / "a.png").unlink()
    shutil.rmtree(yolo.labels)
    with pytest.raises(DatasetError, match="labels/train is missing"):
        yolo.load()


@pytest.mark.parametrize(
    ("images", "labels"),
    [("train/images", "train/labels"), ("images/images/train", "images/labels/train"), ("a", "a")],
)
def test_labels_lie_where_yolo_keeps_them(tmp_path, images, labels):
    for folder in (images, labels):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(tmp_path / images / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / labels / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    records, _ = load_yolo(str(tmp_path), images, CLASSES)
    assert len(records[0]["annotations"]) == 1


def test_names(yolo):
    assert read_names(str(yolo.root)) == CLASSES
    (yolo.root / "data.yaml").write_text("nc: 2\nnames: {0: cat, 1: dog}\n")
    assert read_names(str(yolo.root)) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b, a]", "no two alike"),
        ("names: []", "must be some"),
        ("names: {0: a, 2: b}", "no readable names"),
        ("nc: 3", "no readable names"),
        ("names: [a", "no readable names"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]", "no readable names"),
        ("names: !!python/object/apply:os.getcwd []", "no readable names"),
        (None, "data.yaml is missing"),
    ],
)
def test_bad_names_are_refused(yolo, text, message):
    (yolo.root / "data.yaml").unlink()
    if text is not None:
        (yolo.root / "data.yaml").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_names(str(yolo.root))


def test_labels_without_any_object_are_refused(yolo):
    yolo.add("a")
    register_datasets([entry_of(yolo, "yolo_no_object")])
    with pytest.raises(DatasetError, match="yolo_no_object has no usable object"):
        check_datasets(["yolo_no_object"])


def as_coco(records):
    """The same images and boxes in COCO's JSON."""
    annotations = []
    for record in records:
        for a in record["annotations"]:
            x0, y0, x1, y1 = a["bbox"]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": record["image_id"], "iscrowd": 0,
                    "category_id": a["category_id"], "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                }
            )  # fmt: skip
    images = [
        {"id": r["image_id"], **{k: r[k] for k in ("file_name", "width", "height")}}
        for r in records
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def evaluate(name, records, folder):
    """Metrics of the same random detections, some of them near the truth."""
    check_datasets([name])
    cfg = load_config(str(REPOSITORY / "configs" / "Base-Anchors.yaml"), ["OUTPUT_DIR", folder])
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    generator = np.random.default_rng(0)
    for record in records:
        true = np.array([a["bbox"] for a in record["annotations"]]).reshape(-1, 4)
        boxes = np.concatenate([true + generator.normal(0, 1, true.shape), [[1, 1, 9, 9]]])
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.tensor(generator.random(len(boxes)))
        classes = [a["category_id"] for a in record["annotations"]] + [0]
        instances.pred_classes = torch.tensor(classes)
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()["bbox"]


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
    assert faults == []
    (tmp_path / "same.json").write_text(json.dumps(as_coco(records)))
    coco = {"name": "yolo_as_coco", "format": "coco", "root": str(tmp_path), "images": "."}
    register_datasets([entry_of(yolo, "yolo_own"), {**coco, "annotations": "same.json"}])
    metrics = evaluate("yolo_own", records, str(tmp_path / "out"))
    same = evaluate("yolo_as_coco", records, str(tmp_path / "out"))
    assert metrics == pytest.approx(same, abs=0, rel=0, nan_ok=True)
    assert 5 < metrics["AP"] < 95
    assert MetadataCatalog.get("yolo_own").thing_classes == CLASSES


def test_evaluation_takes_no_old_copy_of_the_labels(yolo, tmp_path):
    yolo.add("a", "0 0.5 0.5 0.5 0.5")
    register_datasets([entry_of(yolo, "yolo_changed")])
    # Detectron2 keeps the labels of data sets without a JSON file there, and would take them again.
    (tmp_path / "yolo_changed_coco_format.json").write_text("{}")
    assert evaluate("yolo_changed", yolo.load()[0], str(tmp_path))["AP"] > 0
