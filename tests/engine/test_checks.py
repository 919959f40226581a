import re
from contextlib import nullcontext
from urllib.error import URLError

import pytest
import torch
import torchvision
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone

from mutual_guidance.checkpoint import TorchvisionHandler, rename_torchvision
from mutual_guidance.config import load_config
from mutual_guidance.engine.checks import (
    check_batch,
    check_values,
    check_weights,
    warn_of_slow_statistics,
)
from mutual_guidance.errors import ConfigError
from mutual_guidance.modeling.backbone.fssd import build_top_down_resnet_backbone
from tests.conftest import REPOSITORY
from tests.runs import CONFIG

RFBNET = str(REPOSITORY / "configs" / "BCCD" / "rfbnet_VGG_16.yaml")
STOCK = ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE"]
SHARED = ["MODEL.MUTUAL_GUIDANCE.HEAD", "shared"]
STOCK_GN = [*STOCK, "smooth_l1", "MODEL.RETINANET.NORM", "GN"]
FASTER_RCNN = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
GREY = ["INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", [1.0], "MODEL.PIXEL_STD", [1.0]]


def test_a_batch_that_the_processes_cannot_share():
    cfg = load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", 16])
    check_batch(cfg, 4)
    message = "16 cannot be divided among 3 processes: set it to a multiple, as 15"
    with pytest.raises(ConfigError, match=message):
        check_batch(cfg, 3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.MUTUAL_GUIDANCE.STRATEGY", "mutual", "unknown strategy 'mutual'; choose one of"),
        ("MODEL.MUTUAL_GUIDANCE.SIGMA", 1.0, "sigma must be above 1"),
        ("MODEL.MUTUAL_GUIDANCE.NUM_POSITIVES", "dynamic", "choose one of static, dynamic_k"),
        ("MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", -1, "must be 0 or more, got -1"),
        ("MODEL.MUTUAL_GUIDANCE.HEAD", "per-level", "must be one of per_level, shared"),
        ("MODEL.RETINANET.IOU_THRESHOLDS", [0.5, 0.4], "must ascend"),
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "l2", "one of smooth_l1, .*balanced_l1, got 'l2'"),
        ("MODEL.RETINANET.FOCAL_LOSS_GAMMA", -1.0, "GAMMA must be 0 or more .*, got -1.0"),
        ("SOLVER.AMP.PRECISION", "float8", "must be one of auto, float16, bfloat16, got 'float8'"),
        ("SOLVER.IMS_PER_BATCH", 0, "must be 1 or more, got 0"),
        ("SOLVER.HANG_SECONDS", -1.0, "must be 0 or more, got -1.0"),
        ("SOLVER.CHECKPOINT_PERIOD", 0, "must be 1 or more, got 0"),
        ("SOLVER.BASE_LR", 0.0, "must be above 0, got 0.0"),
        ("SOLVER.MOMENTUM", None, "must be 0 or more, got None"),
        ("SOLVER.WEIGHT_DECAY", -1.0, "must be 0 or more"),
        ("SOLVER.LR_SCHEDULER_NAME", "Cosine", "must be one of WarmupMultiStepLR, "),
        ("SOLVER.WARMUP_METHOD", "cubic", "must be one of constant, linear, got 'cubic'"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "l2", "must be one of value, norm"),
        ("DATALOADER.SAMPLER_TRAIN", "Sampler", "must be one of TrainingSampler, "),
        ("DATALOADER.NUM_WORKERS", -1, "must be 0 or more, got -1"),
        ("TEST.PRECISE_BN.NUM_ITER", 0, "must be 1 or more, got 0"),
        ("SOLVER.MAX_WARMUP_SHARE", -0.5, "must be 0 or more, got -0.5"),
        ("INPUT.SQUARE_SIZE", -64, "must be 0 or more, got -64"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "all", "must be one of choice, range"),
        ("MODEL.MUTUAL_GUIDANCE.SIGMA", float("inf"), "sigma must be above 1 and finite"),
        ("MODEL.RETINANET.IOU_LABELS", [0, 0, 1], "has no effect .* make both of IOU_THRESHOLDS"),
        ("INPUT.RANDOM_FLIP", "both", "must be one of horizontal, vertical, none, got 'both'"),
        ("INPUT.FORMAT", "HSV", "must be one of BGR, RGB, L, got 'HSV'"),
        ("INPUT.CROP.ENABLED", True, "has no effect on the detectors of this project"),
        ("TEST.AUG.ENABLED", True, "has no effect on the detectors of this project"),
        ("MODEL.RETINANET.BALANCED_L1_ALPHA", 0.0, "must be above 0, got 0.0"),
        ("MODEL.RETINANET.BALANCED_L1_GAMMA", 0.0, "must be above 0, got 0.0"),
        ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", -1, "must be 1 or more, got -1"),
        ("MODEL.FCOS.TOPK_CANDIDATES_TEST", 0, "must be 1 or more, got 0"),
        ("TEST.DETECTIONS_PER_IMAGE", -1, "must be 1 or more, got -1"),
        ("MODEL.PYRAMID.NUM_LEVELS", 5, "leave out p6, p7 of the pyramid: set .*NUM_LEVELS to 3"),
        ("MODEL.PYRAMID.IN_FEATURES", ["res3", "res4"], "leave out res5 of MODEL.RESNETS.OUT_FEA"),
        ("SOLVER.EMA_DECAY", 1.0, r"must be in \[0, 1\), got 1.0"),
        ("SEED", 2**32, "SEED must be at most 2\\*\\*32 less the number of processes"),
    ],
)
def test_wrong_values_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        check_values(load_config(CONFIG, [key, value]))


@pytest.mark.parametrize(
    ("config", "fine", "refused", "message"),
    [
        (
            CONFIG,
            [*SHARED, "MODEL.RETINANET.NUM_CONVS", 2],
            ["MODEL.RETINANET.NUM_CONVS", 2],
            "RETINANET.NUM_CONVS 2 has no effect with .*HEAD per_level",
        ),
        (CONFIG, STOCK_GN, ["MODEL.RETINANET.NORM", "GN"], "RETINANET.NORM 'GN' has no effect"),
        (RFBNET, [], ["MODEL.BACKBONE.FREEZE_AT", 2], "has no effect on VGG-16: set it to 0"),
        (RFBNET, [], ["MODEL.MUTUAL_GUIDANCE.HEAD", "shared"], "same channels .* to per_level"),
        (RFBNET, [], [*GREY, "INPUT.SSD_AUGMENTATION", False], "VGG-16 takes three channels"),
        (
            CONFIG,
            ["SOLVER.MAX_ITER", 0],  # it has epochs
            ["SOLVER.MAX_ITER", 0, "SOLVER.EPOCHS", 0.0],
            "SOLVER.MAX_ITER, where .* must be 1 or more",
        ),
        (
            CONFIG,
            [*STOCK, "giou"],
            [*STOCK, "balanced_l1"],
            "balanced_l1 is unknown to Detectron2's RetinaNet",
        ),
        (
            CONFIG,
            ["TEST.MISALIGNMENT", True],
            [*FASTER_RCNN, "TEST.MISALIGNMENT", True],
            "RetinaNet.* not GeneralizedRCNN",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(config, fine, refused, message):
    check_values(load_config(config, fine))
    with pytest.raises(ConfigError, match=message):
        check_values(load_config(config, refused))


def test_augmented_testing_is_refused_where_it_would_be_tested():
    with pytest.raises(ConfigError, match="TEST.AUG.ENABLED has no effect"):
        check_values(load_config(CONFIG, ["TEST.AUG.ENABLED", True]), for_training=False)


def test_the_last_of_vggs_maps_is_not_left_out(monkeypatch):
    config = str(REPOSITORY / "configs" / "PascalVOC-Detection" / "fssd_VGG_16.yaml")
    cfg = load_config(config, ["MODEL.PYRAMID.IN_FEATURES", ["conv4_3"]])
    check_values(cfg)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="leave out conv5_3, VGG-16's last: add it"):
        check_values(cfg)


FINER = ["MODEL.RETINANET.IN_FEATURES", ["p4", "p5"], "MODEL.ANCHOR_GENERATOR.SIZES", [[48], [96]]]


def test_finer_levels_are_left_out_of_fssds_pyramid_alone(monkeypatch):
    check_values(load_config(CONFIG, FINER))
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="IN_FEATURES leave out p3 of the pyramid, .* add them"):
        check_values(load_config(CONFIG, FINER))
    check_values(load_config(CONFIG, [*FINER, "MODEL.BACKBONE.NAME", "build_fssd_resnet_backbone"]))
    rfb = str(REPOSITORY / "configs" / "BCCD" / "rfbnet_VGG_16.yaml")
    sizes = load_config(rfb, []).MODEL.ANCHOR_GENERATOR.SIZES
    gap = ["MODEL.RETINANET.IN_FEATURES", ["p3", "p5", "p6"], "MODEL.ANCHOR_GENERATOR.SIZES"]
    check_values(load_config(rfb, [*gap, [sizes[i] for i in (0, 2, 3)]]))


def test_a_training_too_short_for_batchnorm_is_warned_of(caplog):
    for opts in ([], ["TEST.PRECISE_BN.ENABLED", True], ["MODEL.PYRAMID.NORM", "GN"]):
        warn_of_slow_statistics(load_config(RFBNET, ["SOLVER.MAX_ITER", 299, *opts]))
    warn_of_slow_statistics(load_config(RFBNET, ["SOLVER.MAX_ITER", 300]))
    assert caplog.text.count("299 iterations are too few for BatchNorm's running statistics") == 1


def test_levels_of_detectron2s_pyramid_are_not_left_out_where_processes_wait(monkeypatch):
    config = str(REPOSITORY / "configs" / "COCO-Detection" / "retinanet_R_50_FPN.yaml")
    sizes = load_config(config).MODEL.ANCHOR_GENERATOR.SIZES
    of_four = ["MODEL.ANCHOR_GENERATOR.SIZES", sizes[:4], "MODEL.RETINANET.IN_FEATURES"]
    check_values(load_config(config, [*of_four, ["p3", "p4", "p5", "p6"]]))
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    check_values(load_config(config))
    check_values(load_config(config, [*of_four, ["p3", "p4", "p5", "p7"]]))  # made of p6
    with pytest.raises(ConfigError, match="IN_FEATURES leave out p7 of the pyramid, .* add them"):
        check_values(load_config(config, [*of_four, ["p3", "p4", "p5", "p6"]]))


def test_weights_must_be_there(tmp_path, monkeypatch):
    cfg = load_config(CONFIG)
    check_weights(cfg, "start")
    with pytest.raises(ConfigError, match=f"trained weights are needed.*{cfg.OUTPUT_DIR}"):
        check_weights(cfg, "trained")
    cfg.MODEL.WEIGHTS = str(tmp_path / "none.pth")
    for needed in ("start", "trained"):
        with pytest.raises(ConfigError, match=r"no file .*none\.pth"):
            check_weights(cfg, needed)
    check_weights(cfg, "any")
    cfg.MODEL.WEIGHTS = f"{CONFIG}?matching_heuristics=True"
    check_weights(cfg, "start")
    monkeypatch.setattr(TorchvisionHandler, "_get_local_path", lambda *_, **__: CONFIG)
    cfg.MODEL.WEIGHTS = "torchvision://resnet18"
    check_weights(cfg, "start")
    with pytest.raises(ConfigError, match="trained weights are needed, not torchvision://resnet18"):
        check_weights(cfg, "trained")
    cfg.MODEL.WEIGHTS = "https://host/model.pth?download=true"
    with pytest.raises(ConfigError, match=r"no \?download=true; download the file"):
        check_weights(cfg, "start")


def test_checking_a_detector_leaves_the_random_state_and_no_weights():
    state = torch.get_rng_state()
    check_values(load_config(CONFIG))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.zeros(1).device.type == "cpu"


@pytest.mark.parametrize("broken", [False, True])
def test_a_backbone_that_needs_values_to_be_built(monkeypatch, broken):
    def build(cfg, input_shape):
        values = torch.rand(2)[0].item()  # as Detectron2's Swin and ViT; "meta" has none
        if broken:
            raise ValueError(f"broken after {values:.0f}")
        return build_top_down_resnet_backbone(cfg, input_shape)

    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_with_values", build)
    cfg = load_config(CONFIG, ["MODEL.BACKBONE.NAME", "build_with_values"])
    state = torch.get_rng_state()
    refused = pytest.raises(ConfigError, match="cannot be built: broken after")
    with refused if broken else nullcontext():
        check_values(cfg)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.zeros(1).device.type == "cpu"


def test_a_resnet_50_by_the_row_of_the_page():
    page = (REPOSITORY / "docs" / "train.md").read_text()
    (row,) = re.findall(r"\| train a ResNet-50 .*`(MODEL\.[^`]+)` \|", page)
    cfg = load_config(CONFIG, row.split())
    check_values(cfg)
    with torch.device("meta"):
        model = build_backbone(cfg)
        weights = torchvision.models.resnet50().state_dict()
    renamed = rename_torchvision(weights, model)
    trunk = {n: x.shape for n, x in model.state_dict().items() if "bottom_up.bottom_up." in n}
    assert trunk == {name: x.shape for name, x in renamed.items()}


def test_values_of_a_training_do_not_stop_an_evaluation():
    cfg = load_config(CONFIG, ["SOLVER.CHECKPOINT_KEEP", -1, "SOLVER.BASE_LR", 0.0])
    check_values(cfg, for_training=False)
    with pytest.raises(ConfigError, match="CHECKPOINT_KEEP must be 0 or more"):
        check_values(cfg)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "torchvision://resnet81",
            "cannot be had .*start from random weights; did you mean resnet",
        ),
        ("torchvsion://resnet18", "cannot be had .there is no such place.: name a local file"),
        ("detectron2://nothing.pkl", "cannot be had .no network.: .* start from random weights"),
    ],
)
def test_weights_that_cannot_be_had(weights, message, monkeypatch):
    def get(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("iopath.common.file_io.HTTPURLHandler._get_local_path", get)
    cfg = load_config(CONFIG, ["MODEL.WEIGHTS", weights])
    with pytest.raises(ConfigError, match=message):
        check_weights(cfg, "start")
    check_weights(cfg, "any")
