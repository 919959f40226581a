import contextlib
import copy
import functools
import json
import operator

import cv2
import numpy as np
import pytest

from mutual_guidance.data import coco_json
from mutual_guidance.data.coco import load_coco
from mutual_guidance.data.faults import DROPPED, IGNORED, STOPS, TOLD
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


def load(content, tmp_path, classes=None):
    """The data, and the faults but what is merely told."""
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((16, 32, 3), np.uint8))
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = load_coco(str(tmp_path / "a.json"), str(tmp_path), classes)
    return data, [f for f in data.faults if f.effect != TOLD]


def extra(content, **changes):
    content["annotations"].append({**content["annotations"][0], "id": 2, **changes})
    return content


def test_reads_and_maps_categories(content, tmp_path):
    data, faults = load(content, tmp_path)
    (record,) = data.records
    assert faults == [] and data.classes == ["cat", "dog"] and data.indices == {3: 0, 7: 1}
    assert record.objects["class"].tolist() == [1]
    assert record.objects["box"].tolist() == [[2, 3, 6, 8]]


def test_corners_in_the_place_of_width_and_height_are_told(content, tmp_path):
    content["annotations"][0]["bbox"] = [2, 3, 28, 15]  # as width and height beyond the bottom
    for bbox, corners in (([20, 5, 30, 12], True), ([20, 5, 4, 9], False)):
        content["annotations"] = content["annotations"][:1]
        data, _ = load(extra(content, bbox=bbox), tmp_path)
        told = [fault.reason for fault in data.faults if fault.effect == TOLD]
        assert any("boxes look like corners" in reason for reason in told) == corners
    # Within the image, as two large boxes are, they may well be what they should.
    content["annotations"] = content["annotations"][:1]
    content["annotations"][0]["bbox"] = [1, 1, 30, 14]
    assert not any("corners" in f.reason for f in load(content, tmp_path)[0].faults)


@pytest.mark.parametrize(
    "bbox",
    [[2, 3, 0, 5], [float("nan"), 3, 4, 5], [2, 3, float("inf"), 5], [2, 3, 1e30, 5],
     [2, 3, 10**400, 5]],
)  # fmt: skip
def test_degenerate_boxes_are_dropped(content, tmp_path, bbox):
    data, (fault,) = load(extra(content, bbox=bbox), tmp_path)
    assert len(data.records[0].objects) == 1
    assert fault.detail.startswith("annotation 2: ") and fault.effect == DROPPED


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"category_id": 4}, '"category_id" is the id of no category', "id 2: 4"),
        (
            {"category_id": "7"},
            '"category_id" is the id of no category as text, but of one as a number',
            'id 2: "7"',
        ),
        ({"image_id": 9}, '"image_id" is the id of no image', "id 2: 9"),
        ({"bbox": [1, 2]}, '"bbox" is not four numbers', "id 2: [1, 2]"),
        ({"bbox": ["1", 2, 3, 4]}, '"bbox" is not four numbers', 'id 2: ["1", 2, 3, 4]'),
        ({"bbox": None}, '"bbox" is not four numbers', "id 2: null"),
        ({"iscrowd": "no"}, '"iscrowd" is not 0 or 1', 'id 2: "no"'),
        ({"ignore": 1}, '"ignore" is not 0: it is not COCO\'s', "id 2: 1"),
    ],
)
def test_structural_faults(content, tmp_path, changes, reason, detail):
    data, (fault,) = load(extra(content, **changes), tmp_path)
    assert data.records == [] and fault.effect == STOPS
    assert fault.reason.startswith(reason) and fault.detail == detail


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("images", "width", "32", '"width" is no number of pixels in images'),
        ("images", "height", 15.5, '"height" is no number of pixels'),
        ("images", "file_name", 7, '"file_name" is no text'),
        ("images", "id", [1], '"id" is neither a whole number nor text'),
        ("categories", "name", None, '"name" is no name in categories'),
        ("categories", "name", True, '"name" is no name'),
        ("categories", "name", "c\x1bat", '"name" has control characters'),
    ],
)
def test_values_are_told_by_key_and_with_their_quotes(
    content, tmp_path, section, key, value, reason
):
    content[section][0][key] = value
    _, (fault, *_) = load(content, tmp_path)
    assert fault.reason.startswith(reason) and fault.detail.endswith(json.dumps(value))


def test_what_stands_twice_is_refused(content, tmp_path):
    content["categories"].append({"id": 8, "name": " cat "})
    content["images"].append({**content["images"][0], "id": 2})
    content["images"].append({**content["images"][0], "file_name": "b.jpg"})
    _, faults = load(content, tmp_path)
    assert {(f.reason, f.detail) for f in faults} == {
        ('"name" stands twice in categories', 'name: "cat"'),
        ('"file_name" stands twice in images', 'file_name: "a.jpg"'),
        ('"id" stands twice in images', "id: 1"),
    }


@pytest.mark.parametrize("crowd", [None, 0, False, "0", 0.0])
@pytest.mark.parametrize("area", [None, "large", 0, -1, float("nan")])
def test_what_an_annotation_may_lack(content, tmp_path, crowd, area):
    content["annotations"][0].update(id="first", iscrowd=crowd, area=area, segmentation={"x": 1})
    content["annotations"].append({"image_id": 1, "category_id": 3, "bbox": [0, 0, 8, 8]})
    data, faults = load(content, tmp_path)
    assert faults == [] and data.records[0].objects["crowd"].tolist() == [False, False]
    assert data.records[0].objects["area"].tolist() == [20, 64]


def test_area_and_crowds_are_those_of_the_file(content, tmp_path):
    data, faults = load(extra(content, iscrowd="1", area=9.5), tmp_path)
    (fault,) = faults  # half of the objects
    assert fault.effect == IGNORED and fault.reason.startswith("crowd region (iscrowd 1), which")
    assert data.records[0].objects["crowd"].tolist() == [False, True]
    assert data.records[0].objects["area"].tolist() == [20, 9.5]


def test_a_rotated_box_is_refused(content, tmp_path):
    content["annotations"][0]["attributes"] = {"occluded": False, "rotation": 0.0}  # CVAT's
    assert load(content, tmp_path)[1] == []
    _, (fault,) = load(extra(content, attributes={"rotation": 37.5}), tmp_path)
    assert fault.effect == STOPS and fault.reason.startswith('"attributes" have a rotation')


def test_missing_image(content, tmp_path):
    content["images"][0]["file_name"] = "b.jpg"
    _, (fault,) = load(content, tmp_path)
    assert fault.file.endswith("b.jpg") and "missing" in fault.reason


def test_names_that_are_numbers_and_text_with_a_mark(content, tmp_path):
    content["categories"][0]["name"] = 7
    load(content, tmp_path)
    text = (tmp_path / "a.json").read_text()
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text(text, encoding=encoding)
        data = load_coco(str(tmp_path / "a.json"), str(tmp_path))
        assert data.classes == ["7", "dog"] and len(data.records) == 1


def test_a_parent_that_has_no_object_is_no_class(content, tmp_path):
    content["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
        {"id": 7, "name": "dog", "supercategory": "dog"},
    ]
    data, _ = load(content, tmp_path)
    assert data.classes == ["cat", "dog"]
    assert "'animals', id 0" in [f.detail for f in data.faults if f.effect == TOLD]
    content["annotations"][0]["category_id"] = 0
    assert load(content, tmp_path)[0].classes == ["animals", "cat", "dog"]


@pytest.mark.parametrize("classes", [None, ["dog"]])
def test_a_parent_may_have_the_name_of_its_only_class(content, tmp_path, classes):
    content["categories"] = [
        {"id": 0, "name": "dog", "supercategory": "none"},
        {"id": 7, "name": "dog", "supercategory": "dog"},
    ]
    data, faults = load(content, tmp_path, classes)
    assert faults == [] and data.classes == ["dog"] and data.indices == {7: 0}
    assert data.records[0].objects["class"].tolist() == [0]
    _, (fault,) = load(extra(content, category_id=0), tmp_path, classes)
    assert fault.reason == '"name" stands twice in categories'


def test_a_subset_of_the_classes(content, tmp_path):
    data, (fault,) = load(extra(content, category_id=3), tmp_path, ["bird", "cat"])
    assert data.classes == ["bird", "cat"] and data.indices == {3: 1, 8: 0}
    assert data.records[0].objects["class"].tolist() == [1]
    assert (fault.effect, fault.count, fault.detail) == (IGNORED, 1, "1 of 'dog'")
    _, faults = load(content, tmp_path, ["dogg"])
    stopped = [f.reason for f in faults if f.effect == STOPS]
    assert stopped == ["no class 'dogg'; did you mean 'dog'?"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not JSON, or torn: it breaks off at line 1, column 13"),
        ("[1]", "it is a list, not an object with images, annotations, categories"),
        ('{"images": [], "categories": []}', "its key 'annotations' is missing"),
        ('{"images": 1}', "its key 'images' is no list"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no image"),
        ('{"a": ' + "[" * 100_000, "cannot be read|breaks off"),
        ("\xff", "breaks off at byte 0, which is not utf-8"),
        ('{"images": ["\xc3', "torn: it breaks off at byte 13, which is not utf-8"),
        ('{"images": [' + "1" * 5000, "cannot be read: Exceeds the limit"),
    ],
)
def test_what_is_not_cocos_json(tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text.encode("latin1"))
    with pytest.raises(DatasetError, match=message):
        load_coco(str(tmp_path / "a.json"), str(tmp_path))


@pytest.mark.parametrize("block", [1, 7, 2**24])
def test_polygons_are_left_out_before_the_rest_is_parsed(content, tmp_path, monkeypatch, block):
    monkeypatch.setattr(coco_json, "_BLOCK", block)
    polygons = [[[1, 2.5e0, -3, 4]], [], [[]], {"counts": [1, 2], "size": [3, 4]}, None]
    first = content["annotations"][0]
    content["annotations"] = [
        {"segmentation": p, **first, "id": i, "note": 'a "segmentation": [1]'}
        for i, p in enumerate(polygons)
    ]
    for space in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(content, indent=space))
        parsed = coco_json._parse(str(tmp_path / "a.json"))
        left = [a.pop("segmentation") for a in parsed["annotations"]]
        assert left == [None, None, None, polygons[3], None]
        assert parsed["annotations"] == [
            {k: v for k, v in a.items() if k != "segmentation"} for a in content["annotations"]
        ]


def test_the_place_of_a_tear_behind_polygons_is_that_in_the_file(content, tmp_path):
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    text = json.dumps(content)[:-1]
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DatasetError, match=f"line 1, column {len(text) + 1}"):
        load_coco(str(tmp_path / "a.json"), str(tmp_path))


def test_objects_are_those_of_their_images(content, tmp_path):
    for i in (5, 4, 3):  # in another order than their annotations; the last without one
        image = {**content["images"][0], "id": i, "file_name": f"{i}.jpg"}
        content["images"].append({**image, "width": 32 + i})
    content["annotations"] += [
        {"image_id": 4, "category_id": 3, "bbox": [0, 0, 40, 8]},
        {"image_id": 3, "category_id": 3, "bbox": [0, 0, 40, 8]},
        {"image_id": 3, "category_id": 3, "bbox": [40, 0, 9, 8]},
        {"image_id": 3, "category_id": 3, "bbox": [0, 0, 40, 8]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = load_coco(str(tmp_path / "a.json"), str(tmp_path), check_images=False)
    assert [record.image_id for record in data.records] == [1, 3, 4, 5]
    assert [record.objects["box"].tolist() for record in data.records] == [
        [[2, 3, 6, 8]], [[0, 0, 35, 8]] * 2, [[0, 0, 36, 8]], []
    ]  # fmt: skip
    told = [f.detail.partition(":")[0] for f in data.faults if f.detail.startswith("annotation")]
    assert told == [f"annotation {i}" for i in (3, 2, 4, 1, 4)]  # dropped, clipped, there twice


def test_missing_file_and_keys(content, tmp_path):
    with pytest.raises(DatasetError, match="none.json is missing"):
        load_coco(str(tmp_path / "none.json"), str(tmp_path))
    del content["images"][0]["width"]
    _, (fault, *_) = load(content, tmp_path)
    assert fault.reason == '"width" is missing in images' and fault.detail == "id 1"


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
            load(changed, tmp_path)


def test_real_coco_images(real_data):
    root = real_data / "coco"
    data = load_coco(str(root / "annotations" / "instances_val2017.json"), str(root / "val2017"))
    assert len(data.records) == 50 and {f.effect for f in data.faults} <= {TOLD}
    assert sum(int(r.objects["crowd"].sum()) for r in data.records) == 5


def test_a_class_that_is_there_without_an_object_is_not_misspelt(content, tmp_path):
    content["categories"] = [{"id": 3, "name": "defect_1"}, {"id": 7, "name": "defect_2"}]
    _, faults = load(content, tmp_path, ["defect_1"])
    assert [fault.effect for fault in faults] == [IGNORED]
