"""Every configuration key of the project, and how files and command lines set them."""

import os
import re
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from .documents import check_bases, nearest_key
from .errors import ConfigError
from .typed import did_you_mean, fit_pairs, fit_values, nearest_keys, nearest_path, pairs_of


def add_mutual_guidance_config(cfg: CN) -> None:
    """Add the project's keys, with their defaults, to Detectron2's."""
    # Memory layout of the convolutions: NHWC, which is faster on some hardware.
    cfg.MODEL.CHANNELS_LAST = False

    cfg.MODEL.MUTUAL_GUIDANCE = CN()
    # Label assignment: static, localize_to_classify, classify_to_localize or mutual_guidance of the
    # paper, or atss, task_aligned (TOOD) or simota (YOLOX).
    cfg.MODEL.MUTUAL_GUIDANCE.STRATEGY = "mutual_guidance"
    # sigma of Eq. (1): degree of amplification, above 1; the larger, the weaker.
    cfg.MODEL.MUTUAL_GUIDANCE.SIGMA = 2.0
    # Positives of a ground truth: "static", as many as the static rule gives it (the paper), or
    # "dynamic_k", the sum of its 15 highest qualities for the task (its authors' later work).
    cfg.MODEL.MUTUAL_GUIDANCE.NUM_POSITIVES = "static"
    # What the score of a positive shall be: "label", 1 by the focal loss (the paper), or "quality",
    # the IoU of its regressed box, for task_aligned TOOD's normalised metric, by the quality focal
    # loss with gamma in the place of its beta.
    cfg.MODEL.MUTUAL_GUIDANCE.CLS_TARGET = "label"
    # Iterations of a run that label by "static" before STRATEGY does; 0 as in the paper.
    cfg.MODEL.MUTUAL_GUIDANCE.STATIC_ITERS = 0
    # Bytes of working memory that an assignment may use, beyond 40 an anchor of the batch.
    cfg.MODEL.MUTUAL_GUIDANCE.MEMORY_BUDGET = 2**30
    # Prediction layers: "shared", Detectron2's towers shared by the levels, or "per_level", one 3x3
    # convolution a task and level as in the paper.
    cfg.MODEL.MUTUAL_GUIDANCE.HEAD = "shared"

    # Besides Detectron2's box losses, BBOX_REG_LOSS_TYPE may be "balanced_l1" (Libra R-CNN), with
    # its alpha, gamma and beta.
    cfg.MODEL.RETINANET.BALANCED_L1_ALPHA = 0.5
    cfg.MODEL.RETINANET.BALANCED_L1_GAMMA = 1.5
    cfg.MODEL.RETINANET.BALANCED_L1_BETA = 0.11

    # FCOS, with the meanings of MODEL.RETINANET's keys and Detectron2's defaults.
    cfg.MODEL.FCOS = CN()
    cfg.MODEL.FCOS.NUM_CLASSES = 80
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    # Points within so many strides of an object's centre, in x and y, can be positive.
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5
    # Convolutions in the towers of the "shared" head, and their normalisation.
    cfg.MODEL.FCOS.NUM_CONVS = 4
    cfg.MODEL.FCOS.NORM = "GN"
    cfg.MODEL.FCOS.PRIOR_PROB = 0.01
    cfg.MODEL.FCOS.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.FCOS.FOCAL_LOSS_GAMMA = 2.0
    cfg.MODEL.FCOS.SCORE_THRESH_TEST = 0.2
    cfg.MODEL.FCOS.TOPK_CANDIDATES_TEST = 1000
    cfg.MODEL.FCOS.NMS_THRESH_TEST = 0.6

    # The fused pyramid of FSSD, alone or below a top-down path, and RFBNet's.
    cfg.MODEL.PYRAMID = CN()
    # Maps of the trunk, the finest first: conv4_3 and conv5_3 of VGG-16.
    cfg.MODEL.PYRAMID.IN_FEATURES = ["res3", "res4", "res5"]
    # Of every level; RFBNet has its own.
    cfg.MODEL.PYRAMID.OUT_CHANNELS = 256
    # Levels p3, p4, ... from stride 8 on: 4 at 320 pixels, 5 from 512 on.
    cfg.MODEL.PYRAMID.NUM_LEVELS = 4
    # See detectron2.layers.get_norm.
    cfg.MODEL.PYRAMID.NORM = "BN"

    # Side in pixels of the square to which images are warped, for training and testing. 0 resizes
    # the shortest edge instead, as Detectron2 does (INPUT.MIN_SIZE_TRAIN etc.).
    cfg.INPUT.SQUARE_SIZE = 0
    # Train on squares with SSD's augmentation (crop, colour, expansion, flip); False only flips.
    cfg.INPUT.SSD_AUGMENTATION = True

    # Data sets to register, each a mapping:
    #   name: as in DATASETS.TRAIN and DATASETS.TEST
    #   format: voc, coco or yolo
    #   root: folder; relative ones are below $DETECTRON2_DATASETS (default: datasets)
    #   split: (voc) file below ImageSets/Main, without its .txt; (yolo) key of data.yaml, instead
    #     of images
    #   classes: names in order, all or some; without it they are collected from the annotations
    #     (voc), the categories (coco) or read from names in data.yaml below the root (yolo)
    #   annotations: (coco) JSON file, relative to root
    #   images: (coco, yolo) folder, relative to root; (yolo) text file, or list of those, as well
    #   data: (yolo) another name than data.yaml
    cfg.DATASETS.REGISTER = []
    # Names of the classes in order, filled in from the data sets, so that the config.yaml of a run
    # tells them where the data sets are not at hand.
    cfg.DATASETS.CLASSES = []
    # Their ids in COCO's format, filled in likewise; none counts them from 1.
    cfg.DATASETS.CATEGORY_IDS = []

    # Length of the training in epochs. 0 leaves it to SOLVER.MAX_ITER.
    cfg.SOLVER.EPOCHS = 0.0
    # Images a batch for which SOLVER.BASE_LR is meant; it is scaled linearly to
    # SOLVER.IMS_PER_BATCH. 0 takes BASE_LR as it is.
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 0
    # SOLVER.WARMUP_ITERS is shortened to this share of the training, if it is longer.
    cfg.SOLVER.MAX_WARMUP_SHARE = 0.1
    # After so many seconds without an iteration, an evaluated image or a step of COCO's metrics, a
    # process ends the run: something hangs. 0 is without limit. VOC's metrics are one step. (Of
    # several processes the others wait for COCO's for up to a day, for VOC's 30 minutes.)
    cfg.SOLVER.HANG_SECONDS = 1800.0
    # With SOLVER.AMP.ENABLED: float16 (on a GPU), bfloat16, or "auto": what the device does well,
    # float32 perhaps, and MODEL.CHANNELS_LAST with it. Assignment stays in float32.
    cfg.SOLVER.AMP.PRECISION = "auto"
    # Decay of a moving average of the weights that is kept and evaluated beside them, in [0, 1); 0
    # keeps none.
    cfg.SOLVER.EMA_DECAY = 0.0

    # Checkpoints to keep, the newest ones; 0 keeps all.
    cfg.SOLVER.CHECKPOINT_KEEP = 3

    # Measure task misalignment besides AP, before and after NMS: see docs/misalignment.md.
    cfg.TEST.MISALIGNMENT = False
    # With TEST.EVAL_PERIOD, keep the weights of the best AP as model_best.pth.
    cfg.TEST.KEEP_BEST = True


def load_config(config_file: str | os.PathLike, opts: Sequence[object] = ()) -> CN:
    """
    The defaults, then the file, then KEY VALUE pairs. MODEL.DEVICE is "auto" where they say
    nothing: a GPU if there is one, else the CPU.

    Raises:
        ConfigError: the file is missing or no YAML, or a key or value does not fit.
    """
    cfg = get_cfg()
    add_mutual_guidance_config(cfg)
    cfg.MODEL.DEVICE = "auto"
    known = _all_keys(cfg)
    path, pairs = os.fspath(config_file), pairs_of(opts)
    if not path:
        raise ConfigError("no config is given: add --config-file FILE (there are some in configs/)")
    if not os.path.isfile(path):
        raise ConfigError(f"config {path}: there is no such file{nearest_path(path)}")
    try:
        _merge_file(cfg, path)
        # A YAML expands neither, a shell not every ~ of KEY=VALUE.
        _expand(cfg, os.path.expandvars)
        cfg.merge_from_list(fit_pairs(pairs, cfg))
        _expand(cfg, os.path.expanduser)
    except Exception as error:
        # The text of a KeyError is quoted.
        reason = str(error.args[0] if isinstance(error, KeyError) else error)
        raise ConfigError(
            f"config {path} with {list(opts) or 'no overrides'}: {_explained(reason, known)}"
        ) from error
    given = [key for key, _ in pairs]
    solver = cfg.SOLVER
    if "SOLVER.MAX_ITER" in given and "SOLVER.EPOCHS" not in given and solver.MAX_ITER > 0:
        solver.EPOCHS = 0.0  # what is typed wins over the file
    return cfg


def _expand(cfg: CN, expand: Callable[[str], str]) -> None:
    """Expand the paths that are the user's own."""
    cfg.OUTPUT_DIR = expand(cfg.OUTPUT_DIR or "")
    cfg.MODEL.WEIGHTS = expand(cfg.MODEL.WEIGHTS or "")


def _merge_file(cfg: CN, path: str) -> None:
    """
    Merge a YAML file into the keys, also one that an earlier version has written.

    Raises:
        OSError, KeyError, ValueError, yaml.YAMLError: it cannot be read or does not fit.
    """
    path = os.path.normpath(path)
    check_bases(path)
    loaded = CN(CN.load_yaml_with_base(path))
    if nearest_key(path, "SOLVER", ("EPOCHS", "MAX_ITER")) == "MAX_ITER":
        loaded.SOLVER.EPOCHS = 0.0  # a file wins over those that it is based on
    if loaded.get("VERSION", cfg.VERSION) != cfg.VERSION:
        raise ValueError(f"VERSION must be {cfg.VERSION}, Detectron2's, got {loaded.VERSION}")
    cfg.merge_from_other_cfg(CN(fit_values(loaded, cfg)))


def _all_keys(cfg: CN, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys.append(prefix + key)
        if isinstance(value, CN):
            keys += _all_keys(value, f"{prefix}{key}.")
    return keys


def _explained(reason: str, known: list[str]) -> str:
    """What yacs says, in words for a person: a key that is meant, the kind that a value must be."""
    unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", reason)
    if unknown:
        return f"there is no key {unknown[1]}{did_you_mean(nearest_keys(unknown[1], known))}"
    mismatch = re.search(
        r"Type mismatch \(<class '(\w+)'> vs. <class '(?:\w+\.)*(\w+)'>\) with values "
        r"\(.* vs. (.*)\) for config key: (\S+)", reason, re.DOTALL,
    )  # fmt: skip
    if mismatch:
        needed, given, value, key = mismatch.groups()
        return f"{key} is {value!r}, of the kind {given}; it must be of the kind {needed}"
    return reason
