import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.errors import DatasetError


def test_registered_set_loads_through_detectron2(voc, voc_entry):
    voc.add("a", [("green", (1, 1, 9, 9))])
    register_datasets([voc_entry])
    register_datasets([voc_entry])  # the same entry again is fine
    check_datasets([voc_entry["name"]])
    assert len(DatasetCatalog.get(voc_entry["name"])) == 1
    assert MetadataCatalog.get(voc_entry["name"]).thing_classes == ["red", "green", "blue"]


def test_a_changed_entry_replaces_the_old_one(voc, voc_entry):
    voc.add("a", [("green", (1, 1, 9, 9))])
    voc.add("b", [("green", (1, 1, 9, 9))], split="test")
    register_datasets([voc_entry])
    register_datasets([{**voc_entry, "split": "test"}])
    assert DatasetCatalog.get(voc_entry["name"])[0]["image_id"] == "b"


def test_classes_may_be_left_out(voc, voc_entry):
    voc.add("a", [("green", (1, 1, 9, 9)), ("blue", (1, 1, 9, 9))])
    del voc_entry["classes"]
    register_datasets([voc_entry])
    check_datasets([voc_entry["name"]])
    assert MetadataCatalog.get(voc_entry["name"]).thing_classes == ["blue", "green"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "yolo9"}, "format must be one of voc, coco"),
        ({"spilt": "x"}, r"unknown keys \['spilt'\]"),
        ({"root": None}, r"missing keys \['root'\]"),
        ({"classes": ["red", "red"]}, r"\['red'\] stand twice"),
        ({"name": "voc_2007_test"}, "has a data set voc_2007_test already"),
    ],
)
def test_bad_entries_are_refused(voc_entry, change, message):
    entry = {k: v for k, v in {**voc_entry, **change}.items() if v is not None}
    with pytest.raises(DatasetError, match=message):
        register_datasets([entry])


def test_structural_faults_stop_with_a_table(voc, voc_entry):
    voc.add("a", [("purple", (1, 1, 9, 9))])
    register_datasets([voc_entry])
    with pytest.raises(DatasetError, match=r"a\.xml .* unknown class 'purple'"):
        check_datasets([voc_entry["name"]])


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(DatasetError, match="did you mean .*voc_2007_test"):
        check_datasets(["voc_2007_tst"])


def test_builtin_set_that_is_not_there(monkeypatch):
    with pytest.raises(DatasetError, match="set DETECTRON2_DATASETS"):
        check_datasets(["voc_2007_test"])


def test_images_of_a_builtin_set_are_checked(tmp_path, monkeypatch):
    entry = {"file_name": str(tmp_path / "a.jpg"), "width": 4, "height": 4, "annotations": []}
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [entry])
    with pytest.raises(DatasetError, match=r"a\.jpg .* image is missing"):
        check_datasets(["voc_2007_test"])


def test_set_without_any_object_is_refused(voc, voc_entry):
    voc.add("a", [])
    register_datasets([voc_entry])
    with pytest.raises(DatasetError, match="has no usable object"):
        check_datasets([voc_entry["name"]])
