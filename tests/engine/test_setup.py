import json
import sys
from collections import namedtuple

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.engine import default_argument_parser
from detectron2.structures import BoxMode

from mutual_guidance.config import load_config
from mutual_guidance.data import register_datasets
from mutual_guidance.engine import output, prepare, setup
from mutual_guidance.engine.setup import (
    _for_the_processes,
    _kept,
    resolve_classes,
    resolve_schedule,
)
from mutual_guidance.errors import ConfigError, DatasetError
from mutual_guidance.evaluation import build_evaluator
from tests.conftest import data_keys
from tests.runs import CONFIG


def set_up(*args):
    """The config that train_net.py would have."""
    return setup(default_argument_parser().parse_args([*map(str, args)]))


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


def test_images_are_counted_as_detectron2_counts_them(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    names = [f"{i}.png" for i in range(5)]
    for name in names:
        (tmp_path / name).symlink_to("a.png")
    images = [{"id": i, "file_name": n, "width": 8, "height": 8} for i, n in enumerate(names)]
    box = {"category_id": 1, "bbox": [1, 1, 5, 5]}
    marks = [(1, 1), (2, 0), (3, 0), (3, 1)]  # of image and crowd; images 0 and 4 have no object
    annotations = [{"id": n, "image_id": i, "iscrowd": c, **box} for n, (i, c) in enumerate(marks)]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "red"}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    entry = {"name": f"counted_{tmp_path.name}", "format": "coco", "root": str(tmp_path)}
    register_datasets([{**entry, "annotations": "a.json", "images": "."}])
    cfg = load_config(CONFIG, ["DATASETS.TRAIN", (entry["name"],), "SOLVER.IMS_PER_BATCH", 1])
    for filter_empty, number in ((True, 2), (False, 5)):
        assert len(get_detection_dataset_dicts([entry["name"]], filter_empty)) == number
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, cfg.SOLVER.EPOCHS = filter_empty, 1.0
        with monkeypatch.context() as patched:
            patched.setattr(DatasetCatalog, "get", lambda name: pytest.fail("makes all dicts"))
            resolve_schedule(cfg)
        assert number == cfg.SOLVER.MAX_ITER


def test_classes_of_ones_own_functions(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    box = {"bbox": [1, 1, 5, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    image = {"file_name": str(tmp_path / "a.png"), "image_id": 0, "width": 8, "height": 8}
    train, test = (f"{part}_{tmp_path.name}" for part in ("train", "test"))
    for name in (train, test):
        DatasetCatalog.register(name, lambda: [{**image, "annotations": [box]}])
        MetadataCatalog.get(name).set(evaluator_type="coco")
    opts = ["DATASETS.TRAIN", (train,), "DATASETS.TEST", (test,)]
    told = f"set thing_classes of {test} in Detectron2's MetadataCatalog, or set DATASETS.CLASSES"
    with pytest.raises(ConfigError, match=told):
        prepare(CONFIG, opts, data=("TRAIN", "TEST"))
    named = prepare(CONFIG, [*opts, "DATASETS.CLASSES", ["rot"]], data=("TRAIN", "TEST"))
    assert named.DATASETS.CLASSES == MetadataCatalog.get(test).thing_classes == ["rot"]
    MetadataCatalog.remove(train)
    # As one who only thinks of the training.
    MetadataCatalog.get(train).set(thing_classes=["red"], evaluator_type="coco")
    cfg = prepare(CONFIG, opts, data=("TRAIN", "TEST"))
    assert cfg.DATASETS.CLASSES == ["red"]
    assert MetadataCatalog.get(test).thing_classes == ["red"]
    build_evaluator(cfg, test)


def test_data_sets_that_differ_in_their_classes(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 9, 9))])
    other = {**voc_entry, "name": voc_entry["name"] + "b", "classes": ["red", "blue"]}
    register_datasets([voc_entry, other])
    cfg = load_config(CONFIG, [])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (voc_entry["name"],), (other["name"],)
    with pytest.raises(ConfigError, match="differ in their classes"):
        resolve_classes(cfg)


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
    with pytest.raises(ConfigError, match="3 cannot be divided among 2 proc"):
        set_up("--config-file", CONFIG, *opts)
    assert not (tmp_path / "out").exists()


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


def test_the_cosine_ends_below_the_learning_rate_of_the_batch():
    cfg = load_config(CONFIG, ["SOLVER.BASE_LR", 1e-5, "SOLVER.IMS_PER_BATCH", 1])
    cfg.SOLVER.EPOCHS, cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 0.0, 64
    with pytest.raises(ConfigError, match="ends at SOLVER.BASE_LR_END 1e-06, .* rate, 1.5625e-07"):
        resolve_schedule(cfg)


def test_a_frozen_config_of_a_training(voc, voc_entry):
    for i in range(4):
        voc.add(f"a{i}", [("red", (1, 1, 9, 9))])
    opts = [*data_keys(voc_entry), "SOLVER.EPOCHS", 2.0, "SOLVER.IMS_PER_BATCH", 2]
    opts += ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16"]
    cfg = prepare(CONFIG, opts, data=("TRAIN", "TEST"), for_training=True)
    assert cfg.is_frozen() and cfg.SOLVER.MAX_ITER == 4 and cfg.SOLVER.AMP.ENABLED
    assert cfg.DATASETS.CLASSES == ["red", "green", "blue"] and cfg.MODEL.FCOS.NUM_CLASSES == 3
    assert cfg.DATASETS.CATEGORY_IDS == []
    opts.remove("SOLVER.AMP.ENABLED"), opts.remove(True)
    assert not prepare(CONFIG, opts, data=("TRAIN",)).SOLVER.AMP.ENABLED


def test_faults_that_were_mended_are_not_listed_any_more(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    entry, folder = {**voc_entry, "classes": ["red"]}, tmp_path / "out"
    args = ["--config-file", CONFIG, *data_keys(entry), "OUTPUT_DIR", folder, "MODEL.WEIGHTS", ""]
    folder.mkdir()
    (folder / "dataset_faults.txt").write_text("stops")
    set_up(*args)
    assert "image is trained on" in (folder / "dataset_faults.txt").read_text()
    (folder / "dataset_faults.txt").write_text("of the training's images")
    weights = tmp_path / "w.pth"
    torch.save({}, weights)
    set_up("--eval-only", *args[:-1], weights)
    assert (folder / "dataset_faults.txt").read_text() == "of the training's images"


def test_the_config_of_a_run_stays_until_its_checkpoint_is_loaded(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    opts = [*data_keys(voc_entry), "OUTPUT_DIR", str(tmp_path / "out"), "MODEL.WEIGHTS", ""]
    args = ["--config-file", CONFIG, *opts]
    set_up(*args)
    before = (tmp_path / "out" / "config.yaml").read_text()
    torch.save({}, tmp_path / "out" / "model_0000001.pth")
    other = ["--resume", *args, "SOLVER.GAMMA", "0.5"]
    assert set_up(*other).SOLVER.GAMMA == 0.5
    assert (tmp_path / "out" / "config.yaml").read_text() == before


def test_what_stops_a_run_is_in_its_log(voc, voc_entry, tmp_path):
    voc.add("a", [("red", (1, 1, 9, 9))])
    (voc.root / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "own.yaml").write_text(
        f"_BASE_: {CONFIG}\nDATASETS: {{REGISTER: [{voc_entry}], TRAIN: [{voc_entry['name']}]}}\n"
    )
    opts = ["DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu"]
    with pytest.raises(DatasetError, match="image is missing") as error:
        set_up("--config-file", tmp_path / "own.yaml", *opts)
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
    set_up("--config-file", CONFIG, *opts)
    assert "slow on this device" in caplog.text


@pytest.mark.parametrize("mode", [[], ["--eval-only"]])
def test_shared_memory_is_looked_at_before_the_data(voc_entry, tmp_path, monkeypatch, mode):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(100))
    monkeypatch.setattr(output, "_SHARED_MEMORY", str(tmp_path))
    args = [*mode, "--config-file", CONFIG, *data_keys(voc_entry), "OUTPUT_DIR", tmp_path / "out"]
    with pytest.raises(ConfigError, match="has 0 MiB free"):
        set_up(*args, "DATALOADER.NUM_WORKERS", 2)


def test_an_evaluation_keeps_the_config_of_the_training(tmp_path):
    path, before = tmp_path / "config.yaml", "of the training"
    path.write_text(before)
    with _kept(str(path)):
        path.write_text("overwritten")
    assert path.read_text() == before
    with pytest.raises(ValueError, match="too late"), _kept(str(path)):
        path.write_text("overwritten")
        raise ValueError("too late")
    assert path.read_text() == before
    with _kept(None):
        path.write_text("a new training")
    assert path.read_text() == "a new training"
