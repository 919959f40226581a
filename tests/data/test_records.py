import numpy as np
from detectron2.structures import BoxMode

from mutual_guidance.data.faults import CLIPPED, DROPPED, TOLD
from mutual_guidance.data.records import FoundObject, Record, pack_objects


def pack(*boxes, **options):
    found = [FoundObject(box, i, i) for i, box in enumerate(boxes)]
    return pack_objects(found, 100, 80, "file", **options)


def test_every_useless_box_is_dropped_with_its_reason():
    objects, faults = pack(
        [10, 10, 20, 20], [np.nan, 1, 2, 3], [5, 5, 5, 9], [9, 9, 5, 5], [100, 1, 120, 9],
        [-9, 1, 0, 9], [-101, 1, 9, 9], [1, 1, 9, 161], unit="annotation",
    )  # fmt: skip
    assert objects["box"].tolist() == [[10, 10, 20, 20]] and objects["class"].tolist() == [0]
    assert {f.effect for f in faults} == {DROPPED}
    assert [(f.detail.split(":")[0], f.reason) for f in faults] == [
        ("annotation 1", "box is not finite"),
        ("annotation 2", "box is inverted or without area"),
        ("annotation 3", "box is inverted or without area"),
        ("annotation 4", "box is outside the image"),
        ("annotation 5", "box is outside the image"),
        ("annotation 6", "box reaches more than a whole image beyond the image"),
        ("annotation 7", "box reaches more than a whole image beyond the image"),
    ]


def test_boxes_beyond_the_image_are_clipped_but_for_rounding():
    objects, (fault,) = pack([-0.5, 0, 101, 80], [-1.5, 10, 100, 90])
    assert objects["box"].tolist() == [[-0.5, 0, 101, 80], [0, 10, 100, 80]]
    assert fault.effect == CLIPPED and fault.detail == "line 1: [-1.5, 10.0, 100.0, 90.0]"


def test_objects_that_are_given_twice_are_told():
    objects, (fault,) = pack_objects(
        [FoundObject([1, 2, 3, 4], 0, 1), FoundObject([1, 2, 3, 4], 1, 2),
         FoundObject([1, 2, 3, 4], 0, 3)], 9, 9, "file"
    )  # fmt: skip
    assert len(objects) == 3  # they are learnt from as they stand
    assert (fault.effect, fault.detail) == (TOLD, "line 3: [1.0, 2.0, 3.0, 4.0]")


def test_pixels_that_count_from_one():
    objects, faults = pack([1, 1, 100, 80], [0, 1, 9, 9], first_pixel=1)
    assert objects["box"].tolist() == [[0, 0, 100, 80], [-1, 0, 9, 9]] and faults == []
    assert objects["area"].tolist() == [8000, 90]


def test_dict_of_detectron2():
    found = [FoundObject([1, 2, 3, 4], 7, 1, crowd=True, area=3.5)]
    objects, _ = pack_objects(found, 9, 8, "file")
    record = Record("a.jpg", "a", 9, 8, objects)
    annotation = {
        "bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 7, "iscrowd": 1
    }  # fmt: skip
    assert record.as_dict() == {
        "file_name": "a.jpg", "image_id": "a", "width": 9, "height": 8, "annotations": [annotation]
    }  # fmt: skip
    assert Record("a.jpg", "a", 9, 8, pack_objects([], 9, 8, "")[0]).as_dict()["annotations"] == []
