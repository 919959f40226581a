"""End to end, as a user calls it."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, VOCWriter

CONFIG = "configs/Shapes/retinanet_R_18.yaml"


def train_net(*args, ok=True, **variables):
    """Run train_net.py with two threads and return its output."""
    command = [sys.executable, "train_net.py", *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": os.getenv("OMP_NUM_THREADS", "2"), **variables}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=400
    )
    assert (done.returncode == 0) == ok, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def results(folder):
    (by_metric,) = json.loads((folder / "evaluation.json").read_text()).values()
    return by_metric["bbox"]


def own_set(voc, split="train"):
    """KEY VALUE pairs of a config for the data set of ``voc``."""
    entry = {"name": "own", "format": "voc", "root": str(voc.root), "split": split}
    return [
        "DATASETS.REGISTER", f"[{entry}]", "DATALOADER.NUM_WORKERS", 0,
        "DATASETS.TRAIN", "('own',)", "DATASETS.TEST", "('own',)",
    ]  # fmt: skip


def draw_four_images(voc):
    """64 pixels, six objects of three classes."""
    voc.add("a", [("red", (3, 5, 24, 40)), ("blue", (34, 34, 60, 58))])
    voc.add("b", [("green", (10, 15, 50, 35))])
    voc.add("c", [("blue", (30, 4, 55, 30)), ("green", (4, 36, 30, 60))])
    voc.add("d", [("red", (20, 20, 60, 62))])


def overfit(config, voc, out, *opts):
    """Train on the four images; return the log and the options of the run."""
    draw_four_images(voc)
    opts = [
        *own_set(voc), "MODEL.WEIGHTS", "", "INPUT.SQUARE_SIZE", 64,
        "INPUT.SSD_AUGMENTATION", False, "SOLVER.IMS_PER_BATCH", 4,
        "SOLVER.REFERENCE_IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 0.01, "SOLVER.EPOCHS", 250.0,
        "SOLVER.WARMUP_ITERS", 10, *opts,
    ]  # fmt: skip
    return train_net("--config-file", config, *opts, "OUTPUT_DIR", out), opts


def test_overfits_a_handful_of_images_and_evaluates_to_the_same(voc, tmp_path):
    out = tmp_path / "out"
    log, opts = overfit(CONFIG, voc, out)
    trained = results(out)
    assert trained["AP50"] > 90, trained
    assert "blue" in log and "| " in log

    weights = ["MODEL.WEIGHTS", out / "model_final.pth", "OUTPUT_DIR", tmp_path / "eval"]
    train_net("--config-file", CONFIG, "--eval-only", *opts, *weights)
    assert results(tmp_path / "eval") == trained


@pytest.mark.parametrize(
    "detector",
    [
        "fcos_R_18",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "fssd_R_18",
                "retinanet_R_18",
                "fssd_VGG_16",
                "retinanet_VGG_16",
                "rfbnet_VGG_16",
                "fcos_VGG_16",
            )
        ),
    ],
)
def test_every_detector_overfits(detector, voc, tmp_path):
    overfit(f"configs/PascalVOC-Detection/{detector}.yaml", voc, tmp_path)
    trained = results(tmp_path)
    assert trained["AP50"] > 90, trained


def test_trains_on_bccds_real_annotations(real_data, tmp_path):
    log = train_net(
        "--config-file", "configs/BCCD/retinanet_R_18.yaml",
        "SOLVER.EPOCHS", 0.0, "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2,
        "INPUT.SQUARE_SIZE", 64, "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", tmp_path,
    )  # fmt: skip
    assert "Dropped" in log and "zero-area" in log
    assert 0 <= results(tmp_path)["AP"] <= 100


def test_trains_on_detectron2s_builtin_coco(real_data, tmp_path):
    train_net(
        "--config-file", CONFIG, "SOLVER.EPOCHS", 0.0, "SOLVER.MAX_ITER", 2,
        "SOLVER.IMS_PER_BATCH", 2, "DATASETS.REGISTER", "[]",
        "DATASETS.TRAIN", "('coco_2017_val',)", "DATASETS.TEST", "('coco_2017_val',)",
        "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", tmp_path,
    )  # fmt: skip
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl"} <= results(tmp_path).keys()


def test_trains_on_detectron2s_builtin_voc(tmp_path):
    voc = VOCWriter(tmp_path / "VOC2007")
    for split in ("trainval", "test"):
        for i in range(2):
            voc.add(f"{split}{i}", [("boat", (9, 9, 50, 40))], split=split)
    log = train_net(
        "--config-file", CONFIG, "SOLVER.EPOCHS", 0.0, "SOLVER.MAX_ITER", 2,
        "SOLVER.IMS_PER_BATCH", 2, "DATASETS.REGISTER", "[]",
        "DATASETS.TRAIN", "('voc_2007_trainval',)", "DATASETS.TEST", "('voc_2007_test',)",
        "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", tmp_path / "out",
        DETECTRON2_DATASETS=str(tmp_path),
    )  # fmt: skip
    assert "11-point metric" in log
    assert results(tmp_path / "out")["AP-boat"] is not None


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.MUTUAL_GUIDANCE.STRATEGIE", "static"], "STRATEGIE"),
        (["DATASETS.TRAIN", "('shapes_trian',)"], "did you mean shapes_train"),
    ],
)
def test_errors_are_one_sentence(opts, message, tmp_path):
    log = train_net("--config-file", CONFIG, *opts, "OUTPUT_DIR", tmp_path, ok=False)
    assert "error: " in log and message in log and "Traceback" not in log
