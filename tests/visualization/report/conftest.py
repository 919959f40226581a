import json

import numpy as np
import pytest
from PIL import Image

from mutual_guidance.config import load_config
from mutual_guidance.evaluation.detections import Detections, write_detections
from mutual_guidance.evaluation.misalignment import summarize
from tests.conftest import write_coco
from tests.runs import CONFIG

NASTY = "<script>document.title='harmed'</script>"


# Of each image the objects and what was found: class, box, and score of a detection.
FOUND = {
    "a": (
        [(0, [0, 0, 10, 10]), (0, [20, 0, 30, 10])],
        [(0, [0, 0, 10, 10], 0.9), (1, [20, 0, 30, 10], 0.8)],
    ),
    "b": ([(1, [5, 5, 25, 25])], [(1, [5, 5, 25, 25], 0.7), (0, [30, 30, 40, 40], 0.6)]),
    "c": ([(0, [0, 0, 20, 20])], []),
}


def write_data(folder):
    """Three images with four objects of two classes, of which one has a nasty name."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    images = []
    for name, (objects, _) in FOUND.items():
        images.append((f"{name}{NASTY.replace('/', '')}.png", (64, 48), objects))
        Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / images[-1][0])
    write_coco(folder / "data.json", ("ring", NASTY), images)


def write_found(folder, dataset):
    """The detections of a run."""
    detections = {}
    for i, (_, found) in enumerate(FOUND.values(), start=1):
        classes, boxes, scores = zip(*found, strict=True) if found else ((), (), ())
        boxes = np.array(boxes, float).reshape(-1, 4)
        detections[i] = Detections(boxes, np.array(scores, float), np.array(classes, int))
    write_detections(folder / "detections" / f"{dataset}.npz", detections)


def write_run(folder, strategy="static", ap=20.0, dataset="shapes_test"):
    """What a run leaves in its output folder, small."""
    (folder / "misalignment").mkdir(parents=True)
    write_data(folder.parent / "data")
    entry = {"name": dataset, "format": "coco", "root": str(folder.parent / "data")}
    entry |= {"annotations": "data.json", "images": "."}
    opts = ["MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy, "DATASETS.REGISTER", [entry]]
    opts += ["DATASETS.TEST", (dataset,), "DATASETS.CLASSES", ["ring", NASTY]]
    cfg = load_config(CONFIG, [*opts, "MODEL.DEVICE", "cpu"])
    (folder / "config.yaml").write_text(cfg.dump())
    lines = [
        {"iteration": i, "total_loss": 3 - i / 100, "bbox/AP": i / 10, "bbox/AP-ring": i / 10}
        for i in range(0, 100, 20)
    ]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    metrics = {"AP": ap, "AP50": 40.0, "APs": None, "AP-ring": 10.0, f"AP-{NASTY}": 30.0}
    (folder / "evaluation.json").write_text(json.dumps({dataset: {"bbox": metrics}}))
    ious = np.linspace(0.4, 0.9, 20)
    measured = {f"{m}_{s}": ious for m in ("top_iou", "best_iou") for s in ("before", "after")}
    measured |= {f"rank_correlation_{s}": ious - 0.5 for s in ("before", "after")}
    write_found(folder, dataset)
    arguments = f"Namespace(config_file='mine.yaml', eval_only=False, num_gpus=1, opts=['A', {ap}])"
    (folder / "log.txt").write_text(f"[x]: Command line arguments: {arguments}\nmore\n")
    details = summarize(dataset, measured | {"suppressed": (ious > 0.8).astype(float)})
    (folder / "misalignment" / f"{dataset}.json").write_text(json.dumps(details))
    pictures = folder / "visualization" / "assignments"
    (pictures / "000001").mkdir(parents=True)
    counts = []
    for iteration in (0, 50, 100):
        file = f"000001/{iteration:07d}.png"
        Image.new("RGB", (60, 40), (iteration, 100, 0)).save(pictures / file)
        entry = {"iteration": iteration, "image": "000001", "file": file}
        counts.append(entry | {"counts": {"only_static": iteration + 7}})
    (pictures / "counts.jsonl").write_text("\n".join(map(json.dumps, counts)))
    return folder


@pytest.fixture
def run_folder(tmp_path):
    return write_run(tmp_path / "static")
