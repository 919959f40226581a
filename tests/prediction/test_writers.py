import json
import os

import cv2
import numpy as np
import pytest
from detectron2.data import Metadata, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

from mutual_guidance.errors import InputError
from mutual_guidance.prediction import (
    CocoJson,
    DrawnImages,
    DrawnVideo,
    VocText,
    check_outputs,
    check_voc_ids,
)
from mutual_guidance.prediction.writers import voc_id
from tests.conftest import predicted

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")


@pytest.fixture
def predictions():
    """Two boxes in an image of 40x30 pixels, none in another."""
    found = predicted([[0, 0, 10, 20], [4.5, 5, 8, 6.25]], [0.75, 0.125], [1, 0], (30, 40))
    return [("sub/a.jpg", found), ("b.png", predicted([], [], [], (8, 9)))]


@pytest.fixture
def metadata():
    return Metadata().set(thing_classes=["cat", "dog"])


def coco(predictions, folder, metadata):
    with CocoJson(folder, metadata) as writer:
        for name, found in predictions:
            writer.add(name, found, None)
    assert [path.name for path in folder.iterdir()] == ["predictions.json"]
    return json.loads((folder / "predictions.json").read_text())


def test_coco(predictions, metadata, tmp_path):
    dataset = coco(predictions, tmp_path, metadata)
    assert dataset["images"] == [
        {"id": 1, "file_name": "sub/a.jpg", "height": 30, "width": 40},
        {"id": 2, "file_name": "b.png", "height": 8, "width": 9},
    ]
    assert dataset["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    common = {"image_id": 1, "iscrowd": 0}
    assert dataset["annotations"] == [
        {**common, "id": 1, "category_id": 2, "bbox": [0, 0, 10, 20], "area": 200, "score": 0.75},
        # 8 - 4.5 and 6.25 - 5
        {**common, "id": 2, "category_id": 1, "bbox": [4.5, 5, 3.5, 1.25], "area": 4.375,
         "score": 0.125},
    ]  # fmt: skip
    assert COCO(str(tmp_path / "predictions.json")).getAnnIds(imgIds=[1], catIds=[2]) == [1]


def test_coco_of_nothing(metadata, tmp_path):
    dataset = coco([], tmp_path, metadata)
    assert dataset["images"] == dataset["annotations"] == [] and len(dataset["categories"]) == 2


def test_categories_of_coco_keep_their_ids(predictions, tmp_path):
    dataset = coco(predictions, tmp_path, MetadataCatalog.get("coco_2017_val"))
    assert [c["id"] for c in dataset["categories"]][:12] == [*range(1, 12), 13]  # COCO has no 12
    assert dataset["categories"][11] == {"id": 13, "name": "stop sign"}


def test_coco_is_written_as_it_goes(predictions, metadata, tmp_path):
    (tmp_path / "predictions.json").write_text("of before")
    with CocoJson(tmp_path, metadata) as writer:
        size = 0
        for _ in range(3):
            for _ in range(200):
                writer.add(*predictions[0], None)
            grown = (tmp_path / "predictions.json.part").stat().st_size
            assert grown > size
            size = grown
        assert (tmp_path / "predictions.json").read_text() == "of before"
    assert len(json.loads((tmp_path / "predictions.json").read_text())["annotations"]) == 1200


def test_what_was_found_before_an_error_is_whole(predictions, metadata, tmp_path):
    with pytest.raises(KeyboardInterrupt), CocoJson(tmp_path, metadata) as writer:
        writer.add(*predictions[0], None)
        raise KeyboardInterrupt
    assert len(json.loads((tmp_path / "predictions.json").read_text())["annotations"]) == 2


def test_an_error_before_the_first_image_leaves_the_file_of_before(metadata, tmp_path):
    (tmp_path / "predictions.json").write_text("of before")
    with pytest.raises(InputError), CocoJson(tmp_path, metadata):
        raise InputError("no video")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of before"]


def test_ids_of_voc_lose_the_suffix_of_an_image_alone():
    names = ["sub/a.b.JPG", "my.holiday_000000", "v1.2/scan"]
    assert [voc_id(name) for name in names] == ["sub/a.b", "my.holiday_000000", "v1.2/scan"]


def test_voc(predictions, metadata, tmp_path):
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "comp4_det_test_dog.txt").write_text("of before\n")
    with VocText(tmp_path, metadata) as writer:
        for name, found in predictions:
            writer.add(name, found, None)
    # From the first pixel, which VOC calls 1, to the last one inside: 0..10 is 1..10.
    text = {p.name: p.read_text() for p in (tmp_path / "voc").iterdir()}
    assert text == {
        "comp4_det_test_dog.txt": "sub/a 0.750000 1.00 1.00 10.00 20.00\n",
        "comp4_det_test_cat.txt": "sub/a 0.125000 5.50 6.00 8.00 6.25\n",
    }


def test_names_that_voc_cannot_have(tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg and a\.png are one id"):
        check_voc_ids(["a.jpg", "b.jpg", "a.png"])
    with pytest.raises(InputError, match=r"a b\.jpg: VOC's text has no ids with spaces"):
        check_voc_ids(["a b.jpg"])
    with pytest.raises(InputError, match=r"class \.\./x: VOC's text has a file of each class"):
        VocText(tmp_path, Metadata().set(thing_classes=["cat", "../x"]))


def test_a_name_that_is_no_utf8_comes_back(predictions, metadata, tmp_path):
    found = predictions[0][1]
    (image,) = coco([(NOT_UTF8, found)], tmp_path, metadata)["images"]
    assert os.fsencode(image["file_name"]) == b"caf\xe9.jpg"
    with VocText(tmp_path, metadata) as voc, DrawnImages(tmp_path, metadata) as drawn:
        for writer in (voc, drawn):
            writer.add(NOT_UTF8, found, np.zeros((30, 40, 3), np.uint8))
    assert (tmp_path / "voc" / "comp4_det_test_dog.txt").read_bytes().startswith(b"caf\xe9 0.75")
    assert os.listdir(os.fsencode(tmp_path / "images")) == [b"caf\xe9.jpg"]


def test_drawn_images_replace_links_instead_of_following_them(predictions, metadata, tmp_path):
    (other := tmp_path / "other.png").write_bytes(b"kept")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").symlink_to(other)
    with DrawnImages(tmp_path, metadata) as writer:
        writer.add("b.png", predictions[1][1], np.zeros((8, 9, 3), np.uint8))
        writer.add("notes.txt", predictions[1][1], np.zeros((8, 9, 3), np.uint8))
        writer.add(".png", predictions[1][1], np.zeros((8, 9, 3), np.uint8))
    assert other.read_bytes() == b"kept"
    for name in ("b.png", "notes.txt", ".png"):
        with Image.open(tmp_path / "images" / name) as image:
            assert (image.format, image.size) == ("PNG", (9, 8))


def frames(path):
    capture, read = cv2.VideoCapture(str(path)), []
    while (frame := capture.read()[1]) is not None:
        read.append(frame)
    return read


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 48), (63, 49)])
def test_a_video_of_odd_size_loses_no_pixel(width, height, metadata, tmp_path):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, -2:] = pixels[-2:] = 250
    with DrawnVideo(tmp_path, metadata, "clip", 10) as writer:
        for i in range(3):
            writer.add(f"clip_{i}", predicted([], [], [], (height, width)), pixels)
        # A stream may change its size; every frame stays in the video.
        writer.add("clip_3", predicted([], [], [], (24, 32)), np.zeros((24, 32, 3), np.uint8))
    *first, changed = frames(tmp_path / "clip.mp4")
    assert len(first) == 3 and changed.mean() < 20
    even = (height + height % 2, width + width % 2, 3)
    for frame in first:
        assert frame.shape == even
        assert frame[: height - 5, width - 2 :].min() > 150 < frame[height - 2 :].min()
        assert frame[: height - 8, : width - 8].max() < 100


@pytest.fixture
def image(tmp_path):
    (tmp_path / "in").mkdir()
    (path := tmp_path / "in" / "a.jpg").write_bytes(b"")
    return path


def test_outputs_may_lie_beside_inputs(image, tmp_path):
    check_outputs([str(image)], [image.with_name("b.jpg"), tmp_path / "nowhere" / "a.jpg"])


@pytest.mark.parametrize("way", ["same", "dots", "relative", "link", "hard link", "linked folder"])
def test_an_input_is_no_output_by_whatever_path(way, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soft.jpg").symlink_to(image)
    os.link(image, tmp_path / "hard.jpg")
    (tmp_path / "folder").symlink_to(image.parent)
    output = {
        "same": image,
        "dots": image.parent / ".." / "in" / "a.jpg",
        "relative": os.path.join("in", "a.jpg"),
        "link": tmp_path / "soft.jpg",
        "hard link": tmp_path / "hard.jpg",
        "linked folder": tmp_path / "folder" / "a.jpg",
    }[way]
    for inputs, outputs in (([str(image)], [output]), ([str(output)], [image])):
        with pytest.raises(InputError, match=r"the input .* would be overwritten: choose another"):
            check_outputs(inputs, outputs)
