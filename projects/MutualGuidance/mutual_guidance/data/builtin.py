"""Data sets that Detectron2 or a function of one's own reads, checked as far as they can be."""

import json
import os
from collections.abc import Sequence
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import DatasetError
from .coco import read_area
from .faults import DROPPED, STOPS, Fault, repeated
from .images import size_faults
from .records import FoundObject, Record, pack_objects, share_faults
from .shared import once_a_machine
from .voc import load_voc

# What readers raise at annotations that are not as they expect; SyntaxError is XML's.
_UNREADABLE = (AssertionError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)
_KEYS = ("file_name", "image_id", "width", "height")
# What Detectron2's metadata of a VOC set says.
_OF_VOC = {"dirname", "split", "thing_classes"}
# Functions' sets of which a config, not they themselves, has told the classes.
_told_classes: dict[str, list[str]] = {}


def evaluator_type(name: str) -> str:
    """Which AP a data set is measured by. Raises DatasetError but for "coco" and "pascal_voc"."""
    kind = MetadataCatalog.get(name).get("evaluator_type")
    if kind not in ("coco", "pascal_voc"):
        raise DatasetError(
            f"data set {name} is of type {kind!r}; coco and pascal_voc can be evaluated "
            "(evaluator_type in Detectron2's MetadataCatalog)"
        )
    return kind


def is_own_function(name: str) -> bool:
    """Whether a function that nothing is known of gives the data set, not one of Detectron2's."""
    known = MetadataCatalog.get(name).as_dict().keys()
    return name in DatasetCatalog and known.isdisjoint(("json_file", "dirname"))


def classes_of(name: str) -> list[str] | None:
    """Those that the data set tells itself, if it is read or knows them before."""
    classes = MetadataCatalog.get(name).get("thing_classes")
    return None if classes is _told_classes.get(name) else classes


def tell_classes(name: str, classes: list[str]) -> None:
    """Let evaluators know those of a function's set that tells none."""
    if is_own_function(name) and classes_of(name) is None:
        # Perhaps in the place of an earlier config's.
        _told_classes[name] = vars(MetadataCatalog.get(name))["thing_classes"] = classes


def has_voc_files(name: str) -> bool:
    """Whether the data set is evaluated as VOC's and says where its annotations are."""
    metadata = MetadataCatalog.get(name).as_dict()
    return metadata.get("evaluator_type") == "pascal_voc" and metadata.keys() >= _OF_VOC


def check_builtin(name: str, is_tested: bool) -> list[Fault]:
    """
    The faults of its images, of what AP reads itself, and of a function's objects. All processes
    must call this.

    Raises:
        DatasetError: it cannot be read or, with ``is_tested``, evaluated.
    """
    if is_tested:
        evaluator_type(name)
    dicts = _read_dicts(name)
    _check_dicts(name, dicts, is_tested)
    return once_a_machine(partial(_faults_in, name, dicts, is_tested))


def _read_dicts(name: str) -> list[dict]:
    """Detectron2's data set dicts. Raises DatasetError where it cannot read its files."""
    try:
        return DatasetCatalog.get(name)
    except ImportError as error:
        raise DatasetError(
            f"data set {name} cannot be read: {error}; install that package"
        ) from error
    except FileNotFoundError as error:
        raise DatasetError(
            f"data set {name}: {error.filename} is missing; set DETECTRON2_DATASETS, before Python "
            "starts, to the folder that holds the data sets (now "
            f"{os.getenv('DETECTRON2_DATASETS', 'datasets')!r})"
        ) from error
    except _UNREADABLE as error:
        metadata = MetadataCatalog.get(name)
        where = metadata.get("json_file") or metadata.get("dirname")
        if where is None:  # a function of the user's
            raise
        torn = isinstance(error, json.JSONDecodeError | SyntaxError)
        remedy = "it is torn: fetch it anew" if torn else "see that it is of the classes and format"
        raise DatasetError(
            f"data set {name}: Detectron2 cannot read {where} ({_reason(error)}): {remedy}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check_dicts(name: str, dicts: Sequence[dict], is_tested: bool) -> None:
    """Raise DatasetError for one without a key that is needed, and for ids of several images."""
    for i, of_image in enumerate(dicts):
        for key in _KEYS:
            if key not in of_image:
                where = of_image.get("file_name", f"the dict of index {i}")
                raise DatasetError(
                    f"data set {name}: {where} has no `{key}`: give every image all of "
                    f"{', '.join(_KEYS)}"
                )
    if dicts and "annotations" in dicts[0]:
        for lacking in (d["file_name"] for d in dicts if "annotations" not in d):
            raise DatasetError(
                f"data set {name}: {lacking} has no `annotations`, but other images have: give it "
                "an empty list, which makes it background"
            )
    for image_id in repeated(d["image_id"] for d in dicts) if is_tested else ():
        first, second, *_ = (d["file_name"] for d in dicts if d["image_id"] == image_id)
        raise DatasetError(
            f"data set {name}: {first} and {second} have the `image_id` {image_id!r}: AP needs "
            "another one for each image"
        )


def _faults_in(name: str, dicts: list[dict], is_tested: bool) -> list[Fault]:
    faults = read_builtin_voc(name)[1] if is_tested and has_voc_files(name) else []
    images = [(d["file_name"], d["width"], d["height"]) for d in dicts]
    faults += size_faults(images, f"Checking {name}")
    return faults + (_object_faults(name, dicts) if is_own_function(name) else [])


def _object_faults(name: str, dicts: Sequence[dict]) -> list[Fault]:
    """
    Of the objects of one's own function. Nothing drops the useless ones: a training would take the
    corners of an inverted box in the other order.
    """
    classes, records, faults = classes_of(name), [], []
    for of_image in dicts:
        try:
            record, found = record_of(of_image)
        except _UNREADABLE as error:
            reason = "annotations are not as Detectron2 has them"
            faults.append(Fault(of_image["file_name"], reason, _reason(error)))
            continue
        records.append(record)
        for category in set(record.objects["class"].tolist()) if classes else ():
            if not 0 <= category < len(classes):
                reason = f"category_id is none of 0 to {len(classes) - 1}, as of thing_classes"
                faults.append(Fault(record.file_name, reason, str(category)))
        faults += [f._replace(effect=STOPS) if f.effect == DROPPED else f for f in found]
    return faults + share_faults(name, records)


def record_of(dataset_dict: dict) -> tuple[Record, list[Fault]]:
    """Of one of Detectron2's data set dicts, with the faults of its objects."""
    found = [
        FoundObject(
            BoxMode.convert(list(map(float, a["bbox"])), a["bbox_mode"], BoxMode.XYXY_ABS),
            a["category_id"],
            i,
            area=read_area(a.get("area")),
            crowd=bool(a.get("iscrowd", 0)),
        )
        for i, a in enumerate(dataset_dict.get("annotations", ()))
    ]
    name, image_id, width, height = (dataset_dict[key] for key in _KEYS)
    objects, faults = pack_objects(found, width, height, name, unit="annotation")
    return Record(name, image_id, width, height, objects), faults


def read_builtin_voc(name: str) -> tuple[list[Record], list[Fault]]:
    """
    The records of one of Detectron2's VOC sets, with the marks of difficult objects, which it does
    not read, and the faults of annotations that are not among them.
    """
    metadata = MetadataCatalog.get(name)
    source = metadata.dirname, metadata.split, metadata.thing_classes
    records, faults = load_voc(*source, check_images=False)
    return records, [f for f in faults if f.effect == STOPS and f.file.endswith(".xml")]
