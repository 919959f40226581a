import pytest
from PIL import Image

from mutual_guidance.data import load_voc
from mutual_guidance.data.faults import DROPPED, IGNORED, STOPS, TOLD
from mutual_guidance.data.voc import collect_classes, read_split
from mutual_guidance.data.voc_xml import read_annotation
from mutual_guidance.errors import DatasetError
from tests.conftest import CLASSES


def load(voc, classes=CLASSES):
    """Records, and faults but what is merely told."""
    records, faults = load_voc(str(voc.root), "train", classes)
    return records, [f for f in faults if f.effect != TOLD]


def test_reads_boxes_as_detectron2_does(voc):
    voc.add("a", [("green", (1, 1, 64, 64)), ("red", (3, 5, 10, 20))])
    (record,), faults = load(voc)
    assert faults == [] and record.image_id == "a" and record.height == 64
    # 1-based inclusive pixels: (1, 1, 64, 64) is the whole image.
    assert record.objects["class"].tolist() == [1, 0]
    assert record.objects["box"].tolist() == [[0, 0, 64, 64], [2, 4, 10, 20]]
    assert record.objects["area"].tolist() == [64 * 64, 8 * 16]


def test_degenerate_boxes_are_dropped_and_told(voc):
    boxes = [
        (5, 5, 5, 9), (9, 5, 5, 9), (70, 1, 80, 9), (1, 1, 9, 9), ("nan", 1, 9, 9),
        (1, 1, 1e30, 9), (1, 1, 9, "inf"), (-900, 1, 9, 9),
    ]  # fmt: skip
    voc.add("a", [])
    objects = "".join(
        f"<object><name>red</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>\n"
        for a, b, c, d in boxes
    )
    path = voc.rewrite("a", ("</annotation>", objects + "</annotation>"))
    (record,), faults = load(voc)
    assert record.objects["box"].tolist() == [[0.0, 0.0, 9.0, 9.0]]
    assert len(faults) == 7 and {f.effect for f in faults} == {DROPPED}
    assert all(str(path) == f.file for f in faults)
    assert faults[0].detail == "line 1: [5.0, 5.0, 5.0, 9.0]"
    assert [f.detail.split(":")[0] for f in faults] == [f"line {i}" for i in (1, 2, 3, 5, 6, 7, 8)]


def test_structural_faults(voc):
    for name in ("fine", "no_xml", "torn", "no_image", "empty_image", "other_size", "bomb"):
        voc.add(name, [("red", (1, 1, 9, 9))])
    voc.add("fine", [("red", (1, 1, 9, 9))])  # an id that stands twice
    annotations, images = voc.root / "Annotations", voc.root / "JPEGImages"
    (annotations / "no_xml.xml").unlink()
    (annotations / "torn.xml").write_text("<annotation><size>")
    (images / "no_image.jpg").unlink()
    (images / "empty_image.jpg").write_bytes(b"")
    voc.rewrite("other_size", ("<width>64", "<width>65"))
    (annotations / "bomb.xml").write_text(
        '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><annotation>&z;</annotation>'
    )
    _, faults = load(voc)
    assert all(f.effect == STOPS for f in faults)
    told = {f.file.rsplit("/", 1)[1]: f"{f.reason}; {f.detail}" for f in faults}
    assert "missing" in told["no_xml.xml"]
    assert told["torn.xml"].startswith("annotation is not XML, torn, or not in its declared")
    assert told["torn.xml"].endswith("; line 1, column 19")
    assert "missing" in told["no_image.jpg"]
    assert "the file is empty" in told["empty_image.jpg"]
    assert told["other_size.jpg"].endswith("image 64x64, annotation 65x64")
    assert "entities" in told["bomb.xml"]
    assert told["train.txt"] == "id stands twice; 'fine'"


# As CVAT writes it, with the corners of before.
ROTATED = "<attributes><attribute><name>rotation</name><value>37.5</value></attribute></attributes>"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([("<size>", "<siz>")], "not XML"),
        ([("<width>64</width>", "")], "tag <width> of <size> is missing"),
        ([("<width>64", "<width>many")], "tag <width> is 'many', not a number"),
        ([("<width>64", "<width>64.5")], "tag <width> is 64.5, not a whole number"),
        ([("<width>64", "<width>nan")], "tag <width> is nan, not a whole number"),
        ([("<xmin>1<", "<xmin>1,5<")], "tag <xmin> is '1,5', not a number"),
        ([("<xmin>1<", "<xmin>1_5<")], "tag <xmin> is '1_5', not a number"),
        ([("<xmin>1<", "<xmin><")], "tag <xmin> is '', not a number"),
        ([("</xmin>", "</xmin><xmin>2</xmin>")], "tag <xmin> of <bndbox> stands there 2 times"),
        ([("<name>red</name>", "<name> </name>")], "tag <name> of an <object> is empty"),
        ([("<name>red</name>", "<name>r\x9bed</name>")], "tag <name> has control characters"),
        ([("<name>red</name>", "")], "tag <name> of <object> is missing"),
        ([("</name>", "</name><name>blue</name>")], "tag <name> of <object> stands there 2 times"),
        ([("<name>", "<difficult>ja</difficult><name>")], "tag <difficult> is 'ja', not 0 or 1"),
        ([("</bndbox>", f"</bndbox>{ROTATED}")], "an <object> is rotated: draw an upright box"),
        ([("</bndbox>", "</bndbox><bndbox></bndbox>")], "tag <bndbox> of <object> stands there 2"),
        ([("<annotation>", "<annotation xmlns='urn:x'>")], "tags stand in the namespace 'urn:x'"),
    ],
)
def test_annotation_that_cannot_be_used_is_refused(voc, changes, reason):
    voc.add("a", [("red", (1, 2, 9, 9))])
    path = voc.rewrite("a", *changes)
    records, (fault,) = load(voc)
    assert records == [] and fault.file == str(path) and fault.effect == STOPS
    assert reason in fault.reason


@pytest.mark.parametrize(
    ("changes", "tag"),
    [
        ([("<object>", "<objects><object>"), ("</object>", "</object></objects>")], "object"),
        ([("object>", "Object>")], "Object"),
        ([("<object>", "<x:object xmlns:x='u'>"), ("</object>", "</x:object>")], "object"),
        ([("bndbox>", "BndBox>")], "BndBox"),
        ([("bndbox>", "robndbox>")], "robndbox"),
        ([("<name>", "<Difficult>1</Difficult><name>")], "Difficult"),
        ([("<object>", "<item><bndbox></bndbox></item><object>")], "bndbox"),
    ],
)
def test_an_object_that_would_be_passed_over_is_refused(voc, changes, tag):
    voc.add("a", [("red", (1, 2, 9, 9))])
    path = voc.rewrite("a", ("<object>", "\n<object>"), *changes)
    records, (fault,) = load(voc)
    assert records == [] and fault.file == str(path) and fault.effect == STOPS
    assert f"tag <{tag}> is not read where or as it stands" in fault.reason
    assert fault.detail == "line 2"


def test_parts_and_unknown_tags_are_passed_over(voc):
    voc.add("a", [("red", (1, 2, 9, 9))])
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    more = f"<owner><name>x</name></owner><object><pose>y</pose>{part}"
    voc.rewrite("a", ("<object>", more))
    (record,), faults = load(voc)
    assert len(record.objects) == 1 and faults == []


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


@pytest.mark.parametrize("encoding", ["shift_jis", "martian"])
def test_unknown_encodings_are_refused(tmp_path, encoding):
    path = tmp_path / "a.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><a/>')
    with pytest.raises(ValueError, match="unknown encoding|not XML"):
        read_annotation(str(path))


def test_missing_layout_is_named(tmp_path, voc):
    with pytest.raises(DatasetError, match=r"ImageSets/Main/train\.txt is missing"):
        load_voc(str(tmp_path / "nowhere"), "train", CLASSES)
    (voc.root / "ImageSets" / "Main" / "empty.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"empty\.txt lists no image"):
        load_voc(str(voc.root), "empty", CLASSES)
    (voc.root / "ImageSets" / "Main" / "binary.txt").write_bytes(b"\xff\xd8\x00")
    with pytest.raises(DatasetError, match=r"binary\.txt is not text in UTF-8 \(byte 0\)"):
        load_voc(str(voc.root), "binary", CLASSES)


def test_annotation_torn_anywhere_is_refused(voc, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    text = (voc.root / "Annotations" / "a.xml").read_bytes()
    for length in range(len(text)):
        (tmp_path / "torn.xml").write_bytes(text[:length])
        with pytest.raises(ValueError, match="not XML"):
            read_annotation(str(tmp_path / "torn.xml"))


def test_lines_of_a_split_are_ids(voc):
    for folder in ("Annotations", "JPEGImages"):
        (voc.root / folder / "sub").mkdir()
    ids = ["photo (1)", "my  photo 1", "sub/x", "photo"]
    for image_id in ids:
        voc.add(image_id, [("red", (1, 1, 9, 9))], listed=False)
    split = voc.root / "ImageSets" / "Main" / "train.txt"
    split.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(ids).encode() + b" \n\n")
    records, faults = load(voc)
    assert [r.image_id for r in records] == ids and faults == []
    # VOC's own files of a class have a column more.
    split.write_text("photo -1\nphoto (1)  1\nsub/x\t0\n")
    assert read_split(str(voc.root), "train") == ["photo", "photo (1)", "sub/x"]
    # What is there under neither name is told as it stands.
    split.write_text("phote 1\nphoto 2\n")
    assert read_split(str(voc.root), "train") == ["phote 1", "photo 2"]


def test_an_annotation_of_another_name_is_told(voc):
    voc.add("A", [("red", (1, 1, 9, 9))])
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("a")
    _, (fault,) = load(voc)
    assert fault.reason == "annotation is missing: it is there in other capitals"
    (voc.root / "Annotations" / "a.xml").symlink_to("nowhere.xml")
    _, (fault,) = load(voc)
    assert fault.reason == "annotation is missing: it is there as a link that leads nowhere"


def test_an_id_with_a_suffix_is_told(voc):
    voc.add("a", [("red", (1, 1, 9, 9))])
    (voc.root / "ImageSets" / "Main" / "train.txt").write_text("a.jpg")
    _, (fault,) = load(voc)
    assert "the id ends as an image's file does" in fault.reason


def test_images_of_every_suffix_are_found_and_two_of_one_id_are_refused(voc):
    for i, suffix in enumerate((".bmp", ".PNG", ".tif", ".webp")):
        voc.add(f"a{i}", [("red", (1, 1, 9, 9))])
        path = voc.root / "JPEGImages" / f"a{i}.jpg"
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()
    records, faults = load(voc)
    assert faults == [] and records[1].file_name.endswith("a1.PNG")
    Image.new("RGB", (64, 64)).save(voc.root / "JPEGImages" / "a0.jpg")
    _, (fault,) = load(voc)
    assert "several images have this id" in fault.reason and fault.detail == "a0.bmp, a0.jpg"


def test_classes_are_collected_from_all_annotations(voc):
    voc.add("a", [(" red\n", (1, 1, 9, 9))])
    voc.add("b", [("blue", (1, 1, 9, 9))], split="test")
    assert collect_classes(str(voc.root)) == (["blue", "red"], [])
    voc.add("c", [("Red", (1, 1, 9, 9))], split="test")
    classes, (fault,) = collect_classes(str(voc.root))
    assert classes == ["Red", "blue", "red"]
    assert fault.detail == "'Red', 'red'" and fault.effect == TOLD


def test_a_subset_of_the_classes(voc):
    voc.add("a", [("red", (1, 1, 9, 9)), ("blue", (1, 1, 9, 9)), ("blue", (1, 1, 9, 9))])
    (record,), (fault,) = load(voc, ["green", "red"])
    assert record.objects["class"].tolist() == [1]
    assert (fault.effect, fault.count, fault.detail) == (IGNORED, 2, "2 of 'blue'")


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (["red", "blu"], "no class 'blu'; did you mean 'blue'?"),
        (["red", "Blue"], "class 'blue': `classes` has 'Blue'; write it in one way"),
    ],
)
def test_a_misspelt_class_is_refused(voc, classes, reason):
    voc.add("a", [("red", (1, 1, 9, 9)), ("blue", (1, 1, 9, 9))])
    _, faults = load(voc, classes)
    assert reason in [f.reason for f in faults if f.effect == STOPS]


def test_bccd_has_two_degenerate_boxes(real_data):
    classes = ["RBC", "WBC", "Platelets"]
    faults = []
    for split in ("trainval", "test"):
        faults += load_voc(str(real_data / "BCCD"), split, classes)[1]
    assert [f.effect for f in faults] == [DROPPED, DROPPED]
    assert all("without area" in f.reason for f in faults)
