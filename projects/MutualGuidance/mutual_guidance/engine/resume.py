"""What a resumed run goes on with, where its config is not that of the run any more."""

import logging
import os
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from tabulate import tabulate

from ..errors import ConfigError
from ..run_files import flatten

logger = logging.getLogger(__name__)

# What the checkpoint brings with it: the weights, the optimizer's settings, and the seed of the
# stream of images.
_OF_CHECKPOINT = (
    "MODEL.WEIGHTS",
    "SEED",
    "SOLVER.BASE_LR",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.MOMENTUM",
    "SOLVER.NESTEROV",
    "SOLVER.REFERENCE_IMS_PER_BATCH",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_NORM",
)
# What makes it another run, and what its config would say falsely of what has been trained.
_OF_RUN = {
    "DATASETS.CLASSES": "classes are",
    "DATASETS.TRAIN": "data sets of the training are",
    "SOLVER.IMS_PER_BATCH": "images of a batch are",  # iterations count the images that were seen
}


def keep_to_run(cfg: CfgNode, path: str) -> CfgNode:
    """
    The config of a run that is resumed: of what the checkpoint decides the values of the run, whose
    config.yaml ``path`` is, so that the new one says what is used. What differs is told.

    Raises:
        ConfigError: the classes, the data sets of the training or the batch are others.
    """
    given = flatten(yaml.safe_load(cfg.dump()))
    run = _read(path, given) if os.path.isfile(path) else {}
    comm.synchronize()  # the main process writes the file anew
    differing = [key for key in given if key in run and given[key] != run[key]]
    for key, what in _OF_RUN.items():
        if key in differing and run[key]:
            now, before = (
                ", ".join(map(str, v)) if isinstance(v, list) else v for v in (given[key], run[key])
            )
            scaled = key == "SOLVER.IMS_PER_BATCH" and given["SOLVER.REFERENCE_WORLD_SIZE"]
            hint = " (SOLVER.REFERENCE_WORLD_SIZE scales them for the processes)" if scaled else ""
            raise ConfigError(
                f"--resume: the {what} {now}{hint}, but {path} says {before}: train with those "
                "into another OUTPUT_DIR"
            )
    kept = [key for key in differing if key in _OF_CHECKPOINT]
    if differing:
        rows = [(k, run[k], given[k], (run if k in kept else given)[k]) for k in differing]
        table = tabulate(rows, ("key", "of the run", "now given", "used"), tablefmt="simple")
        logger.warning(f"--resume: the config is not that of {path}:\n{table}")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([part for key in kept for part in (key, run[key])])
    cfg.freeze()
    return cfg


def _read(path: str, given: dict[str, Any]) -> dict[str, Any]:
    """The keys of a run's config, whose values must be of the kinds of the ``given`` ones."""
    remedy = "remove it to go on with the config that is given"
    try:
        with open(path, encoding="utf-8") as f:
            run = flatten(yaml.safe_load(f))  # an empty one was torn
    except (AttributeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--resume: {path} cannot be read; {remedy}") from error
    for key in (*_OF_RUN, *_OF_CHECKPOINT):
        values = run.get(key), given[key]
        if None not in values and type(values[0]) is not type(values[1]):
            raise ConfigError(f"--resume: {path} has {key} {run[key]!r}; {remedy}")
    return run
