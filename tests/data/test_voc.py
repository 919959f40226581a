import pytest

from mutual_guidance.data import load_voc
from mutual_guidance.data.voc import collect_classes, read_annotation
from mutual_guidance.errors import DatasetError

CLASSES = ["red", "green", "blue"]


def reasons(faults):
    return [(f.reason.split(" [")[0], f.structural) for f in faults]


def test_reads_boxes_as_detectron2_does(voc):
    voc.add("a", [("green", (1, 1, 64, 64)), ("red", (3, 5, 10, 20))])
    records, faults = load_voc(str(voc.root), "train", CLASSES)
    assert faults == []
    assert records[0]["image_id"] == "a" and records[0]["height"] == 64
    boxes = [(a["category_id"], a["bbox"]) for a in records[0]["annotations"]]
    # 1-based inclusive pixels: (1, 1, 64, 64) is the whole image.
    assert boxes == [(1, [0.0, 0.0, 64.0, 64.0]), (0, [2.0, 4.0, 10.0, 20.0])]


def test_degenerate_boxes_are_dropped_and_told(voc):
    boxes = [
        (5, 5, 5, 9), (9, 5, 5, 9), (70, 1, 80, 9), (1, 1, 9, 9), ("nan", 1, 9, 9),
        (1, 1, 1e30, 9), (1, 1, 9, "inf"), (-900, 1, 9, 9),
    ]  # fmt: skip
    voc.add("a", [])
    objects = "".join(
        f"<object><name>red</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    path = voc.root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("</annotation>", objects + "</annotation>"))
    records, faults = load_voc(str(voc.root), "train", CLASSES)
    assert [a["bbox"] for a in records[0]["annotations"]] == [[0.0, 0.0, 9.0, 9.0]]
    assert len(faults) == 7 and not any(f.structural for f in faults)
    assert all(str(path) == f.file for f in faults)


def test_structural_faults(voc):
    for name in (
        "fine",
        "no_xml",
        "torn",
        "no_image",
        "empty_image",
        "other_size",
        "bomb",
        "no_size",
    ):
        voc.add(name, [("red", (1, 1, 9, 9))])
    voc.add("fine", [("purple", (1, 1, 9, 9))])  # a duplicate id and an unknown class
    annotations, images = voc.root / "Annotations", voc.root / "JPEGImages"
    (annotations / "no_xml.xml").unlink()
    (annotations / "torn.xml").write_text("<annotation><size>")
    (images / "no_image.jpg").unlink()
    (images / "empty_image.jpg").write_bytes(b"")
    text = (annotations / "other_size.xml").read_text()
    (annotations / "other_size.xml").write_text(text.replace("<width>64", "<width>65"))
    (annotations / "no_size.xml").write_text("<annotation></annotation>")
    (annotations / "bomb.xml").write_text(
        '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><annotation>&z;</annotation>'
    )
    _, faults = load_voc(str(voc.root), "train", CLASSES)
    assert all(f.structural for f in faults)
    told = {f.file.rsplit("/", 1)[1]: f.reason for f in faults}
    assert "missing" in told["no_xml.xml"]
    assert "not XML" in told["torn.xml"]
    assert "missing" in told["no_image.jpg"]
    assert "cannot be read" in told["empty_image.jpg"]
    assert "64x64, its annotation says 65x64" in told["other_size.jpg"]
    assert "entities" in told["bomb.xml"]
    assert "cannot be used" in told["no_size.xml"]
    assert "unknown class 'purple'" in told["fine.xml"]
    assert "duplicate id fine" in told["train.txt"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "declarations",
    [
        '<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">',
        '<!ENTITY b SYSTEM "file:///etc/hostname">',
        '<!ENTITY % b SYSTEM "file:///etc/hostname"> %b;',
    ],
)
def test_entities_are_refused_unexpanded(tmp_path, declarations, encoding):
    path = tmp_path / "a.xml"
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [{declarations}]><a>&b;</a>'
    path.write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match="declares XML entities"):
        read_annotation(str(path))


def test_missing_layout_is_named(tmp_path, voc):
    with pytest.raises(DatasetError, match=r"ImageSets/Main/train\.txt is missing"):
        load_voc(str(tmp_path / "nowhere"), "train", CLASSES)
    (voc.root / "ImageSets" / "Main" / "empty.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"empty\.txt lists no image"):
        load_voc(str(voc.root), "empty", CLASSES)
    (voc.root / "ImageSets" / "Main" / "binary.txt").write_bytes(b"\xff\xd8\x00")
    with pytest.raises(DatasetError, match=r"binary\.txt is not text"):
        load_voc(str(voc.root), "binary", CLASSES)


def test_annotation_torn_anywhere_is_refused(voc, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    text = (voc.root / "Annotations" / "a.xml").read_bytes()
    for length in range(len(text)):
        (tmp_path / "torn.xml").write_bytes(text[:length])
        with pytest.raises(ValueError, match="not XML"):
            read_annotation(str(tmp_path / "torn.xml"))


def test_one_image_is_enough(voc):
    voc.add("only", [("red", (1, 1, 9, 9))])
    assert len(load_voc(str(voc.root), "train", CLASSES)[0]) == 1


def test_classes_are_collected_from_all_annotations(voc):
    voc.add("a", [("red", (1, 1, 9, 9))])
    voc.add("b", [("blue", (1, 1, 9, 9))], split="test")
    assert collect_classes(str(voc.root)) == ["blue", "red"]


def test_bccd_has_two_degenerate_boxes(real_data):
    classes = ["RBC", "WBC", "Platelets"]
    faults = []
    for split in ("trainval", "test"):
        faults += load_voc(str(real_data / "BCCD"), split, classes)[1]
    assert len(faults) == 2 and not any(f.structural for f in faults)
    assert all("zero-area" in f.reason for f in faults)
