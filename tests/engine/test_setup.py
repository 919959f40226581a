import sys
from urllib.error import URLError

import pytest
import torch
from detectron2.engine import default_argument_parser

from mutual_guidance.checkpoint import TorchvisionHandler
from mutual_guidance.config import load_config
from mutual_guidance.data import register_datasets
from mutual_guidance.engine import prepare, setup
from mutual_guidance.engine.checks import check_batch, check_values, check_weights
from mutual_guidance.engine.setup import _for_the_processes, resolve_classes, resolve_schedule
from mutual_guidance.errors import ConfigError, DatasetError
from tests.conftest import REPOSITORY
from tests.runs import CONFIG


def test_a_batch_that_the_processes_cannot_share():
    cfg = load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", 16])
    check_batch(cfg, 4)
    message = "16 cannot be divided among 3 processes: set it to a multiple, as 15"
    with pytest.raises(ConfigError, match=message):
        check_batch(cfg, 3)


@pytest.mark.parametrize(
    ("share", "warmup", "expected"), [(0.1, 500, 42), (0.1, 10, 10), (1.0, 500, 426)]
)
def test_a_warm_up_is_at_most_a_tenth_of_the_training(share, warmup, expected, caplog):
    opts = ["SOLVER.MAX_ITER", 427, "SOLVER.WARMUP_ITERS", warmup, "SOLVER.MAX_WARMUP_SHARE", share]
    cfg = load_config(CONFIG, opts)
    with caplog.at_level("INFO"):
        resolve_schedule(cfg)
    assert expected == cfg.SOLVER.WARMUP_ITERS
    assert ("is shortened to" in caplog.text) == (expected < warmup)


def test_what_vgg_does_not_freeze_is_told():
    config = REPOSITORY / "configs" / "detectors" / "rfbnet_VGG_16.yaml"
    check_values(load_config(config))
    with pytest.raises(ConfigError, match="FREEZE_AT 2 has no effect on VGG-16: set it to 0"):
        check_values(load_config(config, ["MODEL.BACKBONE.FREEZE_AT", 2]))


@pytest.mark.parametrize(
    ("period", "iterations", "expected"),
    [(5000, 427, 100), (5000, 3125, 312), (5000, 99, 5000), (5000, 9000, 5000), (400, 427, 400)],
)
def test_a_short_training_has_checkpoints_on_the_way(period, iterations, expected):
    cfg = load_config(CONFIG, ["SOLVER.MAX_ITER", iterations, "SOLVER.CHECKPOINT_PERIOD", period])
    resolve_schedule(cfg)
    assert expected == cfg.SOLVER.CHECKPOINT_PERIOD


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((12000, 16000), (10, 13)),
        ((12000,), (10,)),
        ((), ()),
        ((5, 10), (5, 10)),
        ((14, 16000), (14,)),  # one is reached
        ((600, 800), ()),
        ((18000,), ()),  # of no schedule of 18,000
        ((10, 15), (10,)),  # a rate of no iteration
    ],
)
def test_steps_that_would_not_be_reached_move_with_the_epochs(voc, voc_entry, steps, expected):
    for i in range(10):
        voc.add(f"a{i}", [("red", (1, 1, 9, 9))])
    register_datasets([voc_entry])
    cfg = load_config(CONFIG, ["SOLVER.STEPS", steps, "DATASETS.TRAIN", (voc_entry["name"],)])
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.MAX_ITER = "WarmupMultiStepLR", 18000
    cfg.SOLVER.EPOCHS, cfg.SOLVER.IMS_PER_BATCH = 6.0, 4  # 15 iterations
    resolve_schedule(cfg)
    assert tuple(cfg.SOLVER.STEPS) == expected
    resolve_schedule(cfg)
    assert tuple(cfg.SOLVER.STEPS) == expected


def test_a_tool_takes_the_config_of_a_run_on_a_gpu(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", True])
    cfg.DATASETS.REGISTER, cfg.DATASETS.TEST = [voc_entry], ()
    cfg.DATASETS.TRAIN = (voc_entry["name"],)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert prepare(tmp_path / "config.yaml", data=("TRAIN",)).MODEL.DEVICE == "cpu"
    with pytest.raises(ConfigError, match="finds no such GPU"):
        prepare(tmp_path / "config.yaml", ["MODEL.DEVICE", "cuda"])


def test_classes_and_schedule_follow_the_data(voc, voc_entry):
    for i in range(10):
        voc.add(f"a{i}", [("red", (1, 1, 9, 9))])
    register_datasets([voc_entry])
    name = voc_entry["name"]
    cfg = load_config(CONFIG, ["DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)"])
    resolve_classes(cfg)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3
    cfg.SOLVER.EPOCHS, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 6.0, 4, 0.02
    resolve_schedule(cfg)
    assert cfg.SOLVER.MAX_ITER == 15  # 6 epochs x 10 images / 4
    assert pytest.approx(0.005) == cfg.SOLVER.BASE_LR  # 0.02 is for 16 images
    resolve_schedule(cfg)  # a saved config is not scaled twice
    assert pytest.approx(0.005) == cfg.SOLVER.BASE_LR


def test_data_sets_that_differ_in_their_classes(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 9, 9))])
    other = {**voc_entry, "name": voc_entry["name"] + "b", "classes": ["red", "blue"]}
    register_datasets([voc_entry, other])
    cfg = load_config(CONFIG, [])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (voc_entry["name"],), (other["name"],)
    with pytest.raises(ConfigError, match="differ in their classes"):
        resolve_classes(cfg)


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


def test_augmented_testing_is_refused_where_it_would_be_tested():
    with pytest.raises(ConfigError, match="TEST.AUG.ENABLED has no effect"):
        check_values(load_config(CONFIG, ["TEST.AUG.ENABLED", True]), for_training=False)


GREY = ["INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", [1.0], "MODEL.PIXEL_STD", [1.0]]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.MUTUAL_GUIDANCE.HEAD", "shared"], "same channels .* set it to per_level"),
        ([*GREY, "INPUT.SSD_AUGMENTATION", False], "VGG-16 takes three channels"),
    ],
)
def test_what_a_vgg_cannot_be_given(opts, message):
    config = str(REPOSITORY / "configs" / "BCCD" / "rfbnet_VGG_16.yaml")
    with pytest.raises(ConfigError, match=message):
        check_values(load_config(config, opts))


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


def test_a_strategy_that_would_never_begin():
    opts = ["SOLVER.MAX_ITER", 100, "MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", 100]
    with pytest.raises(ConfigError, match="STATIC_ITERS 100 leaves none of the 100 iterations to"):
        resolve_schedule(load_config(CONFIG, opts))
    resolve_schedule(load_config(CONFIG, [*opts, "MODEL.MUTUAL_GUIDANCE.STRATEGY", "static"]))


def test_a_strategy_that_begins_at_an_iteration_does_not_go_with_a_scaled_schedule():
    opts = ["SOLVER.MAX_ITER", 200, "SOLVER.REFERENCE_WORLD_SIZE", 8]
    resolve_schedule(load_config(CONFIG, opts))
    with pytest.raises(ConfigError, match="WORLD_SIZE 8 scales SOLVER.MAX_ITER for 1 processes"):
        resolve_schedule(load_config(CONFIG, [*opts, "MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", 100]))
    static = ["MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", 100, "MODEL.MUTUAL_GUIDANCE.STRATEGY", "static"]
    resolve_schedule(load_config(CONFIG, [*opts, *static]))


def test_a_config_for_another_number_of_processes_is_scaled_before_it_is_compared(monkeypatch):
    opts = ["SOLVER.REFERENCE_WORLD_SIZE", 1, "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 3]
    cfg = load_config(CONFIG, [*opts, "SOLVER.MAX_ITER", 800, "SOLVER.IMS_PER_BATCH", 16])
    assert _for_the_processes(cfg) == cfg
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 8)
    scaled = _for_the_processes(cfg)
    assert (scaled.SOLVER.MAX_ITER, scaled.SOLVER.IMS_PER_BATCH) == (100, 128)
    assert (scaled.SOLVER.CHECKPOINT_PERIOD, scaled.TEST.EVAL_PERIOD) == (1, 1)
    assert scaled.SOLVER.BASE_LR == 8 * cfg.SOLVER.BASE_LR
    assert scaled.SOLVER.REFERENCE_IMS_PER_BATCH == 128
    assert _for_the_processes(scaled) == scaled
    for off in (0, -1):
        cfg.TEST.EVAL_PERIOD = off
        assert _for_the_processes(cfg).TEST.EVAL_PERIOD <= 0


def test_a_batch_that_the_processes_do_not_divide(monkeypatch, tmp_path):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    opts = ["SOLVER.IMS_PER_BATCH", "3", "OUTPUT_DIR", str(tmp_path / "out")]
    args = default_argument_parser().parse_args(["--config-file", CONFIG, *opts])
    with pytest.raises(ConfigError, match="3 cannot be divided among 2 proc"):
        setup(args)
    assert not (tmp_path / "out").exists()


def test_a_training_without_a_length_is_refused():
    check_values(load_config(CONFIG, ["SOLVER.MAX_ITER", 0]))  # it has epochs
    with pytest.raises(ConfigError, match="SOLVER.MAX_ITER, where .* must be 1 or more"):
        check_values(load_config(CONFIG, ["SOLVER.MAX_ITER", 0, "SOLVER.EPOCHS", 0.0]))


def test_the_stock_retinanet_has_no_balanced_loss():
    opts = ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE"]
    check_values(load_config(CONFIG, [*opts, "giou"]))
    with pytest.raises(ConfigError, match="balanced_l1 is unknown to Detectron2's RetinaNet"):
        check_values(load_config(CONFIG, [*opts, "balanced_l1"]))


def test_misalignment_needs_a_dense_detector():
    opts = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "TEST.MISALIGNMENT", True]
    check_values(load_config(CONFIG, opts[:2]))
    check_values(load_config(CONFIG, opts[2:]))
    with pytest.raises(ConfigError, match="RetinaNet.* not GeneralizedRCNN"):
        check_values(load_config(CONFIG, opts))


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


BACKBONE = "build_top_down_resnet_backbone"


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "GuidedRetinanet"], "is unknown; there are GuidedRetinaNet"),
        (["MODEL.META_ARCHITECTURE", "FSSD", "MODEL.BACKBONE.NAME", BACKBONE], "on a FSSDPyramid"),
        (["MODEL.BACKBONE.NAME", "fssd"], "No object named 'fssd'"),
        (
            ["MODEL.META_ARCHITECTURE", "GuidedFCOS", "MODEL.FCOS.CENTER_SAMPLING_RADIUS", -1.0],
            "center_sampling_radius must be above 0, got -1.0",
        ),
        (["MODEL.RETINANET.IN_FEATURES", ["p9"]], "cannot be built: KeyError.'p9'"),
    ],
)
def test_a_detector_that_cannot_be_built_is_refused_before_the_data_is_read(opts, message):
    opts = [*opts, "DATASETS.TRAIN", "('nowhere',)"]
    with pytest.raises(ConfigError, match=message):
        prepare(CONFIG, opts, data=("TRAIN",))


def test_checking_a_detector_leaves_the_random_state_and_no_weights():
    state = torch.get_rng_state()
    check_values(load_config(CONFIG))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.zeros(1).device.type == "cpu"


def test_a_set_of_data_must_be_named(voc, voc_entry):
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST is empty"):
        prepare(CONFIG, ["DATASETS.TEST", ()], data=("TEST",))
    with pytest.raises(ConfigError, match="classes are unknown"):
        prepare(
            CONFIG,
            ["DATASETS.TEST", (), "DATASETS.TRAIN", (), "MODEL.WEIGHTS", CONFIG],
            weights="trained",
        )


def test_weights_of_other_classes_are_not_evaluated(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 9, 9))])
    opts = ["DATASETS.REGISTER", [voc_entry], "DATASETS.TEST", (voc_entry["name"],)]
    opts += ["DATASETS.TRAIN", (), "MODEL.WEIGHTS", CONFIG]
    for classes in ([], ["red", "green", "blue"]):
        prepare(CONFIG, [*opts, "DATASETS.CLASSES", classes], data=("TEST",), weights="trained")
    other = [*opts, "DATASETS.CLASSES", ["green", "red", "blue"]]
    for weights in ("trained", "any"):  # any with --resume
        with pytest.raises(ConfigError, match="classes green, red, blue .*, but the data sets"):
            prepare(CONFIG, other, data=("TEST",), weights=weights, for_training=True)
    new = [*other, "DATASETS.TRAIN", (voc_entry["name"],), "DATASETS.CATEGORY_IDS", [3, 7]]
    cfg = prepare(CONFIG, new, data=("TRAIN", "TEST"), for_training=True)
    assert cfg.DATASETS.CLASSES == ["red", "green", "blue"] and cfg.DATASETS.CATEGORY_IDS == []


def test_weights_bring_the_classes_of_their_run(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    run = load_config(CONFIG, ["DATASETS.CLASSES", ["green", "red", "blue"]])
    run.DATASETS.CATEGORY_IDS = [7, 3, 9]
    (tmp_path / "config.yaml").write_text(run.dump())
    (tmp_path / "model_final.pth").touch()
    opts = ["DATASETS.REGISTER", [voc_entry], "DATASETS.TEST", (voc_entry["name"],)]
    opts += ["DATASETS.TRAIN", ()]
    named = [*opts, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth")]
    cfg = prepare(CONFIG, named[4:], weights="trained")
    assert cfg.DATASETS.CATEGORY_IDS == [7, 3, 9]
    message = r"classes green, red, blue \(.*config\.yaml\), but the data sets have red, green"
    with pytest.raises(ConfigError, match=message):
        prepare(CONFIG, named, data=("TEST",), weights="trained")
    with pytest.raises(ConfigError, match=message):
        prepare(CONFIG, opts, data=("TEST",), folder=str(tmp_path))  # with --resume
    names = ["DATASETS.CLASSES", ["red", "green", "blue"]]
    prepare(CONFIG, [*named, *names], data=("TEST",), weights="trained")
    (tmp_path / "config.yaml").write_text("of: another project")
    prepare(CONFIG, named, data=("TEST",), weights="trained")


def test_values_of_a_training_do_not_stop_an_evaluation():
    cfg = load_config(CONFIG, ["SOLVER.CHECKPOINT_KEEP", -1, "SOLVER.BASE_LR", 0.0])
    check_values(cfg, for_training=False)
    with pytest.raises(ConfigError, match="CHECKPOINT_KEEP must be 0 or more"):
        check_values(cfg)


def test_the_cosine_ends_below_the_learning_rate_of_the_batch():
    cfg = load_config(CONFIG, ["SOLVER.BASE_LR", 1e-5, "SOLVER.IMS_PER_BATCH", 1])
    cfg.SOLVER.EPOCHS, cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 0.0, 64
    with pytest.raises(ConfigError, match="ends at SOLVER.BASE_LR_END 1e-06, .* rate, 1.5625e-07"):
        resolve_schedule(cfg)


def test_a_frozen_config_of_a_training(voc, voc_entry):
    for i in range(4):
        voc.add(f"a{i}", [("red", (1, 1, 9, 9))])
    name = voc_entry["name"]
    opts = ["DATASETS.REGISTER", [voc_entry], "DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,)]
    opts += ["SOLVER.EPOCHS", 2.0, "SOLVER.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu"]
    opts += ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16"]
    cfg = prepare(CONFIG, opts, data=("TRAIN", "TEST"), for_training=True)
    assert cfg.is_frozen() and cfg.SOLVER.MAX_ITER == 4 and cfg.SOLVER.AMP.ENABLED
    assert cfg.DATASETS.CLASSES == ["red", "green", "blue"] and cfg.MODEL.FCOS.NUM_CLASSES == 3
    assert cfg.DATASETS.CATEGORY_IDS == []
    opts.remove("SOLVER.AMP.ENABLED"), opts.remove(True)
    assert not prepare(CONFIG, opts, data=("TRAIN",)).SOLVER.AMP.ENABLED


def test_faults_that_were_mended_are_not_listed_any_more(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    entry, folder = {**voc_entry, "classes": ["red"]}, tmp_path / "out"
    data = [key for k in ("TRAIN", "TEST") for key in (f"DATASETS.{k}", f"('{entry['name']}',)")]
    opts = ["DATASETS.REGISTER", str([entry]), *data, "OUTPUT_DIR", str(folder)]
    args = ["--config-file", CONFIG, *opts, "MODEL.WEIGHTS", ""]
    folder.mkdir()
    (folder / "dataset_faults.txt").write_text("stops")
    setup(default_argument_parser().parse_args(args))
    assert "image is trained on" in (folder / "dataset_faults.txt").read_text()
    (folder / "dataset_faults.txt").write_text("of the training's images")
    weights = tmp_path / "w.pth"
    torch.save({}, weights)
    args = ["--eval-only", *args[:-1], str(weights)]
    setup(default_argument_parser().parse_args(args))
    assert (folder / "dataset_faults.txt").read_text() == "of the training's images"


def test_the_config_of_a_run_stays_until_its_checkpoint_is_loaded(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    name = f"('{voc_entry['name']}',)"
    opts = ["DATASETS.REGISTER", str([voc_entry]), "DATASETS.TRAIN", name, "DATASETS.TEST", name]
    opts += ["OUTPUT_DIR", str(tmp_path / "out"), "MODEL.WEIGHTS", ""]
    args = ["--config-file", CONFIG, *opts]
    setup(default_argument_parser().parse_args(args))
    before = (tmp_path / "out" / "config.yaml").read_text()
    torch.save({}, tmp_path / "out" / "model_0000001.pth")
    other = ["--resume", *args, "SOLVER.GAMMA", "0.5"]
    assert setup(default_argument_parser().parse_args(other)).SOLVER.GAMMA == 0.5
    assert (tmp_path / "out" / "config.yaml").read_text() == before


def test_what_stops_a_run_is_in_its_log(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    (voc.root / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "own.yaml").write_text(
        f"_BASE_: {CONFIG}\nDATASETS: {{REGISTER: [{voc_entry}], TRAIN: [{voc_entry['name']}]}}\n"
    )
    opts = ["DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu"]
    args = default_argument_parser().parse_args(
        ["--config-file", str(tmp_path / "own.yaml"), *opts]
    )
    with pytest.raises(DatasetError, match="image is missing") as error:
        setup(args)
    assert str(error.value) in (tmp_path / "out" / "log.txt").read_text()
    line = (tmp_path / "out" / "dataset_faults.txt").read_text().splitlines()[0]
    assert line.startswith("stops\t1\t") and "a.jpg" in line


def test_a_slow_precision_is_told(voc, voc_entry, tmp_path, monkeypatch, caplog):
    voc.add("a", [("red", (1, 1, 9, 9))])
    name, module = voc_entry["name"], sys.modules[setup.__module__]
    for other in ("setup_logs", "default_setup"):  # of the whole process
        monkeypatch.setattr(module, other, lambda *_: None)
    monkeypatch.setattr(module, "slow_precision", lambda cfg: "slow on this device")
    opts = [
        "DATASETS.REGISTER", f"[{voc_entry}]", "DATASETS.TRAIN", f"('{name}',)",
        "DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu",
    ]  # fmt: skip
    setup(default_argument_parser().parse_args(["--config-file", CONFIG, *opts]))
    assert "slow on this device" in caplog.text


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
