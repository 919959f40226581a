"""Runs of train_net.py on a few drawn images, and of Python."""

import json
import os
import subprocess
import sys

from detectron2.engine import launch

from mutual_guidance.engine.launch import _leave_group
from tests.conftest import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "Shapes" / "retinanet_R_18.yaml")
SMALL = ("INPUT.SQUARE_SIZE", 64, "MODEL.PYRAMID.OUT_CHANNELS", 32)


def run_python(code, *arguments, ok=True):
    """What a fresh interpreter does; its output is text."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == ok, done.stderr
    return done


def in_two_processes(main, *args):
    """Call ``main(*args)`` in two processes that talk over gloo."""
    launch(_leaving, 2, dist_url="auto", args=(main, args))


def _leaving(main, args):
    """A thread of the group that is at work when Python ends may abort the process."""
    try:
        main(*args)
    finally:
        _leave_group()


def train_net(*args, ok=True, launcher=(), **variables):
    """Run train_net.py with two threads and return its output."""
    command = [sys.executable, *launcher, "train_net.py", *map(str, args)]
    env = {
        **os.environ,
        "OMP_NUM_THREADS": os.getenv("OMP_NUM_THREADS", "2"),
        **variables,
    }
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
