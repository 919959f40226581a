from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from mutual_guidance.config import load_config
from mutual_guidance.data import register_datasets
from mutual_guidance.errors import DatasetError
from mutual_guidance.visualization import first_annotated, images, load_image, with_ids
from tests.runs import CONFIG


@pytest.fixture
def dataset(voc, voc_entry):
    """Name of a set of an empty image and two with objects."""
    voc.add("empty", [])
    voc.add("a", [("red", (1, 1, 32, 16)), ("blue", (33, 33, 64, 64))])
    voc.add("b", [("green", (9, 9, 40, 40))])
    register_datasets([voc_entry])
    return voc_entry["name"]


def stems(records):
    return [r["image_id"] for r in records]


def test_first_annotated(dataset):
    assert stems(first_annotated([dataset], 1)) == ["a"]
    assert stems(first_annotated([dataset], 9)) == ["a", "b"]
    assert stems(first_annotated([dataset, dataset], 9)) == ["a", "b"]  # one file, one picture


def test_crowds_are_no_objects(dataset, monkeypatch):
    records = DatasetCatalog.get(dataset)
    for annotation in records[1]["annotations"]:
        annotation["iscrowd"] = 1
    monkeypatch.setattr(DatasetCatalog, "get", lambda _: records)
    assert stems(first_annotated([dataset], 9)) == ["b"]


def test_names_that_are_no_utf8_are_shown_as_escapes(dataset, monkeypatch):
    (record,) = first_annotated([dataset], 1)
    config = load_config(CONFIG, ["INPUT.SQUARE_SIZE", 64])
    monkeypatch.setattr(images, "_stem", lambda record: "caf\udce9")
    assert load_image(config, record).name == "caf\\udce9"


def test_a_damaged_image_is_named(dataset):
    (record,) = first_annotated([dataset], 1)
    path = Path(record["file_name"])
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"a\.jpg cannot be used: image cannot be read"):
        load_image(load_config(CONFIG), record)


def test_an_image_of_which_nothing_is_left_is_named(dataset, tmp_path):
    (record,) = first_annotated([dataset], 1)
    record.update(file_name=str(tmp_path / "line.png"), width=4000, height=1)
    Image.new("RGB", (4000, 1)).save(record["file_name"])
    with pytest.raises(DatasetError, match=r"line\.png cannot be used: height and width must be"):
        load_image(load_config(CONFIG, ["INPUT.SQUARE_SIZE", 0]), record)


def test_with_ids(dataset):
    assert stems(with_ids([dataset], ["b", "a"])) == ["b", "a"]
    with pytest.raises(DatasetError, match="no image 'bb' in .*for example, b"):
        with_ids([dataset], ["bb"])
    with pytest.raises(DatasetError, match="'empty' .* has no object"):
        with_ids([dataset], ["empty"])
    with pytest.raises(DatasetError, match="the same file name"):
        with_ids([dataset], ["a", "a"])


def test_with_names_of_files(dataset, monkeypatch):
    records = [{**r, "image_id": i} for i, r in enumerate(first_annotated([dataset], 2))]
    monkeypatch.setattr(images, "_records", lambda names: records)
    assert with_ids([dataset], ["b", "0"]) == with_ids([dataset], [1, 0]) == records[::-1]
    with pytest.raises(DatasetError, match="no image '7'"):
        with_ids([dataset], [7])


@pytest.mark.parametrize("wanted", ["7", "a"])
def test_what_two_images_are_called_is_refused(wanted, dataset, monkeypatch):
    (record,) = first_annotated([dataset], 1)
    other = {**record, "file_name": "elsewhere/a.jpg", "image_id": "7"}
    monkeypatch.setattr(images, "_records", lambda names: [{**record, "image_id": "7"}, other])
    with pytest.raises(DatasetError, match=r"means several images, .*a\.jpg and elsewhere/a\.jpg"):
        with_ids([dataset], [wanted])
    # Of two data sets the same file is one image.
    monkeypatch.setattr(images, "_records", lambda names: [record, record])
    assert with_ids([dataset], ["a"]) == [record]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_load_image_resizes_image_and_boxes(dataset, image_format):
    cfg = load_config(CONFIG, ["INPUT.SQUARE_SIZE", 128, "INPUT.FORMAT", image_format])
    (record,) = with_ids([dataset], ["a"])
    image = load_image(cfg, record)
    assert image.name == "a" and image.pixels.shape == (128, 128, 3)
    assert image.inputs["image"].shape == (3, 128, 128)
    # 64 pixels become 128: (0, 0, 32, 16) and (32, 32, 64, 64) double.
    boxes = image.inputs["instances"].gt_boxes.tensor.tolist()
    assert boxes == [[0, 0, 64, 32], [64, 64, 128, 128]]
    # The first object is red whatever the order of the detector's channels is.
    red, green, blue = image.pixels[10, 10].tolist()
    assert red > 200 > 60 > max(green, blue)
    assert record["annotations"][0]["bbox"] == [0, 0, 32, 16]  # the record stays
