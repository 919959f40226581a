"""The configs are built, trained for a step, and run."""

import math
from pathlib import Path

import pytest
import torch
from detectron2.model_zoo import get_config
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Boxes

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher
from mutual_guidance.config import load_config
from mutual_guidance.data.voc import collect_classes, load_voc
from tests.conftest import REPOSITORY, make_instances

ALL_CONFIGS = sorted(
    str(path.relative_to(REPOSITORY / "configs"))
    for path in (REPOSITORY / "configs").glob("*/*.yaml")
)
DETECTORS = [config for config in ALL_CONFIGS if config.startswith("detectors")]
# Those of data sets, whose detectors are the same. The drawn set's has fewer levels.
COPIES = [config for config in ALL_CONFIGS if not config.startswith(("detectors", "Shapes"))]
# Millions of parameters with 20 and with 80 classes: the project's recipe.
PARAMETERS = {
    "fssd_R_18": (16.28, 19.60),
    "fssd_VGG_16": (19.27, 22.59),
    "retinanet_R_18": (18.91, 22.22),
    "retinanet_VGG_16": (21.89, 25.21),
    "rfbnet_VGG_16": (23.04, 28.85),
}


def build(config, device="cpu"):
    cfg = load_config(str(REPOSITORY / "configs" / config), ["MODEL.DEVICE", device])
    return build_model(cfg)


@pytest.mark.parametrize("folder", ["detectors", "COCO-Detection"])
def test_the_stock_detectors_have_detectron2s_start_and_schedule(folder):
    stock = get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    for name in ("retinanet_R_50_FPN", "fcos_R_50_FPN"):
        cfg = load_config(str(REPOSITORY / "configs" / folder / f"{name}.yaml"))
        assert cfg.MODEL.WEIGHTS == stock.MODEL.WEIGHTS and cfg.SOLVER.EPOCHS == 0.0
        assert stock.INPUT.items() <= cfg.INPUT.items()
        for key in ("MAX_ITER", "STEPS", "BASE_LR", "IMS_PER_BATCH", "WARMUP_ITERS", "GAMMA"):
            assert cfg.SOLVER[key] == stock.SOLVER[key], key


def half_empty_batch(side):
    """One image with a huge and a tiny object, one without any."""
    gts = [make_instances([[0, 0, side, side], [40, 40, 42, 43]], [0, 2]), make_instances([], [])]
    return [{"image": torch.rand(3, side, side) * 255, "instances": gt} for gt in gts]


def set_strategy(model, strategy):
    """Exchange the matcher, so that a model is built once for all strategies."""
    model.matcher = model.matcher.with_strategy(strategy)


@pytest.mark.parametrize("config", [*DETECTORS, "Shapes/retinanet_R_18.yaml"])
def test_trains_and_infers(config, storage):
    model = build(config)
    # Labels know anchors from points and nothing else of a detector.
    all_strategies = Path(config).stem in ("fssd_R_18", "fcos_R_18")
    side = max(64, model.backbone.size_divisibility)
    for strategy in STRATEGIES if all_strategies else ("mutual_guidance",):
        set_strategy(model, strategy)
        model.zero_grad()
        losses = model(half_empty_batch(side))
        assert all(torch.isfinite(v) for v in losses.values()), (strategy, losses)
        sum(losses.values()).backward()
        without = [
            name
            for name, p in model.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
        ]
        assert not without, (strategy, without)
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, side, side), "height": 60, "width": 90}])
    assert output["instances"].image_size == (60, 90)


@pytest.mark.parametrize("config", COPIES)
def test_the_config_of_a_data_set_is_a_detector_and_the_data(config):
    path = REPOSITORY / "configs" / config
    # What the data decide: initial weights and classes.
    data = ["MODEL.WEIGHTS", "", "MODEL.RETINANET.NUM_CLASSES", 7, "MODEL.FCOS.NUM_CLASSES", 7]
    copy, detector = (
        load_config(str(p), data) for p in (path, path.parents[1] / "detectors" / path.name)
    )
    assert copy.MODEL == detector.MODEL
    assert copy.DATASETS.TRAIN and copy.DATASETS.TEST
    assert f"output/{Path(config).with_suffix('')}" == copy.OUTPUT_DIR


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("column", [0, 1])
def test_parameters_are_the_recipes(name, column):
    folder = ("PascalVOC-Detection", "COCO-Detection")[column]
    with torch.device("meta"):
        model = build(f"{folder}/{name}.yaml", device="meta")
    count = sum(p.numel() for p in model.parameters())
    # The recipe rounds to 0.01 million, and counts up to 0.01 million biases before a BatchNorm.
    assert count / 1e6 == pytest.approx(PARAMETERS[name][column], abs=0.015)


@pytest.mark.parametrize(
    ("config", "side", "count"),
    [
        ("fssd_R_18", 320, 12750),  # 6 * (40^2 + 20^2 + 10^2 + 5^2)
        ("rfbnet_VGG_16", 320, 12750),
        ("fcos_R_18", 320, 2125),  # one point a location
        ("retinanet_VGG_16_512", 512, 32736),  # 6 * (64^2 + 32^2 + 16^2 + 8^2 + 4^2)
    ],
)
def test_anchors(config, side, count):
    model = build(f"PascalVOC-Detection/{config}.yaml")
    shapes = [model.backbone.output_shape()[f] for f in model.head_in_features]
    features = [torch.zeros(1, 1, side // s.stride, side // s.stride) for s in shapes]
    anchors = model.anchor_generator(features)
    assert sum(map(len, anchors)) == count
    for level, shape in zip(anchors, shapes, strict=True):
        # Mirrored with the image: the first centre is as far from its border as the last one.
        first, last = level.get_centers()[[0, -1]]
        assert first.tolist() == [shape.stride / 2] * 2
        assert last.tolist() == [side - shape.stride / 2] * 2


def test_learning_rate_warms_up_to_its_base_and_then_falls_as_a_cosine():
    cfg = load_config(
        str(REPOSITORY / "configs/PascalVOC-Detection/fssd_R_18.yaml"), ["SOLVER.MAX_ITER", "2500"]
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(2500):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    measured = [rates[i] for i in (0, 250, 500, 1000, 1500, 2499)]
    quarter = math.cos(math.pi / 4) / 2 + 0.5
    expected = [1e-6, 0.005, 0.01, 0.01 * quarter, 0.005, 1e-6]
    assert measured == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("data", ["BCCD", "NEU-DET"])
def test_anchors_give_real_objects_several_positives(data, real_data):
    # Anchors that shrink with the image leave some 4 an object, the paper's 8 or more: small
    # objects are then those of the finest level, where anchors are dense.
    cfg = load_config(
        str(REPOSITORY / "configs" / data / "fssd_R_18.yaml"), ["MODEL.DEVICE", "cpu"]
    )
    side = cfg.INPUT.SQUARE_SIZE
    sizes = [torch.zeros(1, 1, side // s, side // s) for s in (8, 16, 32, 64)]
    anchors = Boxes.cat(build_model(cfg).anchor_generator(sizes)).tensor
    classes, _ = collect_classes(str(real_data / data))
    records, _ = load_voc(str(real_data / data), "train", classes, check_images=False)
    boxes = [scaled_boxes(record, side) for record in records[:50]]
    labels = AnchorMatcher("static", num_classes=1)(
        anchors, boxes, [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    )
    assert labels.loc_mask.sum() / sum(map(len, boxes)) > 6


def scaled_boxes(record, side):
    """The boxes (M, 4) of a record, warped to the square."""
    boxes = torch.from_numpy(record.objects["box"]).float()
    return boxes * torch.tensor([side / record.width, side / record.height]).repeat(2)


def test_detectors_refuse_a_pyramid_of_another():
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / "fssd_R_18.yaml"
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_top_down_resnet_backbone"]
    with pytest.raises(TypeError, match="FSSD is built on a FSSDPyramid, .* TopDownPyramid"):
        build_model(load_config(str(config), opts))
