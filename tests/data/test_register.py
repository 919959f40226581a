import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mutual_guidance.data import check_datasets, records_of, register_datasets
from mutual_guidance.data.register import dataset_root
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
        ({"classes": ["red", "red "]}, "'red' stands there twice"),
        ({"classes": [True, False]}, "True is not the name of a class: .* quote it"),
        ({"classes": {"a": 1}}, "expected a list of names"),
        ({"name": "voc_2007_test"}, "has a data set voc_2007_test already"),
        ({"name": "../../outside"}, "a name names files, so without /"),
        ({"name": 3}, "name must be text"),
        ({"root": ["a"]}, "root must be text"),
        ({"name": "a\x1b[2J"}, "a name without control characters"),
        ({"classes": ["red", "smile \ud83d"]}, r"the name 'smile \\ud83d' has control"),
        ({"classes": ["red", "gr\x9been"]}, r"the name 'gr\\x9been' has control characters"),
    ],
)
def test_bad_entries_are_refused(voc_entry, change, message):
    entry = {k: v for k, v in {**voc_entry, **change}.items() if v is not None}
    with pytest.raises(DatasetError, match=message):
        register_datasets([entry])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "voc", "split": ["train"]}, "split must be text or a mapping"),
        ({"format": "yolo", "split": ["val"]}, "split must be text"),
        ({"format": "yolo", "images": []}, "images must be text or a list of texts"),
        ({"format": "yolo", "images": ["a", 3]}, "images must be text or a list of texts"),
        ({"format": "yolo", "images": "a", "data": 3}, "data must be text"),
        ({"format": "coco", "annotations": "a", "images": ["a"]}, "images must be text"),
        ({"format": ["coco"]}, "format must be text"),
    ],
)
def test_values_of_another_kind_are_refused(entry, message):
    with pytest.raises(DatasetError, match=rf"DATASETS\.REGISTER: {message}, in"):
        register_datasets([{"name": "other_kind", "root": "a", **entry}])


@pytest.mark.parametrize("entries", ["voc", {"name": "a"}, [["a"]], [3], 3])
def test_entries_of_another_kind_are_refused(entries):
    with pytest.raises(DatasetError, match=r"DATASETS\.REGISTER"):
        register_datasets(entries)


def test_structural_faults_stop_with_a_table(voc, voc_entry):
    voc.add("a", [("purple", (1, 1, 9, 9))])
    register_datasets([voc_entry])
    voc.rewrite("a", ("<name>", "<nom>"), ("</name>", "</nom>"))
    table = r"stops +1 +tag <name> of <object> is missing +\S*a\.xml: line 1"
    with pytest.raises(DatasetError, match=table):
        check_datasets([voc_entry["name"]])


def test_all_faults_are_told_once_and_listed(voc, voc_entry, tmp_path, caplog):
    voc.add("a", [("red", (1, 1, 9, 9)), *[("red", (5, 5, 5, 9 + i)) for i in range(5)]])
    voc.add("b", [("purple", (1, 1, 9, 9)), ("red", (1, 1, 90, 90))])
    register_datasets([voc_entry])
    name = voc_entry["name"]
    check_datasets([name], [name], str(tmp_path / "out"))  # in TRAIN and in TEST
    rows = [
        line.split()[:2] for line in caplog.text.splitlines() if "box" in line or "class" in line
    ]
    assert rows == [["dropped", "5"], ["clipped", "1"], ["ignored", "1"], ["told", "2"]]
    lines = (tmp_path / "out" / "dataset_faults.txt").read_text().splitlines()
    assert len(lines) == 10 and lines[0].startswith("dropped\t1\t")
    assert caplog.text.count(str(tmp_path / "out" / "dataset_faults.txt")) == 1


def test_names_of_files_cannot_steer_a_terminal(voc, voc_entry, tmp_path, caplog):
    voc.add("a\x1b[2J", [("red", (1, 1, 9, 9)), ("red", (5, 5, 5, 9))])
    register_datasets([voc_entry])
    check_datasets([voc_entry["name"]], folder=str(tmp_path))
    for text in (caplog.text, (tmp_path / "dataset_faults.txt").read_text()):
        assert "a\\x1b[2J.xml" in text and "\x1b" not in text


def test_what_nothing_can_be_learnt_from_or_measured_on(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 9, 9), "<difficult>1</difficult>")])
    register_datasets([voc_entry])
    check_datasets([voc_entry["name"]])  # difficult objects are learnt from
    with pytest.raises(DatasetError, match="nothing to find, no AP"):
        check_datasets([], [voc_entry["name"]])


def test_shares_in_the_place_of_pixels_are_refused(voc, voc_entry):
    voc.add("a", [("red", (0.31, 0.42, 0.51, 0.97))])
    voc.add("b", [])
    register_datasets([voc_entry])
    with pytest.raises(DatasetError, match="boxes look like shares"):
        check_datasets([voc_entry["name"]])
    voc.add("c", [("red", (1, 1, 2, 2))])
    check_datasets([voc_entry["name"]])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("<width>64", "<width>65"), "of another size than its annotation says"),
        (("</name>", "</name><difficult>1</difficult>"), "nothing to find, no AP"),
    ],
)
def test_what_was_mended_is_read_anew(voc, voc_entry, change, fault):
    voc.add("a", [("red", (1, 1, 9, 9))])
    voc.rewrite("a", change)
    del voc_entry["classes"]
    register_datasets([voc_entry])
    with pytest.raises(DatasetError, match=fault):
        check_datasets([], [voc_entry["name"]])
    voc.rewrite("a", change[::-1], ("red", "blue"))
    register_datasets([voc_entry])
    check_datasets([], [voc_entry["name"]])
    assert MetadataCatalog.get(voc_entry["name"]).thing_classes == ["blue"]


def test_what_was_mended_is_read_anew_without_a_check(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 9, 9))])
    (voc.root / "JPEGImages" / "a.jpg").rename(voc.root / "a.jpg")
    register_datasets([voc_entry])
    with pytest.raises(DatasetError, match="image is missing"):
        records_of(voc_entry["name"])
    (voc.root / "a.jpg").rename(voc.root / "JPEGImages" / "a.jpg")
    assert len(records_of(voc_entry["name"])) == 1


def test_images_that_are_trained_on_and_tested_on_are_told(voc, voc_entry, caplog):
    name, other = voc_entry["name"], voc_entry["name"] + "_other"
    for image in ("a", "b", "c"):
        voc.add(image, [("red", (1, 1, 9, 9))])
    # Another way to the same folder, as through a link.
    link = voc.root.with_name("link")
    link.symlink_to(voc.root)
    voc.add("d", [("red", (1, 1, 9, 9))], listed=False)
    images = voc.root / "JPEGImages"
    (images / "d.jpg").unlink()
    (images / "d.jpg").symlink_to("a.jpg")
    (voc.root / "ImageSets" / "Main" / "other.txt").write_text("b\nc\nd\n")
    register_datasets(
        [voc_entry, {**voc_entry, "name": other, "root": str(link), "split": "other"}]
    )
    check_datasets([name])
    check_datasets([], [other])
    assert "trained on" not in caplog.text
    check_datasets([name], [other])
    assert "told      3        image is trained on and tested on: AP" in caplog.text
    assert f"{other}: {link}" in caplog.text


def test_two_entries_of_one_name_are_refused(voc_entry):
    with pytest.raises(DatasetError, match="two entries have the name"):
        register_datasets([voc_entry, {**voc_entry, "split": "test"}])


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(DatasetError, match="did you mean .*voc_2007_test"):
        check_datasets(["voc_2007_tst"])


def test_folders_of_a_home_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")  # which Detectron2 expands too
    assert dataset_root("mine") == "/home/me/data/mine"
    assert dataset_root("~/mine") == "/home/me/mine"


def test_set_without_any_object_is_refused(voc, voc_entry):
    voc.add("a", [])
    register_datasets([voc_entry])
    with pytest.raises(DatasetError, match="no usable object: nothing to learn"):
        check_datasets([voc_entry["name"]])
