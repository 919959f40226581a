"""Data sets named in a config: registration with Detectron2, and the check before training."""

import difflib
import itertools
import logging
import os
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ..errors import DatasetError, has_controls
from .builtin import check_builtin
from .classes import NO_OBJECT, clean_names
from .coco import load_coco
from .faults import TOLD, Fault, fault_table, repeated, stopping, write_faults
from .folds import check_fold
from .records import Record, share_faults
from .shared import of_all_processes, once_a_machine, raise_together
from .voc import collect_classes, load_voc
from .yolo import label_path, load_yolo
from .yolo_yaml import DATA_FILE, YOLONames, check_order, read_names, split_sources

logger = logging.getLogger(__name__)

FAULTS_FILE = "dataset_faults.txt"
_KEYS = {
    "voc": ({"name", "format", "root", "split"}, {"classes"}),
    "coco": ({"name", "format", "root", "annotations", "images"}, {"classes"}),
    "yolo": ({"name", "format", "root"}, {"images", "data", "split", "classes"}),
}


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


# What values of an entry may be beside text.
_OTHER_KINDS = {
    "voc split": (" or a mapping", lambda value: isinstance(value, dict)),
    "yolo images": (" or a list of texts", _is_list_of_texts),
}


class Loaded(NamedTuple):
    """What loading a data set gave."""

    records: list[Record]
    faults: list[Fault]
    metadata: dict[str, Any]  # what Detectron2 shall know besides, as far as it does not


# By name: the entry that registered it, and what loading it gave.
_entries: dict[str, dict] = {}
_loaded: dict[str, Loaded] = {}


def register_datasets(entries: list[dict]) -> None:
    """
    Register the entries of ``DATASETS.REGISTER`` in Detectron2's catalog.

    Raises:
        DatasetError: a key is missing, unknown or wrong, or the name is taken.
    """
    if not isinstance(entries, list | tuple):
        raise DatasetError(f"DATASETS.REGISTER must be a list of entries, not {entries!r}")
    for entry in entries:
        _check_entry(entry)
    twice = repeated(entry["name"] for entry in entries)
    if twice:
        raise DatasetError(f"DATASETS.REGISTER: two entries have the name {', '.join(twice)}")
    for entry in entries:
        name = entry["name"]
        if _entries.get(name) == entry:
            continue
        if name in _entries:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
            _loaded.pop(name, None)
        elif name in DatasetCatalog:
            raise DatasetError(f"DATASETS.REGISTER: Detectron2 has a data set {name} already")
        DatasetCatalog.register(name, partial(_usable_dicts, name))
        _entries[name] = entry
        _set_metadata(entry)


def check_datasets(
    train: Sequence[str], test: Sequence[str] = (), folder: str | None = None
) -> None:
    """
    Load the data sets, in one of the processes of each machine, and tell in one table what is
    wrong in them. All processes must call this.

    Args:
        train, test: their names. folder: where the list of all faults is written.

    Raises:
        DatasetError: unknown name, missing files, or faults that stop a run (with the table).
    """
    names = list(dict.fromkeys([*train, *test]))
    try:
        table = _check(names, train, test, folder)
    except DatasetError:
        for name in names:
            _forget(name)
        raise
    if table:
        logger.warning(f"In the data sets {', '.join(names)}:\n{table}")


def _check(
    names: Sequence[str], train: Sequence[str], test: Sequence[str], folder: str | None
) -> str:
    """The table of what is wrong, if anything. Raises DatasetError where it stops a run."""
    faults = [fault for name in names for fault in _faults_in(name, name in test)]
    if not any(of_all_processes(stopping(faults))):
        faults += _useless_sets(train, test)
        if train and test:
            faults += once_a_machine(partial(_tested_on_trained, train, test))
    table = _list_faults(faults, folder) if faults else ""
    told = f"the data sets {', '.join(names)} cannot be used as they are:\n{table}"
    raise_together(DatasetError(told) if stopping(faults) else None)
    return table


def _faults_in(name: str, is_tested: bool) -> list[Fault]:
    """Those of a data set, with its name where a file of several sets has none."""
    _check_name(name)
    if name not in _entries:
        return check_builtin(name, is_tested)
    if name not in _loaded:
        _keep(name, once_a_machine(partial(_read, name)))
    return [
        fault._replace(detail=f"{fault.detail} in {name}") if fault.reason == NO_OBJECT else fault
        for fault in _loaded[name].faults
    ]


def _list_faults(faults: list[Fault], folder: str | None) -> str:
    """Their table; the main process writes the list of all of them to the folder, if any."""
    table = fault_table(faults)
    if folder is None or not comm.is_main_process():
        return table
    path = os.path.join(folder, FAULTS_FILE)
    write_faults(faults, path)
    return f"{table}\nAll of them, a line each: {path}"


def records_of(name: str) -> list[Record] | None:
    """
    The records of a data set of DATASETS.REGISTER, None for any other.

    Raises:
        DatasetError: it has faults that stop a run (with the table).
    """
    if name not in _entries:
        return None
    records, faults, _ = _load(name)
    if stopping(faults):
        _forget(name)
        raise DatasetError(f"the data set {name} cannot be used as it is:\n{fault_table(faults)}")
    return records


def dataset_root(root: str) -> str:
    """Expand ~ and variables; relative folders are below $DETECTRON2_DATASETS."""
    root = os.path.expandvars(os.path.expanduser(root))
    return os.path.join(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")), root)


def _check_entry(entry: dict) -> None:
    if not isinstance(entry, dict):
        raise DatasetError(f"DATASETS.REGISTER: an entry is a mapping of keys, not {entry!r}")
    for key in {"name", "format", "root", "annotations", "images", "data", "split"} & entry.keys():
        what, fits = _OTHER_KINDS.get(f"{entry.get('format')} {key}", ("", None))
        if not isinstance(entry[key], str) and not (fits and fits(entry[key])):
            raise DatasetError(f"DATASETS.REGISTER: {key} must be text{what}, in {entry}")
    if "/" in entry.get("name", "") or entry.get("name") in (".", ".."):
        raise DatasetError(f"DATASETS.REGISTER: a name names files, so without /, in {entry}")
    if has_controls(entry.get("name", "")):
        raise DatasetError(f"DATASETS.REGISTER: a name without control characters, in {entry}")
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
    if kind == "yolo" and ("images" in entry) == ("split" in entry):
        raise DatasetError(
            "DATASETS.REGISTER: YOLO's layout needs either images (a folder, a text file or a list "
            f"of them) or split (a key of {DATA_FILE}), in {entry}"
        )
    if "classes" in entry:
        clean_names(entry["classes"], f"DATASETS.REGISTER, classes of {entry['name']}")


def _check_name(name: str) -> None:
    if name not in DatasetCatalog:
        near = difflib.get_close_matches(name, DatasetCatalog.list()) or sorted(_entries)
        meant = f"; did you mean {', '.join(near)}?" if near else "."
        raise DatasetError(
            f"unknown data set {name!r} in DATASETS{meant} Own data sets are listed in "
            "DATASETS.REGISTER of the config (--config-file)"
        )


def _set_metadata(entry: dict) -> None:
    """What is known without reading; the rest is set on loading."""
    metadata = MetadataCatalog.get(entry["name"])
    root = dataset_root(entry["root"])
    metadata.set(dirname=root)
    if entry["format"] == "voc":
        metadata.set(evaluator_type="pascal_voc", split=entry["split"])
    else:
        metadata.set(evaluator_type="coco")
    if entry["format"] == "coco":
        metadata.set(json_file=os.path.join(root, entry["annotations"]))
        metadata.set(image_root=os.path.join(root, entry["images"]))
    if "classes" in entry:
        metadata.set(thing_classes=clean_names(entry["classes"], "classes"))


def _usable_dicts(name: str) -> list[dict]:
    """The loader that Detectron2 calls."""
    return [record.as_dict() for record in records_of(name)]


def _load(name: str) -> Loaded:
    """A data set of ours; read once a process."""
    if name not in _loaded:
        _keep(name, _read(name))
    return _loaded[name]


def _read(name: str) -> Loaded:
    loaded = _LOADERS[_entries[name]["format"]](_entries[name])
    if _entries[name]["format"] != "yolo":
        loaded.faults.extend(share_faults(name, loaded.records))
    return loaded


def _keep(name: str, loaded: Loaded) -> None:
    _loaded[name] = loaded
    metadata = MetadataCatalog.get(name)
    known = metadata.as_dict()
    metadata.set(**{key: value for key, value in loaded.metadata.items() if key not in known})
    if "thing_classes" in loaded.metadata and "thing_classes" not in known:
        classes = ", ".join(metadata.thing_classes)
        logger.info(f"Classes of {name}, as found in it: {classes}")


def _forget(name: str) -> None:
    """Let a data set, if it is ours, be read anew when it is asked for: it may then be mended."""
    if _loaded.pop(name, None) is not None:
        MetadataCatalog.remove(name)
        _set_metadata(_entries[name])


def _load_voc(entry: dict) -> Loaded:
    metadata = MetadataCatalog.get(entry["name"])
    classes, faults = entry.get("classes"), []
    if classes is None:
        classes, faults = collect_classes(metadata.dirname)
    names = metadata.get("thing_classes", classes)
    records, more = load_voc(metadata.dirname, metadata.split, names)
    return Loaded(records, faults + more, {"thing_classes": names})


def _load_coco(entry: dict) -> Loaded:
    metadata = MetadataCatalog.get(entry["name"])
    chosen = metadata.thing_classes if "classes" in entry else None
    data = load_coco(metadata.json_file, metadata.image_root, chosen)
    if stopping(data.faults):
        return Loaded(data.records, data.faults, {})
    found = {"thing_classes": data.classes, "thing_dataset_id_to_contiguous_id": data.indices}
    return Loaded(data.records, data.faults, found)


def _load_yolo(entry: dict) -> Loaded:
    metadata = MetadataCatalog.get(entry["name"])
    root, path = metadata.dirname, os.path.join(metadata.dirname, entry.get("data", DATA_FILE))
    is_told = "classes" in entry and "data" not in entry and not os.path.isfile(path)
    names = YOLONames("classes", metadata.thing_classes) if is_told else read_names(path)
    classes = metadata.get("thing_classes", names.classes)
    if "split" in entry:
        sources = split_sources(path, entry["split"])
    else:
        sources = entry["images"] if isinstance(entry["images"], list) else [entry["images"]]
    if is_told:
        images = [os.path.join(root, source, "a.jpg") for source in sources]
        folders = [root, *(os.path.dirname(label_path(image, root)) for image in images)]
        for folder, file in itertools.product(folders, ("classes.txt", "obj.names")):
            check_order(os.path.join(folder, file), names.classes)
    return Loaded(*load_yolo(root, sources, names, classes), {"thing_classes": classes})


_LOADERS = {"voc": _load_voc, "coco": _load_coco, "yolo": _load_yolo}


def _useless_sets(train: Iterable[str], test: Iterable[str]) -> list[Fault]:
    """Data sets of ours that nothing can be learnt from or measured on."""
    faults = []
    for name in dict.fromkeys(train):
        if name in _entries and not _any_object(name, ("crowd",)):
            reason = "data set has no usable object: nothing to learn"
            faults.append(Fault(name, reason, "crowd regions do not count"))
    for name in dict.fromkeys(test):
        if name in _entries and not _any_object(name, ("crowd", "difficult")):
            reason = "data set has no usable object: nothing to find, no AP"
            faults.append(Fault(name, reason, "crowd regions and difficult objects do not count"))
    return faults


def _tested_on_trained(train: Iterable[str], test: Iterable[str]) -> list[Fault]:
    """Images of our data sets that are in both, which AP is too good with."""
    real_folder = cache(os.path.realpath)

    def real(path: str) -> str:  # looks at each folder once
        if os.path.islink(path):
            return os.path.realpath(path)
        return os.path.join(real_folder(os.path.dirname(path)), os.path.basename(path))

    def files(name: str) -> dict[str, str]:
        records = _load(name).records if name in _entries else []
        return {real(record.file_name): record.file_name for record in records}

    trained = set().union(*map(files, train))
    faults = []
    for name in dict.fromkeys(test):
        shared = [path for file, path in files(name).items() if file in trained]
        if shared:
            reason = "image is trained on and tested on: AP tells nothing of new images"
            faults.append(Fault(name, reason, shared[0], TOLD, len(shared)))
    return faults


def _any_object(name: str, excluded: Sequence[str]) -> bool:
    """Whether the set has an object without one of these marks."""
    return any(
        (~np.any([record.objects[mark] for mark in excluded], axis=0)).any()
        for record in _load(name).records
    )
