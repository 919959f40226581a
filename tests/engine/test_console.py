import logging
import re

import pytest
from detectron2.modeling import build_model

from mutual_guidance.engine.console import _Brief, summary
from tests.conftest import tiny_config
from tests.runs import run_python


def test_the_summary_fits_in_ten_lines():
    cfg = tiny_config()
    cfg.DATASETS.TRAIN, cfg.DATASETS.CLASSES = ("coco_2017_train",), [f"c{i}" for i in range(80)]
    cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD = 900, 300
    cfg.SOLVER.AMP.ENABLED = False
    lines = summary(cfg, build_model(cfg), start=100).splitlines()
    assert len(lines) < 10 and max(map(len, lines)) < 120
    told = "\n".join(lines)
    for words in ("float32, 1 process", "train coco_2017_train; test none", "80: c0, c1", "c7, ...",
                  "GuidedRetinaNet", "M parameters", "64 pixels", "from a checkpoint",
                  "mutual_guidance (SIGMA 2.0, ", "CLS_TARGET label, STATIC_ITERS 0)",
                  "iterations 100 to 900", "evaluation every 300", "32 images",
                  cfg.OUTPUT_DIR):  # fmt: skip
        assert words in told, told


def test_the_summary_of_a_stock_detector_names_no_strategy():
    cfg = tiny_config("retinanet_R_18", "MODEL.META_ARCHITECTURE", "RetinaNet")
    told = summary(cfg, build_model(cfg), start=0)
    assert "RetinaNet's own labels, MODEL.MUTUAL_GUIDANCE is not used" in told
    assert "from random weights" in told
    assert "STRATEGY" not in told and "sigma" not in told.lower()


@pytest.mark.parametrize(
    ("name", "level", "told"),
    [
        ("detectron2.utils.events", "INFO", True),
        ("detectron2.evaluation.evaluator", "INFO", True),
        ("mutual_guidance.engine.trainer", "INFO", True),
        ("mutual_guidance.engine.setup", "INFO", False),
        ("detectron2.evaluation.testing", "INFO", False),
        ("detectron2", "INFO", False),
        ("detectron2", "WARNING", True),
        ("fvcore.common.checkpoint", "ERROR", True),
    ],
)
def test_what_the_terminal_is_told(name, level, told):
    record = logging.LogRecord(name, getattr(logging, level), "", 0, "", None, None)
    assert _Brief().filter(record) == told


def test_what_is_logged_cannot_steer_a_terminal(tmp_path):
    code = (
        "import sys, logging; from mutual_guidance.engine.console import setup_logs;"
        "setup_logs(sys.argv[1]);"
        "logging.getLogger('mutual_guidance').warning('a %s b', 'x\\x1b[2J\\x9b.jpg');"
        "logging.getLogger('detectron2').info('\\x1b[36mblue\\x1b[0m')"
    )
    done = run_python(code, tmp_path)
    log = (tmp_path / "log.txt").read_text()
    for text in (done.stdout, log):
        assert "a x\\x1b[2J\\x9b.jpg b" in text and "\x1b[2J" not in text
    assert ": blue\n" in log


def test_each_run_of_a_process_has_its_own_log(tmp_path):
    code = (
        "import sys, logging, os, shutil; from mutual_guidance.engine.console import setup_logs\n"
        "log = logging.getLogger('mutual_guidance')\n"
        "for i, folder in enumerate(sys.argv[1:]):\n"
        "    if i == 3: shutil.rmtree(folder), os.mkdir(folder)\n"
        "    setup_logs(folder)\n"
        "    log.info(f'run {i} begins')"
    )
    done = run_python(code, *(tmp_path / name for name in ("a", "b", "a", "b")))
    told = [done.stdout, *((tmp_path / name / "log.txt").read_text() for name in ("a", "b"))]
    runs = [re.findall(r"run (\d) begins", text) for text in told]
    assert runs == [["0", "1", "2", "3"], ["0", "2"], ["3"]]  # b was removed before the last
    assert "Logging error" not in done.stderr
