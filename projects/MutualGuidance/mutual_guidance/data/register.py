"""Data sets named in a config: registration with Detectron2, and the check before training."""

import difflib
import logging
import os
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ..errors import DatasetError
from .coco import load_coco
from .faults import Fault, fault_table, repeated
from .folds import check_fold
from .images import size_fault
from .voc import collect_classes, load_voc
from .yolo import load_yolo, read_names

logger = logging.getLogger(__name__)

_KEYS = {
    "voc": ({"name", "format", "root", "split"}, {"classes"}),
    "coco": ({"name", "format", "root", "annotations", "images"}, set()),
    "yolo": ({"name", "format", "root", "images"}, {"classes"}),
}
# By name: the entry that registered it, and what loading it gave.
_entries: dict[str, dict] = {}
_loaded: dict[str, tuple[list[dict], list[Fault]]] = {}


def register_datasets(entries: list[dict]) -> None:
    """
    Register the entries of ``DATASETS.REGISTER`` in Detectron2's catalog.

    Raises:
        DatasetError: a key is missing, unknown or wrong, or the name is taken.
    """
    for entry in entries:
        _check_entry(entry)
        name = entry["name"]
        if _entries.get(name) == entry:
            continue
        if name in _entries:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
            _loaded.pop(name, None)
        elif name in DatasetCatalog:
            raise DatasetError(f"DATASETS.REGISTER: Detectron2 has a data set {name} already")
        DatasetCatalog.register(name, partial(_usable_records, name))
        _entries[name] = entry
        _set_metadata(entry)


def check_datasets(names: list[str]) -> None:
    """
    Load the data sets and tell in one table what is wrong in them.

    Raises:
        DatasetError: unknown name, missing files, or structural faults (with the table).
    """
    faults = []
    for name in names:
        if name not in DatasetCatalog:
            near = difflib.get_close_matches(name, DatasetCatalog.list()) or sorted(_entries)
            raise DatasetError(
                f"unknown data set {name!r} in DATASETS; did you mean {', '.join(near) or 'none'}? "
                "Own data sets are listed in DATASETS.REGISTER"
            )
        if name in _entries:
            faults += _load(name)[1]
        else:
            faults += _check_builtin(name)
    if not any(f.structural for f in faults):
        _check_not_empty(names)
    if not faults:
        return
    table = fault_table(faults)
    if any(f.structural for f in faults):
        raise DatasetError(f"the data sets {', '.join(names)} cannot be used as they are:\n{table}")
    logger.warning(f"Dropped {len(faults)} degenerate boxes:\n{table}")


def dataset_root(root: str) -> str:
    """Expand ~ and variables; relative folders are below $DETECTRON2_DATASETS."""
    root = os.path.expandvars(os.path.expanduser(root))
    return os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), root)


def _check_entry(entry: dict) -> None:
    kind = entry.get("format")
    if kind not in _KEYS:
        known = ", ".join(_KEYS)
        raise DatasetError(f"DATASETS.REGISTER: format must be one of {known}, in {entry}")
    required, optional = _KEYS[kind]
    missing, unknown = required - entry.keys(), entry.keys() - required - optional
    if missing or unknown:
        raise DatasetError(
            f"DATASETS.REGISTER: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}, "
            f"in {entry}"
        )
    if kind == "voc" and isinstance(entry["split"], dict):
        check_fold(entry["split"])
    twice = repeated(entry.get("classes", []))
    if twice:
        raise DatasetError(f"DATASETS.REGISTER: classes {twice} stand twice, in {entry}")


def _set_metadata(entry: dict) -> None:
    """What is known without reading; the rest is set on loading."""
    metadata = MetadataCatalog.get(entry["name"])
    root = dataset_root(entry["root"])
    metadata.set(dirname=root)
    if entry["format"] == "voc":
        metadata.set(evaluator_type="pascal_voc", split=entry["split"])
    else:
        metadata.set(evaluator_type="coco", image_root=os.path.join(root, entry["images"]))
    if entry["format"] == "coco":
        metadata.set(json_file=os.path.join(root, entry["annotations"]))
    if "classes" in entry:
        metadata.set(thing_classes=list(entry["classes"]))


def _usable_records(name: str) -> list[dict]:
    """The loader that Detectron2 calls."""
    records, faults = _load(name)
    if any(f.structural for f in faults):
        raise DatasetError(f"the data set {name} cannot be used as it is:\n{fault_table(faults)}")
    return records


def _load(name: str) -> tuple[list[dict], list[Fault]]:
    """Records and faults; read once a process."""
    if name in _loaded:
        return _loaded[name]
    entry, metadata = _entries[name], MetadataCatalog.get(name)
    root, kind = metadata.dirname, entry["format"]
    if kind == "coco":
        _loaded[name] = load_coco(metadata.json_file, metadata.image_root, name)
        return _loaded[name]
    if "thing_classes" not in metadata.as_dict():
        find_classes = collect_classes if kind == "voc" else read_names
        metadata.set(thing_classes=find_classes(root))
        logger.info(f"Classes of {name}, as found below {root}: {metadata.thing_classes}")
    if kind == "voc":
        _loaded[name] = load_voc(root, metadata.split, metadata.thing_classes)
    else:
        _loaded[name] = load_yolo(root, entry["images"], metadata.thing_classes)
    return _loaded[name]


def _check_not_empty(names: list[str]) -> None:
    """Raise DatasetError for a data set of ours without a usable object."""
    for name in names:
        if name in _entries and not any(r["annotations"] for r in _load(name)[0]):
            raise DatasetError(f"data set {name} has no usable object: nothing to learn or to find")


def _check_builtin(name: str) -> list[Fault]:
    """The faults of the images of a data set that Detectron2 reads."""
    try:
        records = DatasetCatalog.get(name)
    except FileNotFoundError as error:
        raise DatasetError(
            f"data set {name}: {error.filename} is missing; set DETECTRON2_DATASETS to the folder "
            f"that holds the data sets (now {os.getenv('DETECTRON2_DATASETS', 'datasets')!r})"
        ) from error
    faults = []
    for record in tqdm(records, desc=f"Checking {name}", leave=False):
        reason = size_fault(record["file_name"], record["width"], record["height"])
        if reason:
            faults.append(Fault(record["file_name"], reason, True))
    return faults
