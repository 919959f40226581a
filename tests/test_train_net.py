"""End to end, as a user calls it."""

import builtins
import os
import re
import runpy

import pytest

import train_net as script
from tests.conftest import REPOSITORY, VOCWriter
from tests.runs import CONFIG, overfit, results, train_net


def test_overfits_a_handful_of_images_and_evaluates_to_the_same(voc, tmp_path):
    out = tmp_path / "out"
    log, opts = overfit(
        CONFIG, voc, out, "SOLVER.EPOCHS", 160.0, "MODEL.PYRAMID.OUT_CHANNELS", 64,
    )  # fmt: skip
    trained = results(out)
    assert trained["AP50"] > 90, trained
    assert "blue" in log and "| " in log

    weights = ["MODEL.WEIGHTS", out / "model_final.pth", "OUTPUT_DIR", tmp_path / "eval"]
    log = train_net(
        "--config-file", CONFIG, "--eval-only", *opts, *weights, "TEST.MISALIGNMENT", True
    )
    assert results(tmp_path / "eval") == trained
    assert "IoU lost to misalignment" in log
    assert (tmp_path / "eval" / "misalignment" / "own.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "detector",
    [
        "fcos_R_18",
        "fssd_R_18",
        "retinanet_R_18",
        "fssd_VGG_16",
        "retinanet_VGG_16",
        "rfbnet_VGG_16",
        "fcos_VGG_16",
    ],
)
def test_every_detector_overfits(detector, voc, tmp_path):
    overfit(f"configs/PascalVOC-Detection/{detector}.yaml", voc, tmp_path)
    trained = results(tmp_path)
    assert trained["AP50"] > 90, trained


def test_trains_on_bccds_real_annotations(real_data, tmp_path):
    log = train_net(
        "--config-file", "configs/BCCD/retinanet_R_18.yaml",
        "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2,
        "INPUT.SQUARE_SIZE", 64, "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", tmp_path,
    )  # fmt: skip
    assert re.search(r"dropped +1 +box is inverted or without area", log)
    assert 0 <= results(tmp_path)["AP"] <= 100


def test_trains_on_detectron2s_builtin_coco(real_data, tmp_path):
    train_net(
        "--config-file", CONFIG, "SOLVER.MAX_ITER", 2,
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
    train_net(
        "--config-file", CONFIG, "SOLVER.MAX_ITER", 2,
        "SOLVER.IMS_PER_BATCH", 2, "DATASETS.REGISTER", "[]",
        "DATASETS.TRAIN", "('voc_2007_trainval',)", "DATASETS.TEST", "('voc_2007_test',)",
        "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", tmp_path / "out",
        DETECTRON2_DATASETS=str(tmp_path),
    )  # fmt: skip
    assert "11-point metric" in (tmp_path / "out" / "log.txt").read_text()
    assert results(tmp_path / "out")["AP-boat"] is not None


def test_errors_are_one_sentence(tmp_path):
    opts = ["DATASETS.TRAIN", "('shapes_trian',)", "OUTPUT_DIR", tmp_path]
    log = train_net("--config-file", CONFIG, *opts, ok=False)
    assert "error: " in log and "did you mean shapes_train" in log and "Traceback" not in log


def test_pairs_stand_with_and_without_opts(capsys):
    pairs = ["SEED", "-1", "DATASETS.TEST", "('a',)"]
    for argv in ([*pairs], ["--opts", *pairs], ["--resume", *pairs]):
        args = script.parse_args(["--config-file", "c.yaml", *argv])
        assert args.opts == pairs
    for url in ([], ["--dist-url", "10.0.0.1:29500"], ["--dist-url", "tcp://host"]):
        with pytest.raises(SystemExit):
            script.parse_args(["--config-file", "c.yaml", "--num-machines", "2", *url])
        assert "name the first with --dist-url tcp://HOST:PORT, not" in capsys.readouterr().err
    machines = ["--num-machines", "2", "--dist-url", "tcp://10.0.0.1:29500"]
    assert script.parse_args(["--config-file", "c.yaml", *machines]).num_machines == 2
    with pytest.raises(SystemExit):
        script.parse_args(["--config-file", "c.yaml", "--num-gpus", "2", "--machine-rank", "1"])
    assert "--machine-rank 1: --num-machines is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_are_told_how_to_wait_before_pytorch_is_there(environment, expected, monkeypatch):
    class Imported(Exception):
        pass

    def imported(name, *args):
        if name.split(".")[0] in ("torch", "detectron2", "mutual_guidance"):
            raise Imported
        return real(name, *args)

    real = builtins.__import__
    monkeypatch.setattr(os, "environ", environment)
    with monkeypatch.context() as patch, pytest.raises(Imported):
        patch.setattr(builtins, "__import__", imported)
        runpy.run_path(str(REPOSITORY / "train_net.py"))
    assert environment == expected
