"""From the command line to a config that can run."""

import argparse
import contextlib
import difflib
import logging
import os
import re
from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.engine import default_setup
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from .. import add_mutual_guidance_config
from ..assignment import AnchorMatcher
from ..data import check_datasets, register_datasets
from ..errors import ConfigError
from ..run_files import checkpoint_files, replace_file
from .output import check_output, check_shared_memory
from .step import PRECISIONS

_LOGGER_NAME = "mutual_guidance"
_HEADS = ("per_level", "shared")
logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """
    Build the config of ``args`` (see Detectron2's ``default_argument_parser``), check the data
    sets and set up logging and seeds.

    Raises:
        ConfigError, DatasetError: before any long work.
    """
    cfg = load_config(args.config_file, args.opts)
    check_output(cfg.OUTPUT_DIR, is_new_run=not (args.eval_only or args.resume))
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=_LOGGER_NAME)
    check_values(cfg)
    check_weights(cfg, args.eval_only, args.resume)
    resolve_device(cfg)
    register_datasets(cfg.DATASETS.REGISTER)
    train_names = () if args.eval_only else cfg.DATASETS.TRAIN
    check_datasets([*train_names, *cfg.DATASETS.TEST])
    resolve_classes(cfg)
    if not args.eval_only:
        resolve_schedule(cfg)
        check_shared_memory(cfg)
    cfg.freeze()
    with _kept(os.path.join(cfg.OUTPUT_DIR, "config.yaml") if args.eval_only else None):
        default_setup(cfg, args)
    return cfg


@contextlib.contextmanager
def _kept(path: str | None) -> Iterator[None]:
    """Keep a file that is there as it is: an evaluation's config is not the training's."""
    if path is None or not os.path.isfile(path):
        yield
        return
    with open(path, "rb") as f:
        content = f.read()
    yield
    if comm.is_main_process():
        replace_file(path, lambda f: f.write(content))


def load_config(config_file: str, opts: list[str]) -> CfgNode:
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
    try:
        cfg.merge_from_file(config_file, allow_unsafe=False)
        cfg.merge_from_list(opts)
    except Exception as error:
        # The text of a KeyError is quoted.
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise ConfigError(
            f"config {config_file} with {opts or 'no overrides'}: {reason}"
            f"{_nearest_keys(str(reason), known)}"
        ) from error
    return cfg


def _all_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{key}.")
    return keys


def _nearest_keys(message: str, known: list[str]) -> str:
    """A suggestion for the key that yacs's message calls non-existent."""
    unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", message)
    near = difflib.get_close_matches(unknown[1], known) if unknown else []
    return f"; did you mean {' or '.join(near)}?" if near else ""


def check_values(cfg: CfgNode) -> None:
    """Raise ConfigError for values of the project's keys that cannot be used."""
    guidance = cfg.MODEL.MUTUAL_GUIDANCE
    if guidance.HEAD not in _HEADS:
        raise ConfigError(
            f"MODEL.MUTUAL_GUIDANCE.HEAD must be one of {', '.join(_HEADS)}, got {guidance.HEAD!r}"
        )
    if guidance.STATIC_ITERS < 0:
        raise ConfigError(
            f"MODEL.MUTUAL_GUIDANCE.STATIC_ITERS must be 0 or more, got {guidance.STATIC_ITERS}"
        )
    try:
        AnchorMatcher(
            guidance.STRATEGY,
            guidance.SIGMA,
            tuple(cfg.MODEL.RETINANET.IOU_THRESHOLDS),
            num_positives=guidance.NUM_POSITIVES,
        )
    except ValueError as error:
        raise ConfigError(
            f"MODEL.MUTUAL_GUIDANCE or MODEL.RETINANET.IOU_THRESHOLDS: {error}"
        ) from error
    solver = cfg.SOLVER
    if solver.IMS_PER_BATCH < 1:
        raise ConfigError(f"SOLVER.IMS_PER_BATCH must be 1 or more, got {solver.IMS_PER_BATCH}")
    if solver.EPOCHS <= 0 and solver.MAX_ITER < 1:
        raise ConfigError(
            f"SOLVER.MAX_ITER must be 1 or more where SOLVER.EPOCHS is 0, got {solver.MAX_ITER}"
        )
    if solver.AMP.PRECISION not in PRECISIONS:
        raise ConfigError(
            f"SOLVER.AMP.PRECISION must be one of {', '.join(PRECISIONS)}, "
            f"got {solver.AMP.PRECISION!r}"
        )
    if not 0 <= solver.EMA_DECAY < 1:
        raise ConfigError(f"SOLVER.EMA_DECAY must be in [0, 1), got {solver.EMA_DECAY}")
    dense = [name for name, detector in META_ARCH_REGISTRY if issubclass(detector, DenseDetector)]
    if cfg.TEST.MISALIGNMENT and cfg.MODEL.META_ARCHITECTURE not in dense:
        raise ConfigError(
            f"TEST.MISALIGNMENT measures {', '.join(dense)}, not {cfg.MODEL.META_ARCHITECTURE}: "
            "set it to False"
        )


def check_weights(cfg: CfgNode, eval_only: bool, resume: bool) -> None:
    """Raise ConfigError for weights that are needed and not there."""
    if resume and checkpoint_files(cfg.OUTPUT_DIR):
        return
    weights = cfg.MODEL.WEIGHTS
    if eval_only and not weights and resume:
        raise ConfigError(
            f"--eval-only --resume: {cfg.OUTPUT_DIR} has no checkpoint; set OUTPUT_DIR to that of "
            "the training"
        )
    if eval_only and not weights:
        raise ConfigError("--eval-only needs trained weights: add MODEL.WEIGHTS FILE, or --resume")
    if weights and "://" not in weights and not os.path.isfile(weights):
        raise ConfigError(f"MODEL.WEIGHTS: there is no file {weights}")


def resolve_device(cfg: CfgNode) -> None:
    """MODEL.DEVICE "auto" to what there is. Raises ConfigError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if cfg.MODEL.DEVICE == "auto":
        cfg.MODEL.DEVICE = "cuda" if has_gpu else "cpu"
        if not has_gpu:
            logger.info("No GPU found: running on the CPU")
    elif cfg.MODEL.DEVICE.startswith("cuda") and not has_gpu:
        raise ConfigError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but PyTorch finds no GPU; use auto or cpu"
        )
    amp = cfg.SOLVER.AMP
    if amp.ENABLED and cfg.MODEL.DEVICE == "cpu" and amp.PRECISION == "float16":
        raise ConfigError("SOLVER.AMP.PRECISION float16 needs a GPU; on the CPU use bfloat16")


def resolve_classes(cfg: CfgNode) -> None:
    """Take the number of classes from the data sets, which must agree on them."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    known = [n for n in names if "thing_classes" in MetadataCatalog.get(n).as_dict()]
    classes = MetadataCatalog.get(known[0]).thing_classes if known else cfg.DATASETS.CLASSES
    if not classes:
        raise ConfigError("DATASETS.TRAIN and DATASETS.TEST are empty: name a data set")
    for name in known[1:]:
        if MetadataCatalog.get(name).thing_classes != classes:
            raise ConfigError(f"data sets {known[0]} and {name} differ in their classes")
    cfg.DATASETS.CLASSES = list(classes)
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.FCOS.NUM_CLASSES = len(classes)
    logger.info(f"{len(classes)} classes: {', '.join(classes)}")


def resolve_schedule(cfg: CfgNode) -> None:
    """Epochs to iterations, and the learning rate to the batch size."""
    solver = cfg.SOLVER
    reference = solver.REFERENCE_IMS_PER_BATCH
    if reference > 0 and reference != solver.IMS_PER_BATCH:
        scaled = solver.BASE_LR * solver.IMS_PER_BATCH / reference
        logger.info(
            f"Learning rate {solver.BASE_LR} for {reference} images a batch becomes {scaled} "
            f"for {solver.IMS_PER_BATCH}"
        )
        solver.BASE_LR = scaled
        solver.REFERENCE_IMS_PER_BATCH = solver.IMS_PER_BATCH
    if solver.EPOCHS > 0:
        num_images = len(
            get_detection_dataset_dicts(
                cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            )
        )
        solver.MAX_ITER = max(1, round(solver.EPOCHS * num_images / solver.IMS_PER_BATCH))
        logger.info(
            f"{solver.EPOCHS} epochs of {num_images} images are {solver.MAX_ITER} iterations"
        )


def load_tool_config(config_file: str, opts: Sequence[str]) -> CfgNode:
    """
    :func:`load_config`, checked, for a machine other than that of the training: MODEL.DEVICE is
    "auto" and there is no mixed precision, whatever the file says, unless ``opts`` name them.

    Raises:
        ConfigError: before any long work.
    """
    anywhere = ["MODEL.DEVICE", "auto", "SOLVER.AMP.ENABLED", False]
    cfg = load_config(config_file, [*anywhere, *opts])
    check_values(cfg)
    resolve_device(cfg)
    return cfg


def setup_tool(config_file: str, opts: list[str]) -> CfgNode:
    """
    The config for a tool that looks at DATASETS.TRAIN: checked as in :func:`setup`, but nothing is
    written and no seed is set.

    Raises:
        ConfigError, DatasetError: before any long work.
    """
    cfg = load_tool_config(config_file, opts)
    register_datasets(cfg.DATASETS.REGISTER)
    check_datasets(cfg.DATASETS.TRAIN)
    resolve_classes(cfg)
    cfg.freeze()
    return cfg
