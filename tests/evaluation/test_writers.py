import json

import pytest
import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO

from mutual_guidance.evaluation.writers import Prediction, coco_dataset, voc_id, write_voc


@pytest.fixture
def predictions():
    """Two boxes in an image of 40x30 pixels, none in another."""
    found = Instances(
        (30, 40),
        pred_boxes=Boxes(torch.tensor([[0.0, 0.0, 10.0, 20.0], [4.5, 5.0, 8.0, 6.25]])),
        scores=torch.tensor([0.75, 0.125]),
        pred_classes=torch.tensor([1, 0]),
    )
    none = Instances(
        (8, 9),
        pred_boxes=Boxes(torch.zeros(0, 4)),
        scores=torch.zeros(0),
        pred_classes=torch.zeros(0, dtype=torch.int64),
    )
    return [Prediction("sub/a.jpg", found), Prediction("b.png", none)]


@pytest.fixture
def metadata():
    return Metadata().set(thing_classes=["cat", "dog"])


def test_coco(predictions, metadata, tmp_path):
    dataset = coco_dataset(predictions, metadata)
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
    (tmp_path / "a.json").write_text(json.dumps(dataset))
    assert COCO(str(tmp_path / "a.json")).getAnnIds(imgIds=[1], catIds=[2]) == [1]


def test_categories_of_coco_keep_their_ids(predictions):
    dataset = coco_dataset(predictions, MetadataCatalog.get("coco_2017_val"))
    assert [c["id"] for c in dataset["categories"]][:12] == [*range(1, 12), 13]  # COCO has no 12
    assert dataset["categories"][11] == {"id": 13, "name": "stop sign"}


def test_ids_of_voc_lose_the_suffix_of_an_image_alone():
    names = ["sub/a.b.JPG", "my.holiday_000000", "v1.2/scan"]
    assert [voc_id(name) for name in names] == ["sub/a.b", "my.holiday_000000", "v1.2/scan"]


def test_voc(predictions, metadata, tmp_path):
    write_voc(predictions, metadata.thing_classes, str(tmp_path))
    # From the first pixel, which VOC calls 1, to the last one inside: 0..10 is 1..10.
    text = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert text == {
        "comp4_det_test_dog.txt": "sub/a 0.750000 1.00 1.00 10.00 20.00\n",
        "comp4_det_test_cat.txt": "sub/a 0.125000 5.50 6.00 8.00 6.25\n",
    }
