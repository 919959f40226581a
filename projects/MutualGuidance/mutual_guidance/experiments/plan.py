"""What the cells of an experiment will cost, and whether they can run at all."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..config import load_config
from ..data import check_datasets, register_datasets
from ..data.register import records_of
from ..engine.checks import check_values, check_weights
from ..engine.device import chosen_device, has_gpu, resolve_device
from ..engine.precision import best_precision, check_precision, slow_precision
from ..engine.setup import known_classes, resolve_classes, resolve_schedule
from ..errors import ConfigError, DatasetError, ExperimentError
from ..evaluation.misalignment import MEASURES, STAGES
from ..machine import num_gpus
from ..run_files import CLASS_AP, checkpoint_files, flatten
from .grid import Cell, run_place
from .records import is_finished, metrics_so_far, read_record
from .schema import BASELINE, PLACE

_MISALIGNMENT = (
    "suppressed",
    *(f"{name}_{stage}" for name in ("found", *MEASURES) for stage in STAGES),
)
# By the evaluator of the data set.
_APS = {"pascal_voc": r"AP(50|75)?", "coco": r"AP[sml]|AP(50|75)?(@\d+)?"}
_METRIC = rf"{CLASS_AP}.+|misalignment/({'|'.join(_MISALIGNMENT)})"
# What a run takes from its data sets, whatever its config says.
_FROM_DATA = ("MODEL.RETINANET.NUM_CLASSES", "MODEL.FCOS.NUM_CLASSES")
_CONTENTS = "the contents of DATASETS"


@dataclass(frozen=True)
class Plan:
    """Of one run."""

    iterations: int  # 0 where the data is missing and the length is in epochs
    ims_per_batch: int
    epochs: float  # 0 where the config gives iterations
    missing: str = ""  # why the data cannot be used
    unfit: str = ""  # why it cannot be trained here
    slow: str = ""  # why this machine is the wrong one
    device: str = "cpu"  # what MODEL.DEVICE is here
    # Every key, dotted, as JSON has it, without the number of classes; and what is in the data.
    config: dict[str, Any] = field(default_factory=dict)


def make_plans(
    root: Path, cells: list[Cell], questions: Mapping[str, Any] | None = None
) -> dict[Cell, Plan]:
    """
    The plan of every cell. The ``questions`` of the experiment belong to the config of those that
    are compared with the baseline: they cannot change any more once one of these has run.

    Raises:
        ExperimentError: a config or an override does not fit, a data set's name has two meanings,
            or an automatic precision is not the same on all GPUs here.
    """
    plans: dict[Cell, Plan] = {}
    by_data: dict[str, Plan] = {}
    entries: dict[str, dict] = {}
    for cell in cells:
        cfg = _load(root, cell)
        _check_names(cfg.DATASETS.REGISTER, entries, cell)
        config = {key: value for key, value in flatten(cfg).items() if key not in _FROM_DATA}
        # An infinite number as text, since JSON has none.
        config = json.loads(json.dumps(config), parse_constant=str) | _auto_precision(cfg)
        guidance = cfg.MODEL.MUTUAL_GUIDANCE
        begins = guidance.STRATEGY, guidance.STATIC_ITERS
        key = str((cfg.DATASETS, cfg.SOLVER, cfg.DATALOADER, cfg.MODEL.DEVICE, begins))
        if key not in by_data:
            by_data[key] = _plan(cfg)
        asked = questions if questions and cell.strategy != BASELINE else {}
        if asked:
            _check_questions(asked, cell, cfg)
        unfit = by_data[key].unfit or _weights_fault(cfg, cell)
        config = {**config, **by_data[key].config, **asked}
        plans[cell] = replace(by_data[key], unfit=unfit, config=config)
    _check_tests(plans)
    return plans


def _check_tests(plans: Mapping[Cell, Plan]) -> None:
    """Raise ExperimentError for a run that is tested on other images than its baseline."""
    tests = {cell.place: plan.config["DATASETS.TEST"] for cell, plan in plans.items()}
    for cell in plans:
        if cell.baseline is None:
            continue
        baseline = run_place({**vars(cell), "variant": cell.baseline, "strategy": BASELINE})
        if tests[cell.place] != tests[baseline]:
            raise ExperimentError(
                f"{cell.folder}: DATASETS.TEST is not that of the {BASELINE} run that it is "
                f"compared with: add {BASELINE} to the strategies of the variant {cell.variant}"
            )


def _check_names(register: list, entries: dict[str, dict], cell: Cell) -> None:
    """Raise ExperimentError for a name that stands for other data among the earlier entries."""
    for entry in register:
        name = entry.get("name") if isinstance(entry, dict) else None  # else told with the data
        if isinstance(name, str) and entries.setdefault(name, entry) != entry:
            raise ExperimentError(
                f"{cell.folder}: DATASETS.REGISTER gives the name {name} to other data than "
                "elsewhere in the experiment: give each data set a name of its own"
            )


def _auto_precision(cfg: CfgNode) -> dict[str, str]:
    """What SOLVER.AMP.PRECISION auto is here: runs of two precisions are not to be compared."""
    amp, device = cfg.SOLVER.AMP, chosen_device(cfg)
    if not amp.ENABLED or amp.PRECISION != "auto" or not (device == "cpu" or has_gpu(device)):
        return {}
    gpus = [f"cuda:{i}" for i in range(num_gpus())] if device == "cuda" else [device]
    found = sorted({best_precision(gpu) for gpu in gpus})
    if len(found) > 1:
        raise ExperimentError(
            f"SOLVER.AMP.PRECISION auto is {' on some and '.join(found)} on others of the GPUs "
            "here, and runs of two precisions are not to be compared: name one of them, or choose "
            "GPUs by CUDA_VISIBLE_DEVICES"
        )
    return {"SOLVER.AMP.PRECISION auto": found[0]}


def _weights_fault(cfg: CfgNode, cell: Cell) -> str:
    """Why the run cannot begin with MODEL.WEIGHTS; of another place see fetch_weights."""
    if cell.start or "://" in cfg.MODEL.WEIGHTS or checkpoint_files(cfg.OUTPUT_DIR):
        return ""
    try:
        check_weights(cfg, "start")
    except ConfigError as error:
        return str(error)
    return ""


def _check_questions(questions: Mapping[str, Any], cell: Cell, cfg: CfgNode) -> None:
    """Raise ExperimentError for a class or a metric that a run which is compared will not have."""
    of_cell = [
        question
        for question in (questions["primary"], *questions["secondary"])
        if all(question[key] == getattr(cell, key) for key in PLACE)
    ]
    known, metrics = known_classes(cfg), [question["metric"] for question in of_cell]
    classes = [name for question in of_cell for name in question.get("classes", ())]
    classes += [m.removeprefix(CLASS_AP) for m in metrics if m.startswith(CLASS_AP)]
    strange = [name for name in classes if known and name not in known]
    if strange:
        raise ExperimentError(
            f"primary and secondary: {strange[0]} is no class of {cfg.DATASETS.TEST[0]}, whose are "
            f"{', '.join(known)}"
        )
    if not cfg.TEST.MISALIGNMENT and any(m.startswith("misalignment/") for m in metrics):
        raise ExperimentError("primary and secondary: misalignment/ needs TEST.MISALIGNMENT True")
    kind = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("evaluator_type")
    pattern = f"{_APS.get(kind, 'AP')}|{_METRIC}"
    unknown = [m for m in metrics if not re.fullmatch(pattern, m)]
    if unknown and kind:  # else the data set is unknown, which is told for itself
        raise ExperimentError(
            f"primary and secondary: no run on {cfg.DATASETS.TEST[0]} has a metric {unknown[0]}; "
            f"there are AP, AP50, AP75, {CLASS_AP}CLASS and misalignment/ with "
            f"{', '.join(_MISALIGNMENT)}"
        )
    # AP over some classes is known of every run.
    means = [m for m in metrics if m.startswith("AP") and m != "AP" and not m.startswith(CLASS_AP)]
    if kind and means:
        _check_mean(means[0], questions["primary"]["classes"], known, cfg.DATASETS.TEST[0])


def _check_mean(metric: str, classes: list[str], known: list[str], dataset: str) -> None:
    """Raise ExperimentError for a mean over some classes where runs have that over all alone."""
    if set(classes) < set(known):
        raise ExperimentError(
            f"primary and secondary: {metric} of {dataset} is over all classes: name all of them "
            f"({', '.join(known)}), or ask for {CLASS_AP}CLASS"
        )


def is_drawn_from(dataset: str) -> bool:
    """Say whether the data set is evaluated as VOC's, with the area under the curve."""
    metadata = MetadataCatalog.get(dataset)
    return metadata.get("evaluator_type") == "pascal_voc" and metadata.get("year") != 2007


def fetch_weights(root: Path, plans: dict[Cell, Plan]) -> None:
    """
    Have those weights of another place that runs will start from, each once, before the first.

    Raises:
        ConfigError: they cannot be had.
    """
    to_do = [cell for cell in plans if not is_finished(root, cell)]
    needed = {plans[cell].config["MODEL.WEIGHTS"]: cell for cell in to_do}
    for weights, cell in needed.items():
        if "://" in weights:
            check_weights(_load(root, cell), "start")


def seconds_per_image(root: Path, cells: list[Cell]) -> dict[str, float]:
    """Of training, by config: the mean over all that its runs have measured so far."""
    measured: dict[str, list[float]] = {}
    for cell in cells:
        rows = metrics_so_far(root / cell.folder).values()
        seconds = [row["time"] for row in rows if "time" in row]
        if seconds:
            batch = _load(root, cell).SOLVER.IMS_PER_BATCH
            measured.setdefault(cell.config, []).append(sum(seconds) / len(seconds) / batch)
        elif (record := read_record(root, cell)) and record["seconds_per_image"]:
            measured.setdefault(cell.config, []).append(record["seconds_per_image"])
    return {config: sum(values) / len(values) for config, values in measured.items()}


def _load(root: Path, cell: Cell) -> CfgNode:
    try:
        cfg = load_config(str(root / cell.config), cell.opts)
        check_values(cfg)
    except ConfigError as error:
        raise ExperimentError(f"{cell.folder}: {error}") from error
    if len(cfg.DATASETS.TEST) != 1:
        raise ExperimentError(
            f"{cell.config}: an experiment compares figures of one data set, but DATASETS.TEST "
            f"names {len(cfg.DATASETS.TEST)}"
        )
    return cfg


def _plan(cfg: CfgNode) -> Plan:
    solver, epochs = cfg.SOLVER, max(cfg.SOLVER.EPOCHS, 0.0)
    logging.disable(logging.WARNING)  # train_net.py logs the same once more
    try:
        missing, unfit = _data_faults(cfg)
        unfit = unfit or _scaling_fault(cfg.SOLVER) or _device_fault(cfg)
        contents = {} if missing or unfit else {_CONTENTS: _fingerprint(cfg)}
    finally:
        logging.disable(logging.NOTSET)
    iterations = 0 if missing and epochs else solver.MAX_ITER
    slow, device = slow_precision(cfg), cfg.MODEL.DEVICE
    return Plan(iterations, solver.IMS_PER_BATCH, epochs, missing, unfit, slow, device, contents)


def _fingerprint(cfg: CfgNode) -> str:
    """Of the names, sizes, objects and classes of what was read: runs of other data differ."""
    digest = hashlib.sha256(repr(known_classes(cfg)).encode())
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        digest.update(name.encode())
        for file_name, *rest, objects in records_of(name) or ():
            # By field: between them lies what was in memory before.
            fields = [objects[field].tolist() for field in objects.dtype.names]
            digest.update(repr((os.path.basename(file_name), *rest, fields)).encode())
    return digest.hexdigest()[:16]


def _data_faults(cfg: CfgNode) -> tuple[str, str]:
    """Why the data cannot be used, and why it cannot be trained on; the schedule is resolved."""
    try:
        register_datasets(cfg.DATASETS.REGISTER)
        check_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
        resolve_schedule(cfg)
        resolve_classes(cfg)
    except DatasetError as error:
        return f"{error}\nHow to get the data sets of this project: datasets/README.md", ""
    except ConfigError as error:
        return "", str(error)
    return "", ""


def _scaling_fault(solver: CfgNode) -> str:
    """Why its length is not what the config says."""
    if solver.REFERENCE_WORLD_SIZE in (0, 1):
        return ""
    return (
        f"SOLVER.REFERENCE_WORLD_SIZE {solver.REFERENCE_WORLD_SIZE} would scale the batch and the "
        "iterations for the one process of a run: set it to 0, and both for one process"
    )


def _device_fault(cfg: CfgNode) -> str:
    """Why it cannot be trained on the device, which is resolved."""
    try:
        check_precision(cfg)
        if cfg.MODEL.DEVICE.startswith("cuda:") and cfg.MODEL.DEVICE != "cuda:0":
            raise ConfigError(
                f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but each run sees one GPU: use cuda or "
                "auto, and choose GPUs by CUDA_VISIBLE_DEVICES"
            )
        resolve_device(cfg)
    except ConfigError as error:
        return str(error)
    return ""
