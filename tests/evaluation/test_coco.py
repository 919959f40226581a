import json
import os
import signal
import time
import uuid

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from mutual_guidance.alive import sign_of_life
from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.engine import watchdog
from mutual_guidance.evaluation import coco
from mutual_guidance.evaluation.coco import COCOBoxEvaluator, most_of_a_class
from mutual_guidance.evaluation.ground_truth import load_records
from mutual_guidance.interrupt import note_signals
from tests.conftest import predicted
from tests.evaluation.perfect import metrics_of, noisy_detections, perfect_metrics
from tests.runs import in_two_processes

SIDE = 160


@pytest.fixture
def dataset(tmp_path):
    """A writer of a JSON file of two images and two classes that registers it."""

    def write(annotations, more=()):
        for name in ("a.png", "b.png"):
            cv2.imwrite(str(tmp_path / name), np.zeros((SIDE, SIDE, 3), np.uint8))
        images = [
            {"id": i, "file_name": name, "width": SIDE, "height": SIDE}
            for i, name in ((7, "b.png"), (3, "a.png"))
        ]
        names = {5: "cat", 9: "dog", **dict(more)}
        categories = [{"id": i, "name": name} for i, name in names.items()]
        content = {"images": images, "categories": categories, "annotations": annotations}
        (tmp_path / "a.json").write_text(json.dumps(content))
        entry = {"name": f"coco_{uuid.uuid4().hex}", "format": "coco", "root": str(tmp_path),
                 "annotations": "a.json", "images": "."}  # fmt: skip
        register_datasets([entry])
        check_datasets([entry["name"]])
        return entry["name"]

    return write


@pytest.mark.parametrize("work", ["average_precisions", "json.dumps"])
def test_a_signal_ends_it(dataset, tmp_path, monkeypatch, work):
    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(6000):  # until another thread, which takes it, has had a core
            time.sleep(0.01)

    name = dataset([annotation(7, [8, 8, 60, 40])])
    evaluator = COCOBoxEvaluator(name, str(tmp_path), 100)
    evaluator.reset()
    for model_input, output in noisy_detections(name):
        evaluator.process([model_input], [output])
    monkeypatch.setattr(f"{coco.__name__}.{work}", signalled)
    with note_signals():
        assert evaluator.evaluate() is None
    assert not list(tmp_path.rglob("*.unfinished"))


def measure_long(entry):
    """Evaluate, for which the first process takes longer than a hang; run in every process."""

    def long(*args):
        for _ in range(20):
            time.sleep(0.1)
            sign_of_life()
        return average_precisions(*args)

    average_precisions = coco.average_precisions
    coco.average_precisions = long
    watchdog.let_another_tell = lambda: None  # the first process of what all find
    register_datasets([entry])
    check_datasets([entry["name"]])
    evaluator = COCOBoxEvaluator(entry["name"], entry["root"], 100)
    evaluator.reset()
    with watchdog.watched(1.0):
        metrics = evaluator.evaluate()
        comm.synchronize()
    assert (metrics is None) == (comm.get_rank() > 0)


def test_processes_that_wait_for_the_first_to_measure_do_not_hang(voc, voc_entry):
    voc.add("a", [("green", (1, 1, 9, 9))])
    in_two_processes(measure_long, voc_entry)


def annotation(image_id, box, category_id=5, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, **more}


@pytest.mark.parametrize("name", ["coco_2017_val", "coco_2017_train"])
def test_honest_data_has_the_metrics_of_detectron2s_evaluator(real_data, name, tmp_path):
    root, split = real_data / "coco", name.split("_")[2]
    ours = {
        "name": f"own_{name}", "format": "coco", "root": str(root),
        "annotations": f"annotations/instances_{split}2017.json", "images": f"{split}2017",
    }  # fmt: skip
    register_datasets([ours])
    again = f"again_{uuid.uuid4().hex}"  # where DETECTRON2_DATASETS is now
    register_coco_instances(again, {}, str(root / ours["annotations"]), str(root / ours["images"]))
    DatasetCatalog.get(again)
    theirs = COCOEvaluator(again, ("bbox",), output_dir=str(tmp_path))
    expected = metrics_of(theirs, noisy_detections(again))
    assert 5 < expected["AP"] < 95 and np.isfinite(expected["APs"])
    for dataset_name in (again, ours["name"]):
        evaluator = COCOBoxEvaluator(dataset_name, str(tmp_path), 300)
        metrics = metrics_of(evaluator, noisy_detections(dataset_name))
        assert list(metrics) == list(expected)
        assert metrics == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_crowds_and_areas_count_as_with_detectron2s_evaluator(dataset, tmp_path):
    name = dataset(
        [
            annotation(3, [10, 10, 40, 40], id=1, iscrowd=0, area=900.0),
            annotation(3, [80, 20, 50, 90], id=2, iscrowd=1, area=3000.0),
            annotation(7, [20, 30, 100, 110], 9, id=3, iscrowd=0, area=9900.0),
            annotation(7, [2, 3, 20, 20], 9, id=4, iscrowd=0, area=350.0),
        ]
    )
    theirs = COCOEvaluator(name, ("bbox",), output_dir=str(tmp_path))
    ours = COCOBoxEvaluator(name, str(tmp_path), 300)
    expected, metrics = (metrics_of(e, noisy_detections(name)) for e in (theirs, ours))
    assert metrics == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_what_training_dropped_or_named_oddly_is_not_held_against_a_detector(dataset, tmp_path):
    name = dataset(
        [
            annotation(3, [10, 10, 40, 40], id=0),
            annotation(3, [10, 10, 0, 40], id="flat"),
            annotation(3, [100, 10, 40, 40], id=0, iscrowd=None, area=None),
            annotation(7, [-50, 10, 100, 40], 9),
            annotation(7, [500, 10, 40, 40], 9, id=1, iscrowd=False),
        ]
    )
    metrics = perfect_metrics(name, tmp_path)
    assert {
        k: v for k, v in metrics.items() if k in ("AP", "AP50", "AP75", "AP-cat", "AP-dog")
    } == (pytest.approx({"AP": 100, "AP50": 100, "AP75": 100, "AP-cat": 100, "AP-dog": 100}))
    # The detections are saved under the file's own ids.
    (file,) = (tmp_path / "inference").glob("*/coco_instances_results.json")
    saved = json.loads(file.read_text())
    assert [(r["image_id"], r["category_id"]) for r in saved] == [(3, 5), (3, 5), (7, 9)]
    assert saved[2]["bbox"] == [0, 10, 50, 40]


def test_a_class_without_a_category_takes_the_id_of_no_other(dataset, tmp_path):
    annotations = [annotation(3, [10, 10, 40, 40]), annotation(7, [9, 10, 50, 40], 9)]
    name = dataset(annotations, {10: "horse"})
    root = MetadataCatalog.get(name).dirname
    entry = {"name": f"{name}_more", "format": "coco", "root": root, "annotations": "a.json",
             "images": ".", "classes": ["bird", "cat", "dog"]}  # fmt: skip
    register_datasets([entry])
    check_datasets([entry["name"]])
    perfect_metrics(entry["name"], tmp_path)
    (file,) = (tmp_path / "inference").glob("*/coco_instances_results.json")
    assert [r["category_id"] for r in json.loads(file.read_text())] == [5, 9]
    ids = MetadataCatalog.get(entry["name"]).thing_dataset_id_to_contiguous_id
    assert ids == {11: 0, 5: 1, 9: 2}


def test_a_run_without_a_detection_has_an_ap_of_0(dataset, tmp_path):
    name = dataset([annotation(3, [10, 10, 40, 40]), annotation(7, [10, 10, 9, 9], 9)])
    evaluator = COCOBoxEvaluator(name, str(tmp_path), 300)
    evaluator.reset()
    metrics = evaluator.evaluate()["bbox"]
    assert {metrics[k] for k in ("AP", "AP50", "AP75", "APs", "APm", "AP-cat", "AP-dog")} == {0.0}
    assert np.isnan(metrics["APl"])


@pytest.mark.parametrize(("limit", "more"), [(300, {"AP@300": 100.0}), (100, {})])
def test_more_than_100_objects_of_a_class(dataset, tmp_path, caplog, limit, more):
    corners = [(x, y) for x in range(0, 120, 10) for y in range(0, 120, 10)]
    name = dataset([annotation(3, [x, y, 8, 8]) for x, y in corners])
    records = load_records(name)
    assert most_of_a_class(records) == 144
    evaluator = COCOBoxEvaluator(name, str(tmp_path), limit)
    evaluator.reset()
    found = predicted(records[0].objects["box"], np.ones(144), np.zeros(144), (SIDE, SIDE))
    evaluator.process([{"image_id": 3}], [{"instances": found}])
    metrics = evaluator.evaluate()["bbox"]
    # 100 of 144 are found at precision 1: at 70 of the 101 recalls 0, 0.01, ..., 1.
    assert metrics["AP"] == pytest.approx(100 * 70 / 101)
    assert {k: v for k, v in metrics.items() if k.startswith("AP@")} == pytest.approx(more)
    assert "has 144 objects of a class, but AP counts 100" in caplog.text
    assert "TEST.DETECTIONS_PER_IMAGE" in caplog.text


def test_a_file_that_stops_ours_is_evaluated_as_detectron2_has_read_it(dataset, tmp_path, caplog):
    dataset([annotation(3, [10, 10, 40, 40], id=1, iscrowd=0, area=900)])
    path = tmp_path / "a.json"
    content = json.loads(path.read_text())
    content["annotations"].append({**content["annotations"][0], "id": 2, "image_id": 77})
    path.write_text(json.dumps(content))
    name = f"python_{uuid.uuid4().hex}"
    register_coco_instances(name, {}, str(path), str(tmp_path))
    metrics = perfect_metrics(name, tmp_path)
    assert metrics["AP-cat"] == metrics["APs"] == pytest.approx(100)  # by its area, not the box's
    assert (
        "AP is of what Detectron2 could read of" in caplog.text and "id of no image" in caplog.text
    )


def test_a_loader_of_ones_own_may_give_a_part_of_a_file(dataset):
    box = {"bbox": [10, 10, 20, 30], "iscrowd": 0, "area": 600}
    name = dataset([{"id": i, "image_id": i, "category_id": 5, **box} for i in (3, 7)])
    whole, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    (of_3,) = [d for d in whole if d["image_id"] == 3]
    file = {"json_file": metadata.json_file, "image_root": metadata.image_root}
    for dicts, keys in (
        ([of_3], file),
        ([{**of_3, "image_id": 100}], file),
        ([of_3], {"json_file": metadata.json_file}),  # all that Detectron2's evaluator needs
    ):
        part = f"python_{uuid.uuid4().hex}"
        DatasetCatalog.register(part, lambda dicts=dicts: dicts)
        MetadataCatalog.get(part).set(thing_classes=["cat", "dog"], evaluator_type="coco", **keys)
        (record,) = load_records(part)
        assert record.image_id == dicts[0]["image_id"] and len(record.objects) == 1


def test_a_set_that_python_registered(tmp_path):
    name = f"python_{uuid.uuid4().hex}"
    objects = [
        {"bbox": [10, 10, 20, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0},
        {"bbox": [50, 50, 90, 90], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, "iscrowd": 1},
    ]
    record = {"file_name": "a", "image_id": 1, "width": SIDE, "height": SIDE}
    DatasetCatalog.register(name, lambda: [{**record, "annotations": objects}])
    MetadataCatalog.get(name).set(thing_classes=["cat", "dog"], evaluator_type="coco")
    metrics = perfect_metrics(name, tmp_path)
    assert metrics["AP"] == metrics["AP-cat"] == pytest.approx(100)
    assert np.isnan(metrics["AP-dog"])  # a crowd is not to be found
