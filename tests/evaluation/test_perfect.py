"""Whatever the layout: a detector that finds what training reads has AP 100."""

import uuid

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from mutual_guidance.data import check_datasets, register_datasets
from tests.conftest import CLASSES, VOCWriter, write_coco
from tests.evaluation.perfect import perfect_metrics

SIDE = 64


def some_images(rng):
    """By name: (class, XYXY in whole pixels) of the objects; one image has none, one many."""
    images = {}
    for i, count in enumerate((0, 120, *rng.integers(1, 6, 5))):
        low = rng.integers(0, SIDE - 8, (count, 2))
        high = np.minimum(low + rng.integers(3, 40, (count, 2)), SIDE)
        boxes = np.unique(np.hstack([low, high]), axis=0)
        images[f"im {i}"] = [(int(rng.integers(3)), box.tolist()) for box in boxes]
    return images


def as_voc(images, root, rng):
    writer = VOCWriter(root)
    for name, objects in images.items():
        marked = [("red", (9, 9, 9, 30))]  # without area, dropped
        for c, (x0, y0, x1, y1) in objects:
            mark = f"<difficult>{int(rng.random() < 0.2)}</difficult>"
            marked.append((CLASSES[c], (x0 + 1, y0 + 1, x1, y1), mark))
        writer.add(name, marked)
    return {"format": "voc", "root": str(root), "split": "train"}


def as_coco(images, root, rng):
    write_images(images, root)
    marked = []
    for name, objects in images.items():
        crowds = [{"iscrowd": int(rng.random() < 0.2)} for _ in objects]
        ones = [(*one, crowd) for one, crowd in zip(objects, crowds, strict=True)]
        marked.append((f"{name}.png", (SIDE, SIDE), [*ones, (0, (9, 9, 9, 30))]))
    write_coco(root / "a.json", CLASSES, marked, first_id=0)
    return {"format": "coco", "root": str(root), "annotations": "a.json", "images": "."}


def as_yolo(images, root, rng):
    write_images(images, root / "images")
    (root / "labels").mkdir()
    for name, objects in images.items():
        rows = ["0 0.5 0.5 0 0.5"]
        for c, (x0, y0, x1, y1) in objects:
            values = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
            rows.append(f"{c} " + " ".join(str(v / SIDE) for v in values))
        (root / "labels" / f"{name}.txt").write_text("\n".join(rows))
    (root / "data.yaml").write_text(f"names: {CLASSES}")
    return {"format": "yolo", "root": str(root), "images": "images"}


def write_images(images, root):
    root.mkdir(parents=True)
    for name in images:
        cv2.imwrite(str(root / f"{name}.png"), np.zeros((SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("write", [as_voc, as_coco, as_yolo])
def test_what_training_reads_is_what_is_to_be_found(write, seed, tmp_path):
    rng = np.random.default_rng(seed)
    images = some_images(rng)
    entry = {"name": f"perfect_{uuid.uuid4().hex}", **write(images, tmp_path / "data", rng)}
    register_datasets([entry])
    check_datasets([entry["name"]], [entry["name"]])
    counts = [len(d["annotations"]) for d in DatasetCatalog.get(entry["name"])]
    assert sorted(counts) == sorted(map(len, images.values()))
    metrics = perfect_metrics(entry["name"], tmp_path)
    # Not of the sizes: areas of exactly 32 x 32 pixels may be on either side.
    for key in ("AP", "AP50", "AP75", *(f"AP-{name}" for name in CLASSES)):
        assert metrics[key] == pytest.approx(100), key
