import itertools
import random

import pytest
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from mutual_guidance.config import load_config
from mutual_guidance.engine import Trainer, prepare
from mutual_guidance.engine.lists import check_lists
from mutual_guidance.errors import ConfigError, UserError
from mutual_guidance.run_files import flatten
from tests.conftest import REPOSITORY, TINY, data_keys

CONFIG = str(REPOSITORY / "configs" / "PascalVOC-Detection" / "retinanet_R_18.yaml")
# Of detectors of two stages and of what is not in the project.
OTHERS = (
    "MODEL.RPN", "MODEL.ROI", "MODEL.SEM", "MODEL.FPN", "DATASETS.PROPOSAL", "INPUT.CROP",
    "TEST.AUG",
)  # fmt: skip
ODD = (
    "''", "x", "0", "-1", "1e400", "1.5", "None", "[]", "[None]", "['x']", "[[1,2],[3]]", "[[]]",
    "{'a':1}", "[{'a':1}]", "[1e400]", "[nan]", "[True]", "[0]", "[-1]", "[1e30]",
    "[99999999999999999999]", "[['p3']]", "['res2','res2']", "[b'a']", "[1,'a',None]", "[0,0,0]",
    "[1,2,3,4]", "[5,3]", f"[{'1,' * 2000}]", "['a\\x1b']", "[" * 50 + "]" * 50,
)  # fmt: skip


def keys_of_lists(cfg: CfgNode) -> list[str]:
    kept = {k: v for k, v in flatten(cfg).items() if not k.startswith(OTHERS)}
    return [key for key, value in kept.items() if isinstance(value, (list, tuple))]


def test_odd_lists_train_or_end_in_one_sentence(voc, voc_entry, tmp_path):
    for i in range(2):
        voc.add(f"a{i}", [("red", (1, 1, 20, 20)), ("green", (5, 5, 40, 60))])
    usual = [
        *TINY, "INPUT.SQUARE_SIZE", 0, "INPUT.MIN_SIZE_TRAIN", (64,),
        *data_keys(voc_entry),
        "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.IMS_PER_BATCH", 2,
        "SOLVER.MAX_ITER", 9, "OUTPUT_DIR", str(tmp_path / "out"),
    ]  # fmt: skip
    tried = list(itertools.product(keys_of_lists(load_config(CONFIG, usual)), ODD))
    told = 0
    for key, value in random.Random(0).sample(tried, 150):
        try:
            cfg = prepare(CONFIG, [*usual, key, value], data=("TRAIN", "TEST"), for_training=True)
        except UserError:
            told += 1
            continue
        try:
            trainer = Trainer(cfg)
            with EventStorage():
                trainer.model(next(trainer._trainer._data_loader_iter))
        except Exception as error:
            raise AssertionError(f"{key} {value} is accepted") from error
    assert 100 < told < 150


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], r"3 numbers above 0, or 1, got \[1.0, 0.0, 1.0\]"),
        ("MODEL.PIXEL_MEAN", [1.0], "3 numbers each, or 1 each with INPUT.FORMAT L"),
        ("MODEL.RETINANET.BBOX_REG_WEIGHTS", (1.0,), "must be a list of 4 numbers above 0"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[]], "numbers above 0, or of such lists"),
        ("DATASETS.TEST", None, "must be a list of names, got None"),
        ("DATASETS.TEST", ("a", "b", "a"), "names a twice"),
        ("DATASETS.CLASSES", ["a\x1b[2J"], "must be a list of names"),
        ("DATASETS.CATEGORY_IDS", [None], "must be a list of numbers or texts"),
        ("SOLVER.STEPS", (5, 3), r"SOLVER.STEPS must ascend from above 0, got \(5, 3\)"),
        ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 45.0]], r'must be a list of \["bbox", metric'),
        (
            "TEST.EXPECTED_RESULTS",
            [["segm", "AP", 45.0, 1.0]],
            r'must be a list of \["bbox", metric',
        ),
    ],
)
def test_lists_are_told_by_key_and_value(key, value, message):
    cfg = load_config(CONFIG)
    check_lists(cfg)
    *nodes, last = key.split(".")
    node = cfg
    for part in nodes:
        node = node[part]
    node[last] = value
    with pytest.raises(ConfigError, match=message):
        check_lists(cfg)


def test_expected_results_are_of_one_data_set():
    cfg = load_config(CONFIG, ["TEST.EXPECTED_RESULTS", [["bbox", "AP", 45.0, 1.0]]])
    check_lists(cfg)
    cfg.defrost()
    for names in ((), ("a", "b")):
        cfg.DATASETS.TEST = names
        with pytest.raises(ConfigError, match="TEST.EXPECTED_RESULTS are of one data set"):
            check_lists(cfg)


@pytest.mark.parametrize("mean", [[100.0], [100.0, 100.0, 100.0]], ids=len)
def test_images_in_grey_train(voc, voc_entry, tmp_path, mean):
    voc.add("a", [("red", (1, 1, 20, 20)), ("green", (5, 5, 40, 60))])
    opts = [
        *TINY, "INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", mean, "MODEL.PIXEL_STD", [1.0] * len(mean),
        *data_keys(voc_entry),
        "SOLVER.IMS_PER_BATCH", 1, "OUTPUT_DIR", str(tmp_path / "out"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="INPUT.FORMAT, with INPUT.SSD_AUGMENTATION, must be one"):
        prepare(CONFIG, opts, data=("TRAIN", "TEST"), for_training=True)
    opts += ["INPUT.SSD_AUGMENTATION", False]
    trainer = Trainer(prepare(CONFIG, opts, data=("TRAIN", "TEST"), for_training=True))
    with EventStorage():
        losses = trainer.model(next(trainer._trainer._data_loader_iter))
    assert all(loss.isfinite() for loss in losses.values())
