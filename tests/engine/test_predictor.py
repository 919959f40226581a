import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.config import load_config
from mutual_guidance.engine import Predictor, Trainer
from mutual_guidance.engine.predictor import inference_config
from mutual_guidance.errors import CheckpointError, ConfigError, DatasetError, InputError
from tests.conftest import python_of, tiny_config, tiny_model


def assert_equal(one, other):
    assert one.image_size == other.image_size and len(one) == len(other) > 0
    for name in ("scores", "pred_classes"):
        assert torch.equal(one.get(name), other.get(name))
    assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)


def assert_near(one, other, count=50, atol=1e-3):
    """The best of each are in the other; rounding may exchange neighbours, and the last ones."""
    assert one.image_size == other.image_size and len(one) == len(other) > count
    assert torch.allclose(one.scores, other.scores, atol=atol, rtol=0)
    rows = [
        torch.cat([x.pred_boxes.tensor, x.scores[:, None], x.pred_classes[:, None]], dim=1)
        for x in (one, other)
    ]
    for few, all_ in (rows, rows[::-1]):
        apart = (few[:count, None] - all_).abs().amax(dim=2)
        assert apart.amin(dim=1).max() <= atol


def add_images(voc):
    """Three images of different sizes, one of them turned by its EXIF orientation."""
    voc.add("a", [("red", (3, 5, 24, 40))], size=(64, 64))
    voc.add("b", [("green", (10, 15, 50, 35))], size=(90, 60))
    voc.add("c", [("blue", (10, 15, 30, 35))], size=(50, 70))
    path = voc.root / "JPEGImages" / "c.jpg"
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(path) as image:
        turned = image.transpose(Image.Transpose.ROTATE_270)
    turned.save(path, exif=exif)


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["INPUT.SQUARE_SIZE", "0", "INPUT.MIN_SIZE_TEST", "64"],
        ["INPUT.FORMAT", "L", "INPUT.SSD_AUGMENTATION", "False"],
    ],
)
def test_predicts_what_is_evaluated(voc, tiny_run, opts):
    add_images(voc)
    predictor = Predictor.from_run(tiny_run, opts)
    loader = Trainer.build_test_loader(predictor.cfg, predictor.cfg.DATASETS.TEST[0])
    (_, b, c), expected, files = loader.dataset, [], []
    assert (b["width"], b["height"], c["width"], c["height"]) == (90, 60, 50, 70)
    with torch.no_grad():
        for batch in loader:
            files.append(batch[0]["file_name"])
            expected.append(predictor.model(batch)[0]["instances"])
    for got, want in zip(predictor(files, batch_size=1), expected, strict=True):
        assert_equal(got.instances, want)
    # A batch is computed in another order of additions.
    for got, want in zip(predictor(files), expected, strict=True):
        assert_near(got.instances, want)


def test_arrays_are_bgr(voc, tiny_run):
    add_images(voc)
    path = voc.root / "JPEGImages" / "b.jpg"
    predictor = Predictor.from_run(str(tiny_run))
    as_path, as_array = predictor([path, cv2.imread(str(path))], batch_size=1)
    assert_equal(as_path.instances, as_array.instances)
    assert predictor([]) == []


def test_pillow_images_are_those_of_their_files(voc, tiny_run, tmp_path):
    add_images(voc)
    predictor = Predictor.from_run(tiny_run)
    path = voc.root / "JPEGImages" / "c.jpg"  # turned by its EXIF orientation
    with Image.open(path) as image:
        assert image.size == (70, 50)
        assert_equal(predictor(image).instances, predictor(path).instances)
        assert_equal(predictor([image.convert("RGB")])[0].instances, predictor(path).instances)
        assert predictor(image).draw().size == (50, 70)
    with pytest.raises(InputError, match="more than 8 bits a channel .mode I;16., which"):
        predictor(Image.new("I;16", (64, 64)))
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(path.read_bytes()[:700])
    with Image.open(torn) as image, pytest.raises(InputError, match="its file is torn"):
        predictor(image)


def test_one_image_is_one_prediction(voc, tiny_run):
    add_images(voc)
    path = str(voc.root / "JPEGImages" / "b.jpg")
    predictor = Predictor.from_run(tiny_run)
    (of_list,) = predictor([path])
    for image in (path, Path(path), cv2.imread(path)):
        prediction = predictor(image)
        assert_equal(prediction.instances, of_list.instances)
    names = predictor.metadata.thing_classes
    assert prediction.class_names == [names[c] for c in prediction.instances.pred_classes]


def test_draws_what_reaches_the_threshold(voc, tiny_run):
    add_images(voc)
    path = voc.root / "JPEGImages" / "b.jpg"
    prediction = Predictor.from_run(tiny_run)(path)
    with Image.open(path) as image:
        untouched = np.asarray(image)
    assert np.array_equal(prediction.draw(min_score=1.1), untouched)
    assert prediction.draw(min_score=0).size == (90, 60)
    assert (np.asarray(prediction.draw(min_score=0)) != untouched).any()
    in_memory = replace(prediction, image=cv2.imread(str(path)))
    drawn = []
    for one in (prediction, in_memory):
        np.random.seed(0)  # Detectron2 draws the colours
        drawn.append(np.asarray(one.draw(0.2)))
    assert (drawn[0] != untouched).any() and np.array_equal(*drawn)


def test_the_lines_of_the_docs(voc, tiny_run, tmp_path, monkeypatch):
    add_images(voc)
    monkeypatch.chdir(voc.root / "JPEGImages")
    shutil.copytree(tiny_run, "output/quickstart/mutual_guidance")
    exec(python_of("predict.md"), names := {})
    assert [p.instances.image_size for p in names["predictions"]] == [(64, 64), (60, 90)]
    with Image.open("found.png") as image:
        assert image.size == (64, 64)


def test_other_images_are_refused(tiny_run, tmp_path):
    predictor = Predictor.from_run(tiny_run)
    with pytest.raises(InputError, match=r"a\.jpg: image is missing"):
        predictor("a.jpg")
    with pytest.raises(InputError, match=r"none\.jpg: image is missing"):
        predictor([tmp_path / "none.jpg"])
    with pytest.raises(InputError, match=r"must be \(H, W, 3\) uint8, got \(4, 5\) uint8"):
        predictor([np.zeros((4, 5), np.uint8)])
    with pytest.raises(InputError, match="float64"):
        predictor([np.zeros((4, 5, 3))])


def test_a_run_knows_its_classes_without_its_data(voc_entry, tiny_run):
    """The data set is registered without its classes and is not there."""
    config = (tiny_run / "config.yaml").read_text()
    name = voc_entry["name"]
    (tiny_run / "config.yaml").write_text(config.replace(voc_entry["root"], "/nowhere"))
    opts = ["DATASETS.REGISTER", [{k: v for k, v in voc_entry.items() if k != "classes"}]]
    predictor = Predictor.from_run(tiny_run, opts)
    assert "thing_classes" not in MetadataCatalog.get(name).as_dict()
    assert predictor.metadata.thing_classes == ["red", "green", "blue"]
    assert predictor.cfg.MODEL.RETINANET.NUM_CLASSES == 3
    DatasetCatalog.remove(name)


@pytest.mark.parametrize("classes", [[], ["red", "green", "blue"]])
def test_a_run_knows_the_ids_of_its_categories_without_its_data(voc_entry, tiny_run, classes):
    entry = {"name": voc_entry["name"], "format": "coco", "root": "/nowhere",
             "annotations": "a.json", "images": ".", "classes": classes}  # fmt: skip
    entry = {key: value for key, value in entry.items() if value}
    opts = ["DATASETS.REGISTER", [entry], "DATASETS.CATEGORY_IDS", [7, "a", 0]]
    predictor = Predictor.from_run(tiny_run, opts)
    assert predictor.metadata.thing_classes == ["red", "green", "blue"]
    assert predictor.metadata.thing_dataset_id_to_contiguous_id == {7: 0, "a": 1, 0: 2}
    with pytest.raises(ConfigError, match="CATEGORY_IDS has 2 ids for 3 classes"):
        Predictor.from_run(tiny_run, [*opts[:3], [7, 0]])
    DatasetCatalog.remove(entry["name"])


def test_classes_that_nothing_tells(voc_entry, tiny_run):
    del voc_entry["classes"]
    opts = ["DATASETS.CLASSES", [], "DATASETS.REGISTER", [{**voc_entry, "root": "/nowhere"}]]
    config = tiny_run / "config.yaml"
    config.write_text(load_config(str(config), opts).dump())
    with pytest.raises(DatasetError, match="/nowhere/Annotations is missing"):
        Predictor.from_run(tiny_run)


def test_folders_that_are_no_run(tmp_path, tiny_run):
    with pytest.raises(ConfigError, match="has no config.yaml: name the OUTPUT_DIR"):
        Predictor.from_run(tmp_path)
    (tiny_run / "model_final.pth").unlink()
    with pytest.raises(ConfigError, match="has no checkpoint: train first"):
        Predictor.from_run(tiny_run)


def test_weights_that_are_missing_torn_or_of_another_model(tiny_run):
    config, weights = str(tiny_run / "config.yaml"), tiny_run / "model_final.pth"

    def load(path):
        Predictor(inference_config(config, str(path)))

    load(weights)
    with pytest.raises(ConfigError, match=r"there is no file .*none\.pth"):
        load(tiny_run / "none.pth")
    torn = shutil.copy(weights, tiny_run / "torn.pth")
    with open(torn, "r+b") as f:
        f.truncate(1000)
    with pytest.raises(CheckpointError, match=r"torn\.pth holds no weights"):
        load(torn)
    four_classes = tiny_model(tiny_config("retinanet_R_18", "MODEL.RETINANET.NUM_CLASSES", 4))
    Checkpointer(four_classes, save_dir=str(tiny_run)).save("other")
    with pytest.raises(CheckpointError, match="of another architecture: it lacks"):
        load(tiny_run / "other.pth")
