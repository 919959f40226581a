import contextlib
import copy
import functools
import json
import operator
import uuid

import cv2
import numpy as np
import pytest

from mutual_guidance.data.coco import load_coco
from mutual_guidance.errors import DatasetError


@pytest.fixture
def content():
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 32, "height": 16}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 3, 4, 5], "iscrowd": 0},
        ],
    }


def load(content, tmp_path, name="coco_test_set"):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((16, 32, 3), np.uint8))
    (tmp_path / "a.json").write_text(json.dumps(content))
    return load_coco(str(tmp_path / "a.json"), str(tmp_path), name)


def extra(content, **changes):
    content["annotations"].append({**content["annotations"][0], "id": 2, **changes})
    return content


def test_reads_and_maps_categories(content, tmp_path):
    records, faults = load(content, tmp_path)
    assert faults == [] and records[0]["annotations"][0]["category_id"] == 1


@pytest.mark.parametrize(
    "bbox", [[2, 3, 0, 5], [float("nan"), 3, 4, 5], [2, 3, float("inf"), 5], [2, 3, 1e30, 5]]
)
def test_degenerate_boxes_are_dropped(content, tmp_path, bbox):
    records, faults = load(extra(content, bbox=bbox), tmp_path)
    assert len(records[0]["annotations"]) == 1
    assert "annotation 2" in faults[0].file and not faults[0].structural


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"category_id": 4}, "unknown category 4"),
        ({"image_id": 9}, "no image 9"),
        ({"bbox": [1, 2]}, "bbox"),
        ({"bbox": ["1", "2", "3", "4"]}, "bbox"),
        ({"bbox": None}, "bbox"),
        ({"id": 1}, "duplicate id 1 in annotations"),
    ],
)
def test_structural_faults(content, tmp_path, changes, reason):
    records, faults = load(extra(content, **changes), tmp_path)
    assert records == [] and any(reason in f.reason and f.structural for f in faults)


def test_categories_of_one_name_are_refused(content, tmp_path):
    content["categories"].append({"id": 8, "name": "cat"})
    _, (fault,) = load(content, tmp_path)
    assert fault.reason == "duplicate name cat in categories" and fault.structural


def test_missing_image(content, tmp_path):
    content["images"][0]["file_name"] = "b.jpg"
    _, faults = load(content, tmp_path)
    assert faults[0].file.endswith("b.jpg") and "missing" in faults[0].reason


def test_torn_or_missing_file(content, tmp_path):
    with pytest.raises(DatasetError, match="none.json is missing"):
        load_coco(str(tmp_path / "none.json"), str(tmp_path), "coco_none")
    (tmp_path / "torn.json").write_text(json.dumps(content)[:-9])
    with pytest.raises(DatasetError, match="torn.json is not COCO's JSON"):
        load_coco(str(tmp_path / "torn.json"), str(tmp_path), "coco_torn")
    del content["images"][0]["width"]
    with pytest.raises(DatasetError, match="lacks one of its keys"):
        load(content, tmp_path)


def places(value, path=()):
    """Every place in nested JSON, as a path of keys and indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


@pytest.mark.parametrize("value", [None, "x", [], [[1]], {}, -1, 10**400, float("nan"), True])
def test_nonsense_anywhere_ends_in_one_sentence(content, tmp_path, value):
    content["annotations"][0].update(area=20, segmentation=[[2, 3, 6, 3, 6, 8]])
    for *path, key in list(places(content)):
        changed = copy.deepcopy(content)
        place = functools.reduce(operator.getitem, path, changed)
        place[key] = value
        # Fine, or told of; never another exception.
        with contextlib.suppress(DatasetError):
            load(changed, tmp_path, f"nonsense_{uuid.uuid4().hex}")


def test_what_detectron2_would_stop_at_is_told(content, tmp_path):
    _, (fault,) = load(extra(content, ignore=1), tmp_path)
    assert "reads no `ignore`" in fault.reason and fault.structural


def test_real_coco_images(real_data):
    root = real_data / "coco"
    records, faults = load_coco(
        str(root / "annotations" / "instances_val2017.json"), str(root / "val2017"), "coco_real_set"
    )
    assert len(records) == 50 and not any(f.structural for f in faults)
