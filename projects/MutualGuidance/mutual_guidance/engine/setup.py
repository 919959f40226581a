"""From the command line to a config that can run."""

import argparse
import contextlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.utils import comm

from ..config import load_config
from ..data import check_datasets, records_of, register_datasets
from ..data.builtin import classes_of, tell_classes
from ..data.register import FAULTS_FILE
from ..errors import ConfigError, UserError, printable
from ..run_files import checkpoint_files, replace_file
from . import full_disk
from .checks import check_batch, check_values, check_weights, warn_of_slow_statistics
from .console import setup_logs
from .device import resolve_device
from .lists import check_lists
from .output import check_output, check_shared_memory
from .precision import check_precision, resolve_precision, slow_precision
from .resume import keep_to_run

_ANYWHERE = ("MODEL.DEVICE", "auto", "SOLVER.AMP.ENABLED", False)
# Iterations at least between checkpoints where SOLVER.CHECKPOINT_PERIOD is nobody's choice.
_LEAST_PERIOD = 100
logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """
    Make a training or an evaluation of ``args`` (see Detectron2's ``default_argument_parser``)
    ready: its output folder, log, config and seeds.

    Raises:
        ConfigError, DatasetError, OutputError: before any long work.
    """
    told = load_config(args.config_file, args.opts)
    folder = told.OUTPUT_DIR
    if not args.eval_only:
        check_batch(told, told.SOLVER.REFERENCE_WORLD_SIZE or comm.get_world_size())
        check_precision(told)
    check_output(folder, is_new_run=not (args.eval_only or args.resume))
    setup_logs(folder)
    full_disk.mute_failing_logs("mutual_guidance", "fvcore", "detectron2")
    if not args.eval_only and comm.is_main_process():
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, FAULTS_FILE))  # they may have been mended since
    # What the main process sees holds for all: else some would wait for others.
    if comm.all_gather(bool(args.resume and checkpoint_files(folder)))[0]:
        weights = "any"  # what the run began with may be gone
    else:
        weights = "trained" if args.eval_only else "start"
    data = ("TEST",) if args.eval_only else ("TRAIN", "TEST")
    with _noted(os.path.join(folder, "log.txt")):
        check_lists(told)  # of sizes, among others
        check_shared_memory(told, is_training=not args.eval_only)
        cfg = prepare(
            args.config_file,
            args.opts,
            data=data,
            weights=weights,
            for_training=True,
            folder=folder,
        )
    if not args.eval_only:
        if reason := slow_precision(cfg):
            logger.warning(reason)
        cfg = _for_the_processes(cfg)
        if weights == "any":
            cfg = keep_to_run(cfg, os.path.join(folder, "config.yaml"))
        warn_of_slow_statistics(cfg)
        if weights == "start" and not cfg.MODEL.WEIGHTS:
            logger.warning(
                "Starting from random weights (MODEL.WEIGHTS is empty): with few images a detector "
                "learns much more from ImageNet's, as those that configs/detectors name"
            )
    # A training that goes on writes it anew once its checkpoint has been loaded.
    kept = os.path.join(folder, "config.yaml") if args.eval_only or weights == "any" else None
    with full_disk.told(folder), _kept(kept):
        default_setup(cfg, args)
    return cfg


def _for_the_processes(cfg: CfgNode) -> CfgNode:
    """
    Scaled by SOLVER.REFERENCE_WORLD_SIZE, which Detectron2's trainer would do too late for a
    resumed run to be compared with what it was; what happens now and then still does.
    """
    if cfg.SOLVER.REFERENCE_WORLD_SIZE in (0, comm.get_world_size()):
        return cfg
    scaled = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()).clone()
    scaled.defrost()
    scaled.SOLVER.CHECKPOINT_PERIOD = max(1, scaled.SOLVER.CHECKPOINT_PERIOD)
    _drop_late_steps(scaled.SOLVER)  # rounded, they may have become those of the end
    if cfg.TEST.EVAL_PERIOD > 0:
        scaled.TEST.EVAL_PERIOD = max(1, scaled.TEST.EVAL_PERIOD)
    if cfg.SOLVER.REFERENCE_IMS_PER_BATCH > 0:  # the learning rate is the scaled batch's
        scaled.SOLVER.REFERENCE_IMS_PER_BATCH = scaled.SOLVER.IMS_PER_BATCH
    scaled.freeze()
    return scaled


def prepare(
    config_file: str | os.PathLike,
    opts: Sequence[object] = (),
    *,
    data: Sequence[str] = (),
    weights: str = "any",
    for_training: bool = False,
    folder: str | None = None,
) -> CfgNode:
    """
    From a command line to a frozen config that can run here. No seed is set. All processes of a
    training must call it.

    Args:
        config_file: a YAML. opts: KEY VALUE pairs.
        data: keys below DATASETS, "TRAIN" and "TEST", whose data sets are read and checked; the
            first must name one.
        weights: see :func:`check_weights`. With "trained", the names of the classes must be known,
            from the config, the config.yaml beside the weights, or a data set.
        for_training: device, precision and schedule are the config's. A tool may run on another
            machine than the training, whose config.yaml it is given: without this, MODEL.DEVICE is
            "auto" and there is no mixed precision, unless ``opts`` name them.
        folder: where all faults of the data sets are listed, and which an evaluation resumes; None
            lists them nowhere.

    Raises:
        ConfigError, DatasetError: before any long work.
    """
    cfg = load_config(config_file, opts if for_training else [*_ANYWHERE, *opts])
    is_training = for_training and "TRAIN" in data
    check_values(cfg, is_training)
    check_weights(cfg, weights)
    resolve_device(cfg)
    resolve_precision(cfg)
    register_datasets(cfg.DATASETS.REGISTER)
    needs_classes = bool(data) or weights == "trained"
    told_by = "DATASETS.CLASSES"
    if not is_training and not cfg.DATASETS.CLASSES:
        run = folder if weights == "any" else os.path.dirname(cfg.MODEL.WEIGHTS)
        told_by = _take_classes(cfg, run)
    if data and not cfg.DATASETS[data[0]]:
        raise ConfigError(f"DATASETS.{data[0]} is empty: name a data set")
    train, test = (cfg.DATASETS[key] if key in data else () for key in ("TRAIN", "TEST"))
    if needs_classes and not (train or test or known_classes(cfg)):
        train = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN][:1]
    check_datasets(train, test, folder)
    if not is_training:
        check_classes(cfg, told_by)
    if needs_classes:
        resolve_classes(cfg)
    if is_training:
        resolve_schedule(cfg)
    cfg.freeze()
    return cfg


@contextlib.contextmanager
def _noted(path: str) -> Iterator[None]:
    """Add to the log what a person has to mend: the terminal may be gone when it is looked for."""
    try:
        yield
    except UserError as error:
        if comm.is_main_process():
            with open(path, "a", encoding="utf-8") as f:
                f.write(f"error: {printable(str(error))}\n")
        raise


@contextlib.contextmanager
def _kept(path: str | None) -> Iterator[None]:
    """Keep a file that is there as it is: the config of a training, which this may not be."""
    if path is None or not os.path.isfile(path):
        yield
        return
    with open(path, "rb") as f:
        content = f.read()
    try:
        yield
    finally:
        if comm.is_main_process():
            replace_file(path, lambda f: f.write(content))


def known_classes(cfg: CfgNode) -> list[str]:
    """Names of the classes as far as they are known without reading a data set; else none."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        classes = classes_of(name)
        if classes is not None:
            return list(classes)
    return list(cfg.DATASETS.CLASSES)


def _take_classes(cfg: CfgNode, run: str | None) -> str:
    """Take those of the training that wrote the folder ``run``, if one did; what told them."""
    path = os.path.join(run or "", "config.yaml")
    if not run or not os.path.isfile(path):
        return "DATASETS.CLASSES"
    with contextlib.suppress(ConfigError):  # of another project
        of_run = load_config(path).DATASETS
        cfg.DATASETS.CLASSES, cfg.DATASETS.CATEGORY_IDS = of_run.CLASSES, of_run.CATEGORY_IDS
    return path


def check_classes(cfg: CfgNode, told_by: str = "DATASETS.CLASSES") -> None:
    """Raise ConfigError where the data sets have other classes than the training had."""
    trained_for, classes = list(cfg.DATASETS.CLASSES), known_classes(cfg)
    if trained_for not in ([], classes):
        raise ConfigError(
            f"the weights are of a training for the classes {', '.join(trained_for)} ({told_by}), "
            f"but the data sets have {', '.join(classes)}: give the entries of DATASETS.REGISTER "
            "the same `classes`, or DATASETS.CLASSES those of the data where only names differ"
        )


def resolve_classes(cfg: CfgNode) -> None:
    """Take the number of classes from the data sets, which must agree on them."""
    classes, names = known_classes(cfg), (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
    if not classes:
        remedy = "name a data set in DATASETS.TEST"
        if names:
            remedy = f"set thing_classes of {names[0]} in Detectron2's MetadataCatalog"
        raise ConfigError(f"the classes are unknown: {remedy}, or set DATASETS.CLASSES")
    for name in names:
        others = classes_of(name)
        if others is not None and list(others) != classes:
            raise ConfigError(
                f"DATASETS.TRAIN and DATASETS.TEST differ in their classes: those of {name} are "
                f"{', '.join(others)}, those of others {', '.join(classes)}; give the entries of "
                "DATASETS.REGISTER the same `classes`"
            )
    cfg.DATASETS.CATEGORY_IDS = _known_ids(cfg, classes)
    cfg.DATASETS.CLASSES = classes
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.FCOS.NUM_CLASSES = len(classes)
    for name in names:
        tell_classes(name, classes)
    logger.info(f"{len(classes)} classes: {', '.join(classes)}")


def _known_ids(cfg: CfgNode, classes: list[str]) -> list[int]:
    """
    Of the classes, in COCO's format: of a data set that has been read, else of the config where it
    is of these classes, else none.

    Raises:
        ConfigError: the config has another number of them.
    """
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        ids = MetadataCatalog.get(name).as_dict().get("thing_dataset_id_to_contiguous_id")
        if ids:
            return sorted(ids, key=ids.get)
    ids = list(cfg.DATASETS.CATEGORY_IDS) if classes == cfg.DATASETS.CLASSES else []
    if len(ids) not in (0, len(classes)):
        raise ConfigError(
            f"DATASETS.CATEGORY_IDS has {len(ids)} ids for {len(classes)} classes: leave it empty, "
            "it is filled in from the data sets"
        )
    return ids


def _keep_steps_within(solver: CfgNode, meant: int) -> None:
    """Move the steps of a schedule of ``meant`` iterations, of which epochs reach not even one."""
    given = solver.STEPS
    # Others, below half of it, are not of that schedule but of a person's own.
    if not given or given[0] < max(solver.MAX_ITER, meant / 2) or given[-1] >= meant:
        return
    steps = sorted({max(1, round(step * solver.MAX_ITER / meant)) for step in given})
    logger.warning(
        f"The learning rate falls after {steps} iterations, as it would after "
        f"{list(given)} of {meant} (SOLVER.STEPS)"
    )
    solver.STEPS = tuple(steps)


def _drop_late_steps(solver: CfgNode) -> None:
    """Drop those that the training does not reach: Detectron2 refuses one at its very end."""
    steps = tuple(sorted({step for step in solver.STEPS if step < solver.MAX_ITER}))
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and steps != tuple(solver.STEPS):
        logger.warning(
            f"Of SOLVER.STEPS {tuple(solver.STEPS)} the training of {solver.MAX_ITER} iterations "
            f"reaches {steps or 'none'}"
        )
        solver.STEPS = steps


def _have_checkpoints_on_the_way(solver: CfgNode) -> None:
    """Have some where Detectron2's own period, which nobody has chosen, gives none."""
    often = max(_LEAST_PERIOD, solver.MAX_ITER // 10)
    default = get_cfg().SOLVER.CHECKPOINT_PERIOD
    if solver.CHECKPOINT_PERIOD == default >= solver.MAX_ITER > often:
        logger.info(
            f"A checkpoint every {often} iterations: by SOLVER.CHECKPOINT_PERIOD {default} there "
            "would be none before the end"
        )
        solver.CHECKPOINT_PERIOD = often


def _scale_learning_rate(solver: CfgNode) -> None:
    """Scale it from the reference batch to the batch."""
    reference = solver.REFERENCE_IMS_PER_BATCH
    if reference > 0 and reference != solver.IMS_PER_BATCH:
        scaled = solver.BASE_LR * solver.IMS_PER_BATCH / reference
        logger.info(
            f"Learning rate {solver.BASE_LR} for {reference} images a batch becomes {scaled} "
            f"for {solver.IMS_PER_BATCH}"
        )
        solver.BASE_LR = scaled
        solver.REFERENCE_IMS_PER_BATCH = solver.IMS_PER_BATCH


def _shorten_warmup(solver: CfgNode) -> None:
    """Shorten it to its share of the training."""
    # Detectron2 divides by the iterations that are left after the warm-up.
    longest = min(int(solver.MAX_WARMUP_SHARE * solver.MAX_ITER), solver.MAX_ITER - 1)
    if longest < solver.WARMUP_ITERS:
        logger.info(
            f"The warm-up of {solver.WARMUP_ITERS} iterations is shortened to {longest}: "
            f"{solver.MAX_WARMUP_SHARE} of the training (SOLVER.MAX_WARMUP_SHARE)"
        )
        solver.WARMUP_ITERS = longest


def _num_images(names: Sequence[str], filter_empty: bool) -> int:
    """As many as Detectron2 trains on, without a dict for each object of data sets of ours."""
    known = [records_of(name) for name in names]
    if None in known:
        return len(get_detection_dataset_dicts(names, filter_empty=filter_empty))
    records = itertools.chain.from_iterable(known)
    return sum(not filter_empty or not r.objects["crowd"].all() for r in records)


def resolve_schedule(cfg: CfgNode) -> None:
    """
    Epochs to iterations, the learning rate to the batch size, and to the length the warm-up, the
    steps and how often there is a checkpoint.

    Raises:
        ConfigError: what ends or begins at some iteration or rate does not fit them.
    """
    solver, guidance = cfg.SOLVER, cfg.MODEL.MUTUAL_GUIDANCE
    begins = guidance.STATIC_ITERS if guidance.STRATEGY != "static" else 0
    if begins and solver.REFERENCE_WORLD_SIZE not in (0, comm.get_world_size()):
        raise ConfigError(
            f"SOLVER.REFERENCE_WORLD_SIZE {solver.REFERENCE_WORLD_SIZE} scales SOLVER.MAX_ITER for "
            f"{comm.get_world_size()} processes, but not MODEL.MUTUAL_GUIDANCE.STATIC_ITERS: set "
            "REFERENCE_WORLD_SIZE 0, and the batch and the schedule for this number of processes"
        )
    _scale_learning_rate(solver)
    if solver.EPOCHS > 0:
        num_images = _num_images(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        meant = solver.MAX_ITER
        solver.MAX_ITER = max(1, round(solver.EPOCHS * num_images / solver.IMS_PER_BATCH))
        logger.info(
            f"{solver.EPOCHS} epochs of {num_images} images are {solver.MAX_ITER} iterations"
        )
        if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
            _keep_steps_within(solver, meant)
    _drop_late_steps(solver)
    lowest = solver.BASE_LR_END
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= lowest <= solver.BASE_LR:
        raise ConfigError(
            f"the cosine ends at SOLVER.BASE_LR_END {lowest}, which must be from 0 to the learning "
            f"rate, {solver.BASE_LR}"
        )
    _shorten_warmup(solver)
    _have_checkpoints_on_the_way(solver)
    if begins >= solver.MAX_ITER:
        raise ConfigError(
            f"MODEL.MUTUAL_GUIDANCE.STATIC_ITERS {begins} leaves none of the "
            f"{solver.MAX_ITER} iterations to {guidance.STRATEGY}: set it lower, or STRATEGY static"
        )
