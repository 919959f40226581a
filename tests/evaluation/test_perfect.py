"""Whatever the layout: a detector that finds what training reads has AP 100."""

import json
import uuid

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from mutual_guidance.data import check_datasets, register_datasets
from tests.conftest import VOCWriter
from tests.evaluation.perfect import perfect_metrics

CLASSES = ["red", "green", "blue"]
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
        ones = [(CLASSES[c], (x0 + 1, y0 + 1, x1, y1)) for c, (x0, y0, x1, y1) in objects]
        writer.add(name, [*ones, ("red", (9, 9, 9, 30))])  # without area, dropped
        path = root / "Annotations" / f"{name}.xml"
        first, *others = path.read_text().split("</name>")
        marks = [f"</name><difficult>{int(rng.random() < 0.2)}</difficult>{o}" for o in others]
        path.write_text(first + "".join(marks))
    return {"format": "voc", "root": str(root), "split": "train"}


def as_coco(images, root, rng):
    annotations = []
    for i, objects in enumerate(images.values()):
        for c, (x0, y0, x1, y1) in [*objects, (0, (9, 9, 9, 30))]:
            more = {"iscrowd": 1} if rng.random() < 0.2 else {}
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": c, "image_id": i}
            annotations.append({"id": len(annotations), **box, **more})
    files = [
        {"id": i, "file_name": f"{n}.png", "width": SIDE, "height": SIDE}
        for i, n in enumerate(images)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": files, "annotations": annotations, "categories": categories}
    write_images(images, root)
    (root / "a.json").write_text(json.dumps(content))
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
