import re
import uuid

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.structures import BoxMode

from mutual_guidance.data import check_datasets
from mutual_guidance.errors import DatasetError
from mutual_guidance.evaluation.ground_truth import load_records


@pytest.fixture
def own_function(tmp_path):
    """Registers a function that gives an image of each list of boxes (XYXY, pixels)."""

    def register(*boxes_per_image, **metadata):
        dicts = []
        for i, boxes in enumerate(boxes_per_image):
            path = str(tmp_path / f"{i}.png")
            cv2.imwrite(path, np.zeros((32, 64, 3), np.uint8))
            objects = [
                {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0} for box in boxes
            ]
            dicts.append({"file_name": path, "image_id": i, "width": 64, "height": 32})
            dicts[-1]["annotations"] = objects
        name = f"function_{uuid.uuid4().hex}"
        DatasetCatalog.register(name, lambda: dicts)
        kind = {"evaluator_type": "coco", "thing_classes": ["red"], **metadata}
        MetadataCatalog.get(name).set(**kind)
        return name, dicts

    return register


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([[40, 5, 10, 20], [1, 2, 30, 20]], r"stops +1 +box is inverted .*0\.png: annotation 0: "),
        ([[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1]], "stops +1 +boxes look like shares"),
        ([[1, 2, 30]], r"stops +1 +annotations are not as .*0\.png: ValueError: "),
    ],
    ids=["inverted", "shares", "three_numbers"],
)
def test_objects_of_ones_own_function_are_checked(own_function, boxes, reason):
    name, _ = own_function(boxes, [])
    for train, test in (([name], []), ([], [name])):
        with pytest.raises(DatasetError, match=reason):
            check_datasets(train, test)


def test_categories_count_from_0(own_function):
    name, dicts = own_function([[1, 2, 30, 20]])
    dicts[0]["annotations"][0]["category_id"] = 1
    message = r"stops +1 +category_id is none of 0 to 0, as of thing_classes +\S*0\.png: 1"
    with pytest.raises(DatasetError, match=message):
        check_datasets([name])


def test_what_both_training_and_evaluation_clip_is_only_told(own_function, caplog):
    name, _ = own_function([[1, 2, 90, 20]])
    check_datasets([name], [name])
    assert re.search(r"^clipped +1 +box reaches beyond its image", caplog.text, re.M)


@pytest.mark.parametrize("key", ["file_name", "image_id", "width", "height"])
def test_a_dict_without_a_key_is_named(own_function, key):
    name, dicts = own_function([[1, 2, 30, 20]], [])
    del dicts[1][key]
    where = "the dict of index 1" if key == "file_name" else r"\S*1\.png"
    with pytest.raises(DatasetError, match=f"{name}: {where} has no `{key}`: give every image"):
        check_datasets([name])


def test_ids_that_stand_twice_where_detections_are_found_by_them(own_function):
    name, dicts = own_function([[1, 2, 30, 20]], [], [])
    dicts[2]["image_id"] = 0
    check_datasets([name])
    with pytest.raises(DatasetError, match=r"0\.png and \S*2\.png have the `image_id` 0: AP needs"):
        check_datasets([], [name])


def test_vocs_ap_of_a_part_of_a_split_or_of_no_split(voc, own_function):
    for image_id in "ab":
        voc.add(image_id, [("red", (1, 1, 9, 9))])
    of_files = {"dirname": str(voc.root), "split": "train"}
    for metadata in (of_files, {}):
        name, dicts = own_function([[0, 0, 9, 9]], evaluator_type="pascal_voc", **metadata)
        dicts[0]["image_id"] = "b"
        check_datasets([], [name])
        (record,) = load_records(name)
        assert record.image_id == "b" and record.objects["box"].tolist() == [[0, 0, 9, 9]]


def test_builtin_set_that_is_not_there(tmp_path, monkeypatch):
    def load(name):
        return (tmp_path / "gone.xml").read_text()

    monkeypatch.setattr(DatasetCatalog, "get", load)
    with pytest.raises(DatasetError, match="set DETECTRON2_DATASETS, before Python starts, to"):
        check_datasets(["voc_2007_test"])


def test_builtin_set_that_cannot_be_evaluated_or_read(monkeypatch):
    with pytest.raises(
        DatasetError, match="lvis_v1_val is of type 'lvis'; coco and pascal_voc can"
    ):
        check_datasets([], ["lvis_v1_val"])

    def load(name):
        raise ImportError("No module named 'lvis'", name="lvis")

    monkeypatch.setattr(DatasetCatalog, "get", load)
    with pytest.raises(
        DatasetError, match="cannot be read: No module named 'lvis'; install that package"
    ):
        check_datasets(["lvis_v1_train"])


def test_images_of_a_builtin_set_are_checked(tmp_path, monkeypatch):
    entry = {"file_name": str(tmp_path / "a.jpg"), "image_id": 1, "width": 4, "height": 4}
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [entry])
    with pytest.raises(DatasetError, match=r"image is missing +\S*a\.jpg"):
        check_datasets(["coco_2017_val"])


def test_images_of_detectron2s_sets_that_lack_annotations_beside_others_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    image = {"file_name": str(tmp_path / "a.png"), "width": 8, "height": 8}
    records = [{**image, "image_id": 1, "annotations": []}, {**image, "image_id": 2}]
    name = f"mixed_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: records)
    with pytest.raises(DatasetError, match=r"a\.png has no `annotations`, but other images have"):
        check_datasets([name])
    records[1]["annotations"] = []
    check_datasets([name])


def test_torn_annotations_of_detectron2s_sets_are_told(tmp_path):
    name = f"torn_{tmp_path.name}"
    (tmp_path / "torn.json").write_text('{"images": [')
    register_coco_instances(name, {}, str(tmp_path / "torn.json"), str(tmp_path))
    with pytest.raises(DatasetError, match=r"cannot read \S*torn\.json \(JSONDecodeError"):
        check_datasets([name])
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "Annotations/a.xml").touch()
    register_pascal_voc(f"voc_{name}", str(tmp_path), "train", 2007)
    with pytest.raises(DatasetError, match=rf"cannot read {tmp_path} \(ParseError: no element"):
        check_datasets([f"voc_{name}"])


def test_classes_of_ones_own_under_a_builtin_name_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: MetadataCatalog.get(name).set(name="x"))
    with pytest.raises(DatasetError, match="cannot read .*AssertionError.*of the classes"):
        check_datasets(["voc_2007_test"])


def test_a_loader_of_ones_own_fails_as_it_does():
    DatasetCatalog.register("own_loader", lambda: [][0])
    with pytest.raises(IndexError):
        check_datasets(["own_loader"])


def test_marks_of_voc_that_detectron2_does_not_read_are_told_before_the_training(voc):
    tags = "<pose>x</pose><truncated>0</truncated>"
    voc.add("a", [("red", (1, 1, 9, 9), tags, "<difficult>Unspecified</difficult>")])
    voc.add("b", [("red", (1, 1, 9, 9), tags)])
    name = f"marked_{voc.root.parent.name}"
    register_pascal_voc(name, str(voc.root), "train", 2007, ["red"])
    MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    check_datasets([name])
    with pytest.raises(DatasetError, match=r"difficult.*Unspecified.*a\.xml|a\.xml.*Unspecified"):
        check_datasets([], [name])
    with pytest.raises(DatasetError, match="Unspecified"):
        load_records(name)
