"""What is wrong with a config, told before any long work."""

import difflib
import logging
import os
import traceback
from functools import partial

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from torch import nn
from torchvision.models import list_models

from ..config import add_mutual_guidance_config
from ..data.mapper import is_ssds
from ..data.shared import once_a_machine
from ..errors import ConfigError, UserError
from ..modeling.backbone.fssd import FSSDPyramid
from ..modeling.backbone.layers import Pyramid
from ..modeling.backbone.rfb import RFBPyramid
from ..modeling.meta_arch import Guided, GuidedFCOS
from ..run_files import checkpoint_files
from ..typed import did_you_mean, nearest_path
from .lists import check_lists
from .precision import PRECISIONS

logger = logging.getLogger(__name__)

_FLIPS = ("horizontal", "vertical", "none")
_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
_OF_RESNET = [f"build_{kind}_resnet_backbone" for kind in ("fssd", "top_down")]
_OF_VGG = [f"build_{kind}_vgg_backbone" for kind in ("fssd", "top_down", "rfb")]
_SEEDS = 2**32  # of NumPy
# By then a new layer's BatchNorm, of momentum 0.01, has but 5 % of the statistics it began with.
_ITERS_OF_STATISTICS = 300
# How the names of weights of a trunk alone begin.
_OF_TRUNKS = ("torchvision://", "detectron2://ImageNetPretrained/")
# Detectron2's third, WarmupStepWithFixedGammaLR, fails in the last iteration of every training.
_SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR")


def check_values(cfg: CfgNode, for_training: bool = True) -> None:
    """Raise ConfigError for values that cannot be used, of SOLVER those of a training alone."""
    check_lists(cfg)
    guidance, solver = cfg.MODEL.MUTUAL_GUIDANCE, cfg.SOLVER
    if for_training:
        _check_solver(solver)
        _check_without_effect(cfg)
        _check_choice("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, _FLIPS)
        _check_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, ("BGR", "RGB", "L"))
    if cfg.SEED + comm.get_world_size() > _SEEDS:  # each process has its own
        raise ConfigError(
            f"SEED must be at most 2**32 less the number of processes, got {cfg.SEED}"
        )
    _check_off("TEST.AUG.ENABLED", cfg.TEST.AUG.ENABLED)
    _check_least("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0)
    _check_choice("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, _SAMPLERS)
    _check_least("INPUT.SQUARE_SIZE", cfg.INPUT.SQUARE_SIZE, 0)
    how = cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    _check_choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", how, ("choice", "range"))
    for key in ("ALPHA", "GAMMA", "BETA"):
        value = cfg.MODEL.RETINANET[f"BALANCED_L1_{key}"]
        _check_above(f"MODEL.RETINANET.BALANCED_L1_{key}", value, 0)
    _check_choice("SOLVER.AMP.PRECISION", solver.AMP.PRECISION, ("auto", *PRECISIONS))
    _check_least("MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", guidance.STATIC_ITERS, 0)
    if is_ssds(cfg):
        what = "INPUT.FORMAT, with INPUT.SSD_AUGMENTATION,"
        _check_choice(what, cfg.INPUT.FORMAT, ("BGR", "RGB"))
    if cfg.TEST.PRECISE_BN.ENABLED:
        _check_least("TEST.PRECISE_BN.NUM_ITER", cfg.TEST.PRECISE_BN.NUM_ITER, 1)
    detector = check_detector(cfg)
    if detector is not None and for_training:
        _check_all_is_used(cfg, detector)
        _check_head(cfg, detector)


def _check_solver(solver: CfgNode) -> None:
    for key in ("IMS_PER_BATCH", "CHECKPOINT_PERIOD"):
        _check_least(f"SOLVER.{key}", solver[key], 1)
    for key in (
        "HANG_SECONDS", "MOMENTUM", "WEIGHT_DECAY", "CHECKPOINT_KEEP", "WARMUP_ITERS",
        "MAX_WARMUP_SHARE",
    ):  # fmt: skip
        _check_least(f"SOLVER.{key}", solver[key], 0)
    if solver.EPOCHS <= 0:
        _check_least("SOLVER.MAX_ITER, where SOLVER.EPOCHS is 0,", solver.MAX_ITER, 1)
    if not 0 <= solver.EMA_DECAY < 1:
        raise ConfigError(f"SOLVER.EMA_DECAY must be in [0, 1), got {solver.EMA_DECAY}")
    _check_above("SOLVER.BASE_LR", solver.BASE_LR, 0)
    if solver.NESTEROV:
        _check_above("SOLVER.MOMENTUM, with SOLVER.NESTEROV,", solver.MOMENTUM, 0)
    _check_choice("SOLVER.LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, _SCHEDULERS)
    _check_choice("SOLVER.WARMUP_METHOD", solver.WARMUP_METHOD, ("constant", "linear"))
    clipping = solver.CLIP_GRADIENTS.CLIP_TYPE
    _check_choice("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clipping, ("value", "norm"))


def _check_without_effect(cfg: CfgNode) -> None:
    """Raise ConfigError for keys of Detectron2 that no training would heed."""
    _check_off("INPUT.CROP.ENABLED", cfg.INPUT.CROP.ENABLED)
    backbone = cfg.MODEL.BACKBONE
    if backbone.NAME in _OF_VGG and backbone.FREEZE_AT:
        raise ConfigError(
            f"MODEL.BACKBONE.FREEZE_AT {backbone.FREEZE_AT} has no effect on VGG-16: set it to 0"
        )


def _check_head(cfg: CfgNode, detector: Guided) -> None:
    """Raise ConfigError for keys of a head that the detector has none of."""
    if cfg.MODEL.MUTUAL_GUIDANCE.HEAD != "per_level":
        return
    defaults, name = get_cfg(), "FCOS" if isinstance(detector, GuidedFCOS) else "RETINANET"
    add_mutual_guidance_config(defaults)
    for key in ("NUM_CONVS", "NORM"):
        value = cfg.MODEL[name][key]
        if value != defaults.MODEL[name][key]:
            raise ConfigError(
                f"MODEL.{name}.{key} {value!r} has no effect with MODEL.MUTUAL_GUIDANCE.HEAD "
                "per_level, which has no such layers: remove it, or set HEAD shared"
            )


def warn_of_slow_statistics(cfg: CfgNode) -> None:
    """Of a training so short that BatchNorm would be tested with what it began with."""
    is_own = cfg.MODEL.BACKBONE.NAME in (*_OF_RESNET, *_OF_VGG)
    norm = cfg.MODEL.PYRAMID.NORM or ""
    averages = "BN" in norm and norm != "FrozenBN"
    is_short = cfg.SOLVER.MAX_ITER < _ITERS_OF_STATISTICS and not cfg.TEST.PRECISE_BN.ENABLED
    if is_own and averages and is_short:
        logger.warning(
            f"{cfg.SOLVER.MAX_ITER} iterations are too few for BatchNorm's running statistics, by "
            "which the detector is evaluated and predicts: train longer, or add "
            "TEST.PRECISE_BN.ENABLED True TEST.PRECISE_BN.NUM_ITER 10"
        )


def _check_off(key: str, value: bool) -> None:
    if value:
        raise ConfigError(f"{key} has no effect on the detectors of this project: set it False")


def _check_choice(key: str, value: object, choices) -> None:
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(choices)}, got {value!r}")


def _check_least(key: str, value: float, least: float) -> None:
    if value is None or not value >= least:
        raise ConfigError(f"{key} must be {least} or more, got {value}")


def _check_above(key: str, value: float, bound: float) -> None:
    if value is None or not value > bound:
        raise ConfigError(f"{key} must be above {bound}, got {value}")


def check_batch(cfg: CfgNode, num_processes: int) -> None:
    """Raise ConfigError for a batch that the processes cannot share."""
    batch = cfg.SOLVER.IMS_PER_BATCH
    if batch % num_processes:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {batch} cannot be divided among {num_processes} processes: "
            f"set it to a multiple, as {num_processes * max(1, round(batch / num_processes))}"
        )


def check_detector(cfg: CfgNode) -> Guided | None:
    """
    Returns:
        One of the project's own, built without memory for its weights where its parts can be;
        None for any other.

    Raises:
        ConfigError: it cannot be built or, with TEST.MISALIGNMENT, measured.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    detectors = dict(iter(META_ARCH_REGISTRY))
    if name not in detectors:
        near = difflib.get_close_matches(name, detectors) or sorted(detectors)
        raise ConfigError(f"MODEL.META_ARCHITECTURE {name} is unknown; there are {', '.join(near)}")
    dense = [key for key, detector in detectors.items() if issubclass(detector, DenseDetector)]
    if cfg.TEST.MISALIGNMENT and name not in dense:
        raise ConfigError(
            f"TEST.MISALIGNMENT measures {', '.join(dense)}, not {name}: set it to False"
        )
    if not issubclass(detectors[name], Guided):
        if name == "RetinaNet" and cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE == "balanced_l1":
            raise ConfigError(
                "MODEL.RETINANET.BBOX_REG_LOSS_TYPE balanced_l1 is unknown to Detectron2's "
                "RetinaNet: set it to smooth_l1 or giou"
            )
        return None
    _check_limits(cfg)
    labels = cfg.MODEL.RETINANET.IOU_LABELS
    has_anchors = getattr(detectors[name], "candidate_kind", "") == "boxes"
    if has_anchors and labels not in ([0, -1, 1], (0, -1, 1)):
        raise ConfigError(
            f"MODEL.RETINANET.IOU_LABELS {labels} has no effect on {name}: anchors between the "
            "thresholds are ignored; to ignore none, make both of IOU_THRESHOLDS the higher one"
        )
    try:
        detectors[name].build_matcher(cfg)  # before Detectron2's, which only asserts
        detector = _build(detectors[name], cfg)
    except Exception as error:  # Detectron2's parts fail in many ways
        raise ConfigError(f"MODEL: {name} cannot be built: {_reason(error)}") from error
    _check_channels(cfg, detector)
    return detector


def _build(kind: type[Guided], cfg: CfgNode) -> Guided:
    """A detector to look at. What fails without values, as Detectron2's Swin, has random ones."""
    try:
        with torch.device("meta"):
            return kind(cfg)
    except Exception:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return kind(cfg)


def _check_limits(cfg: CfgNode) -> None:
    """Raise ConfigError for limits below 1, which in other detectors mean that there is none."""
    for head in ("RETINANET", "FCOS"):
        topk = cfg.MODEL[head].TOPK_CANDIDATES_TEST
        _check_least(f"MODEL.{head}.TOPK_CANDIDATES_TEST", topk, 1)
    _check_least("TEST.DETECTIONS_PER_IMAGE", cfg.TEST.DETECTIONS_PER_IMAGE, 1)


def _check_channels(cfg: CfgNode, detector: Guided) -> None:
    """Raise ConfigError for a head or a trunk that its input does not fit."""
    levels, used = detector.backbone.output_shape(), detector.head_in_features
    shared = cfg.MODEL.MUTUAL_GUIDANCE.HEAD == "shared"
    if shared and len({levels[name].channels for name in used}) > 1:
        raise ConfigError(
            "MODEL.MUTUAL_GUIDANCE.HEAD shared needs the same channels at every level, which this "
            "pyramid has not: set it to per_level"
        )
    if cfg.MODEL.BACKBONE.NAME in _OF_VGG and len(cfg.MODEL.PIXEL_MEAN) != 3:
        raise ConfigError("VGG-16 takes three channels: give MODEL.PIXEL_MEAN three numbers")


def _check_all_is_used(cfg: CfgNode, detector: Guided) -> None:
    """
    Raise ConfigError for levels and maps that nothing looks at, for the gradients of whose layers
    several processes would wait in vain.
    """
    levels, used = list(detector.backbone.output_shape()), list(detector.head_in_features)
    is_own, several = isinstance(detector.backbone, Pyramid), comm.get_world_size() > 1
    coarser = levels[levels.index(used[-1]) + 1 :] if is_own else []
    if coarser:
        raise ConfigError(
            f"MODEL: the head's IN_FEATURES leave out {', '.join(coarser)} of the pyramid: set "
            f"MODEL.PYRAMID.NUM_LEVELS to {len(levels) - len(coarser)}, or add them"
        )
    unused = [n for n in levels if n not in used and n not in _feeding(detector.backbone, used)]
    if unused and several:
        raise ConfigError(
            f"MODEL: the head's IN_FEATURES leave out {', '.join(unused)} of the pyramid, which "
            "several processes would wait for: add them, or train with one"
        )
    if not is_own:
        return
    last = max(cfg.MODEL.RESNETS.OUT_FEATURES)
    if cfg.MODEL.BACKBONE.NAME in _OF_RESNET and last not in cfg.MODEL.PYRAMID.IN_FEATURES:
        raise ConfigError(
            f"MODEL.PYRAMID.IN_FEATURES leave out {last} of MODEL.RESNETS.OUT_FEATURES: remove it "
            "there"
        )
    is_left_out = "conv5_3" not in cfg.MODEL.PYRAMID.IN_FEATURES
    if cfg.MODEL.BACKBONE.NAME in _OF_VGG and is_left_out and several:
        raise ConfigError("MODEL.PYRAMID.IN_FEATURES leave out conv5_3, VGG-16's last: add it")


def _feeding(backbone: nn.Module, used: list[str]) -> list[str]:
    """Levels of which others are made that the head looks at; of an unknown pyramid, all."""
    levels = list(backbone.output_shape())
    if isinstance(backbone, RFBPyramid):
        return levels[1:]  # nothing is made of the finest
    if isinstance(backbone, Pyramid) and not isinstance(backbone, FSSDPyramid):
        return []
    if not isinstance(backbone, FPN) or not isinstance(backbone.top_block, LastLevelP6P7):
        return levels
    made = levels[-backbone.top_block.num_levels :]
    return [backbone.top_block.in_feature, *made[:-1]] if used[-1] in made else []


def _reason(error: Exception) -> str:
    """What an error says; of a bare assertion, the line that makes it."""
    if isinstance(error, AssertionError) and not str(error):
        return traceback.extract_tb(error.__traceback__)[-1].line
    return repr(error) if isinstance(error, LookupError) or not str(error) else str(error)


def check_weights(cfg: CfgNode, needed: str) -> None:
    """
    Raise ConfigError unless MODEL.WEIGHTS are as they are needed: "trained", "start" (they may be
    none) or "any" (nothing is looked at). Those of another place are fetched.
    """
    weights = cfg.MODEL.WEIGHTS
    if needed == "trained" and (not weights or weights.startswith(_OF_TRUNKS)):
        has = "has some" if checkpoint_files(cfg.OUTPUT_DIR) else "has none"
        given = f", not {weights}" if weights else ""
        raise ConfigError(
            f"trained weights are needed{given}: add MODEL.WEIGHTS FILE, or --resume for the "
            f"newest checkpoint of OUTPUT_DIR ({cfg.OUTPUT_DIR} {has})"
        )
    if needed == "any" or not weights:
        return
    place, _, query = weights.partition("?")
    if query and not query.startswith("matching_heuristics="):
        raise ConfigError(
            f"MODEL.WEIGHTS {weights}: Detectron2 takes no ?{query}; download the file and name it"
        )
    if "://" in weights:
        once_a_machine(partial(_fetch_weights, place))
    elif not os.path.isfile(place):
        raise ConfigError(f"MODEL.WEIGHTS: there is no file {weights}{nearest_path(weights)}")


def _fetch_weights(weights: str) -> None:
    """Raise ConfigError for weights of another place that cannot be had."""
    name, models = weights.partition("://")[2], list_models()
    meant = [] if name in models else difflib.get_close_matches(name, models)
    try:
        if os.path.isfile(PathManager.get_local_path(weights)):
            return
        reason = "there is no such place"
    except UserError:
        raise
    except Exception as error:  # servers and catalogs fail in many ways
        reason = str(getattr(error, "reason", error))
    raise ConfigError(
        f'MODEL.WEIGHTS {weights} cannot be had ({reason}): name a local file, or set it to "" to '
        f"start from random weights{did_you_mean(meant)}"
    )
