import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mutual_guidance.config import load_config
from mutual_guidance.data import build_mapper
from mutual_guidance.data.augmentation import (
    ExpandTransform,
    MinIoURandomCrop,
    RandomPlace,
    RandomShrink,
    _covers,
    build_augmentations,
)
from mutual_guidance.data.images import image_size
from mutual_guidance.errors import DatasetError
from tests.conftest import REPOSITORY

SIZE = 96


def mapper(is_train=True, **overrides):
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / "fssd_R_18.yaml"
    cfg = load_config(str(config), ["INPUT.SQUARE_SIZE", str(SIZE)])
    for key, value in overrides.items():
        setattr(cfg.INPUT, key, value)
    return build_mapper(cfg, is_train)


@pytest.fixture
def record(tmp_path):
    """A grey image with three flat rectangles of pure red, green and blue."""
    image = np.full((120, 160, 3), 90, np.uint8)
    boxes = [[10, 12, 60, 52], [70, 30, 150, 110], [20, 70, 50, 115]]  # XYXY
    for colour, (x0, y0, x1, y1) in zip(np.eye(3) * 255, boxes, strict=True):
        image[y0:y1, x0:x1] = colour[::-1]
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, image)
    annotations = [
        {"bbox": [float(v) for v in box], "bbox_mode": BoxMode.XYXY_ABS, "category_id": i}
        for i, box in enumerate(boxes)
    ]
    return {
        "file_name": path, "image_id": 1, "height": 120, "width": 160, "annotations": annotations
    }  # fmt: skip


def painted_box(image, channel):
    """Tight box of the pixels where a channel stands out; image (3, H, W)."""
    others = [c for c in range(3) if c != channel]
    mask = (image[channel].float() - image[others].float().amax(dim=0)) > 60
    ys, xs = mask.nonzero(as_tuple=True)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


@pytest.mark.parametrize("how", ["horizontal", "vertical", "none"])
@pytest.mark.parametrize("ssd", [True, False])
def test_the_augmentations_and_what_they_take_from_the_config(how, ssd):
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / "fssd_R_18.yaml"
    opts = ["INPUT.SSD_AUGMENTATION", ssd, "INPUT.RANDOM_FLIP", how, "INPUT.FORMAT", "BGR"]
    cfg = load_config(config, opts)
    found = build_augmentations(cfg, is_train=True)
    flips = [f for f in found if isinstance(f, T.RandomFlip)]
    assert [(f.horizontal, f.vertical) for f in flips] == (
        [] if how == "none" else [(how == "horizontal", how == "vertical")]
    )
    if not ssd:
        assert isinstance(found[-1], T.Resize)
        return
    shrink, colour, place, *_ = found
    assert isinstance(shrink, RandomShrink) and shrink.size == place.size == cfg.INPUT.SQUARE_SIZE
    assert isinstance(colour, ColorAugSSDTransform) and not colour.is_rgb
    assert isinstance(place, RandomPlace) and place.color == cfg.MODEL.PIXEL_MEAN


def test_boxes_follow_the_painted_objects(record, monkeypatch):
    # Without the colours being changed, the boxes can be read off the image again.
    monkeypatch.setattr(
        "mutual_guidance.data.augmentation.ColorAugSSDTransform", lambda **_: T.NoOpTransform()
    )
    mapped = mapper()
    seen = 0
    for _ in range(150):
        output = mapped(record)
        assert output["image"].shape == (3, SIZE, SIZE)
        instances = output["instances"]
        assert len(instances) > 0
        for box, c in zip(instances.gt_boxes.tensor, instances.gt_classes.tolist(), strict=True):
            # Enlarging interpolations blur an edge by about the scale, at most 3 here.
            assert painted_box(output["image"], c) == pytest.approx(box.tolist(), abs=4)
            seen += 1
    assert seen > 200


def test_a_box_whose_centre_is_cropped_off_is_dropped(record):
    mapped = mapper()
    counts = {len(mapped(record)["instances"]) for _ in range(100)}
    assert counts <= {1, 2, 3} and len(counts) > 1


def test_specks_are_dropped_and_the_plain_image_taken_where_none_is_left(record):
    record["annotations"] = record["annotations"][:1]
    record["annotations"][0]["bbox"] = [10, 10, 11, 11]  # 0.6 % of the width
    for _ in range(20):
        output = mapper()(record)
        assert len(output["instances"]) == 1
    plain = mapper(SSD_AUGMENTATION=False, is_train=False)(record)
    assert torch.equal(output["image"], plain["image"])


def test_image_without_objects(record):
    record["annotations"] = []
    assert len(mapper()(record)["instances"]) == 0
    del record["annotations"]  # as Detectron2 allows
    for ssd in (True, False):
        assert len(mapper(SSD_AUGMENTATION=ssd)(record)["instances"]) == 0


def test_crowd_regions_are_left_out(record):
    record["annotations"][0]["iscrowd"] = 1
    for _ in range(20):
        assert 0 not in mapper()(record)["instances"].gt_classes


def test_boxes_beyond_the_image_are_clipped(record):
    record["annotations"][0]["bbox"] = [-50.0, -50.0, 300.0, 300.0]
    for augmented in (True, False):
        boxes = mapper(SSD_AUGMENTATION=augmented)(record)["instances"].gt_boxes.tensor
        assert boxes.min() >= 0 and boxes.max() <= SIZE


def test_five_thousand_boxes(record):
    corners = np.random.rand(5000, 2) * (140, 100)
    record["annotations"] = [
        {"bbox": [x, y, x + 20, y + 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        for x, y in corners
    ]
    assert len(mapper(SSD_AUGMENTATION=False)(record)["instances"]) == 5000
    assert len(mapper()(record)["instances"]) > 0


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_kind_of_image_becomes_rgb(record, tmp_path, mode):
    path = str(tmp_path / f"image.{'jpg' if mode == 'CMYK' else 'png'}")
    Image.open(record["file_name"]).convert(mode).save(path)
    assert image_size(path) == (160, 120)
    output = mapper()({**record, "file_name": path})
    assert output["image"].shape == (3, SIZE, SIZE) and len(output["instances"]) > 0


def test_turned_image_is_read_upright(record, tmp_path):
    upright = Image.open(record["file_name"])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    path = str(tmp_path / "turned.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert image_size(path) == (160, 120)
    plain = mapper(SSD_AUGMENTATION=False, is_train=False)
    expected = plain(record)["image"]
    assert torch.equal(plain({**record, "file_name": path})["image"], expected)


def test_image_of_one_pixel(record, tmp_path):
    path = str(tmp_path / "pixel.png")
    cv2.imwrite(path, np.full((1, 1, 3), 7, np.uint8))
    annotations = [{**record["annotations"][0], "bbox": [0.0, 0.0, 1.0, 1.0]}]
    pixel = {**record, "file_name": path, "width": 1, "height": 1, "annotations": annotations}
    for _ in range(20):
        output = mapper()(pixel)
        assert output["image"].shape == (3, SIZE, SIZE) and len(output["instances"]) == 1


def test_image_of_12000_pixels_a_side(record, tmp_path):
    image = np.full((12_000, 12_000), 90, np.uint8)
    image[3_000:6_000, 4_000:8_000] = 250
    path = str(tmp_path / "huge.png")
    cv2.imwrite(path, image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert image_size(path) == (12_000, 12_000)
    annotations = [{**record["annotations"][0], "bbox": [4_000.0, 3_000.0, 8_000.0, 6_000.0]}]
    huge = {**record, "file_name": path, "width": 12_000, "height": 12_000}
    output = mapper()({**huge, "annotations": annotations})
    assert output["image"].shape == (3, SIZE, SIZE) and len(output["instances"]) == 1


@pytest.mark.parametrize("augmented", [True, False])
def test_image_that_turned_bad_is_named(record, augmented):
    with open(record["file_name"], "r+b") as f:
        f.truncate(100)
    with pytest.raises(DatasetError, match=r"image\.png cannot be used: .*truncated"):
        mapper(SSD_AUGMENTATION=augmented)(record)


def test_a_line_of_pixels_that_nothing_is_left_of_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "line.png"), np.zeros((1, 3000, 3), np.uint8))
    record = {"file_name": str(tmp_path / "line.png"), "height": 1, "width": 3000}
    with pytest.raises(DatasetError, match=r"line\.png cannot be used: height and width must be"):
        mapper(is_train=False, SQUARE_SIZE=0)(record)


def test_expansion(record):
    transform = ExpandTransform(2, 1, 3, 4, color=(10.2, 20, 30))
    image = transform.apply_image(np.full((5, 6, 3), 200, np.uint8))
    assert image.shape == (10, 11, 3)
    assert image[0, 0].tolist() == [10, 20, 30] and image[1, 2].tolist() == [200, 200, 200]
    assert (image == 200).all(axis=2).sum() == 30
    assert transform.apply_box(np.array([[0, 0, 6, 5]])).tolist() == [[2, 1, 8, 6]]


@st.composite
def sized_boxes(draw):
    """Height and width of an image, and up to five boxes in it, in whole pixels or not."""
    height, width = draw(st.tuples(*[st.integers(1, 60)] * 2))
    share = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    corners = draw(st.lists(st.tuples(*[share] * 4), max_size=5))
    boxes = np.array(corners, np.float64).reshape(-1, 2, 2) * (width, height)
    boxes = np.concatenate((boxes.min(axis=1), boxes.max(axis=1)), axis=1)
    return (height, width), boxes.round() if draw(st.booleans()) else boxes


@settings(max_examples=60)
@given(sized_boxes(), st.integers(0, 2**32 - 1))
def test_crops_are_detectron2s_from_the_same_random_numbers(image_and_boxes, seed):
    (height, width), boxes = image_and_boxes
    image, drawn = np.zeros((height, width, 3), np.uint8), []
    for crop in (T.MinIoURandomCrop(), MinIoURandomCrop()):
        np.random.seed(seed)
        transforms = [crop.get_transform(image, boxes) for _ in range(4)]
        drawn.append([(type(t), vars(t)) for t in transforms] + [np.random.random()])
    assert drawn[0] == drawn[1]


def test_a_crop_of_just_the_iou_is_taken():
    for min_iou, right in ((0.1, 10), (0.3, 30), (0.7, 70), (0.9, 90)):
        box = np.array([[0.0, 0, right, 100]])
        patch = (0.0, 0.0, 100.0, 100.0)
        min_iou = np.float64(min_iou)  # as drawn
        assert _covers(patch, box, min_iou)  # 0.7 and 0.9 of float32 are below those of float64
        assert not _covers(patch, box - (0, 0, 0.01, 0), min_iou)


def test_shrinking_is_as_probable_and_strong_as_asked():
    image = np.zeros((50, 200, 3), np.uint8)
    augmentation = RandomShrink(SIZE)
    sizes = [augmentation.get_transform(image).apply_image(image).shape[:2] for _ in range(400)]
    sizes = np.array(sizes)
    assert (sizes <= SIZE).all()
    assert 0.5 < (sizes < SIZE).any(axis=1).mean() < 0.7
    # The canvas is s * r times as wide and s / r times as high, with s up to 4 and r² within 1/2
    # and 2, so that the aspect ratio changes by up to 2; the pixels are whole.
    ratio = SIZE / np.sqrt(sizes.prod(axis=1))
    assert 3.8 < ratio.max() < 4.1
    stretch = sizes[:, 0] / sizes[:, 1]
    assert 0.48 < stretch.min() < 0.56 and 1.8 < stretch.max() < 2.1
    assert 0.2 < (stretch[stretch != 1] < 1).mean() < 0.47  # r² is uniform: below 1 in a third


def test_little_shrinking_stretches_little():
    image = np.zeros((50, 200, 3), np.uint8)
    augmentation = RandomShrink(SIZE, prob=1.0, max_ratio=1.2)
    for _ in range(100):  # 1 / s² <= r² <= s² keeps both sides within the canvas
        height, width = augmentation.get_transform(image).apply_image(image).shape[:2]
        assert SIZE / 1.2**2 - 1 < min(height, width) <= max(height, width) <= SIZE


def test_image_lies_anywhere_on_the_canvas():
    image = np.full((SIZE // 2, SIZE // 2, 3), 200, np.uint8)
    augmentation = RandomPlace(SIZE, (0, 0, 0))
    placed = [augmentation.get_transform(image).apply_image(image) for _ in range(200)]
    assert {canvas.shape for canvas in placed} == {(SIZE, SIZE, 3)}
    assert all((canvas == 200).sum() == image.size for canvas in placed)
    corners = np.array([np.argwhere(canvas[..., 0] == 200)[0] for canvas in placed])
    assert (corners.min(axis=0) < 5).all() and (corners.max(axis=0) > SIZE // 2 - 5).all()
    full = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert augmentation.get_transform(full).apply_image(full).shape == full.shape


def test_only_flips_without_ssd_augmentation(record):
    boxes = {
        tuple(mapper(SSD_AUGMENTATION=False)(record)["instances"].gt_boxes.tensor[0].tolist())
        for _ in range(20)
    }
    x0, x1 = 10 * SIZE / 160, 60 * SIZE / 160
    y0, y1 = 12 * SIZE / 120, 52 * SIZE / 120
    expected = {(x0, y0, x1, y1), (SIZE - x1, y0, SIZE - x0, y1)}
    assert {tuple(round(v, 3) for v in b) for b in boxes} == {
        tuple(round(v, 3) for v in b) for b in expected
    }
