"""Data sets in PASCAL VOC layout: Annotations/, JPEGImages/ and ImageSets/Main/ below a root."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..errors import DatasetError
from .classes import ClassPicker, confusable
from .faults import Fault, repeated
from .files import how_named, read_text, walk_files
from .folds import fold_part
from .images import ImageFinder, has_image_suffix, size_faults
from .records import FoundObject, Record, pack_objects
from .voc_xml import Annotation, read_annotation

# Of the last column that VOC's files of a class have after the id.
_MEMBERSHIPS = ("-1", "0", "1")
_MOST_SHOWN = 5
_OF_VOC = (
    "expected Annotations, JPEGImages and ImageSets/Main/SPLIT.txt below the root; check root and "
    "split, or set DETECTRON2_DATASETS to the folder that holds the data sets"
)


class VOCFolder(NamedTuple):
    """The folders of a data set."""

    root: str

    @property
    def annotations(self) -> str:
        return os.path.join(self.root, "Annotations")

    @property
    def images(self) -> str:
        return os.path.join(self.root, "JPEGImages")

    def annotation_of(self, image_id: str) -> str:
        return os.path.join(self.annotations, f"{image_id}.xml")

    def split(self, name: str) -> str:
        return os.path.join(self.root, "ImageSets", "Main", f"{name}.txt")


def load_voc(
    root: str, split: str | dict, classes: Sequence[str], check_images: bool = True
) -> tuple[list[Record], list[Fault]]:
    """
    Read one split.

    Args:
        root: the folder.
        split: file below ImageSets/Main, without its .txt, or a part of a fold (see folds.py).
        classes: names, in the order of their indices; objects of others are left out.
        check_images: read the header of every image and compare its size.

    Returns:
        Records, boxes from 0, and what was wrong.

    Raises:
        DatasetError: the layout itself is not there.
    """
    folder = VOCFolder(root)
    ids = read_split(root, split)
    if not os.path.isdir(folder.images):
        raise DatasetError(f"{folder.images} is missing: {_OF_VOC}")
    picker, find_images = ClassPicker(classes), ImageFinder(folder.images)
    records = []
    twice = repeated(ids)  # never of a fold
    faults = [Fault(folder.split(split), "id stands twice", repr(i)) for i in twice]
    for image_id in tqdm(ids, desc=f"Checking {os.path.basename(root)}", leave=False):
        path = folder.annotation_of(image_id)
        try:
            annotation = read_annotation(path)
        except ValueError as error:
            faults.append(_annotation_fault(path, error))
            continue
        image, image_faults = _image_of(image_id, find_images)
        objects, object_faults = _objects(annotation, picker, path)
        faults += image_faults + object_faults
        records.append(Record(image, image_id, annotation.width, annotation.height, objects))
    if check_images:
        images = [(r.file_name, r.width, r.height) for r in records]
        faults += size_faults(images, f"Checking images of {os.path.basename(root)}")
    faults += picker.faults(folder.annotations, lambda: collect_classes(root)[0])
    return records, faults


def collect_classes(root: str) -> tuple[list[str], list[Fault]]:
    """
    Names of all objects in all annotations below the root, sorted, and what to tell of them.

    Raises:
        DatasetError: there is none.
    """
    folder = VOCFolder(root).annotations
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder} is missing: {_OF_VOC}")
    names = set()
    for path in walk_files(folder):
        if not path.endswith(".xml"):
            continue
        try:
            names |= {o.name for o in read_annotation(path).objects}
        except ValueError:
            continue  # it is told of where its split is read
    if not names:
        raise DatasetError(f"{folder} has no annotated object: nothing to learn")
    return sorted(names), confusable(names, folder)


def read_split(root: str, split: str | dict) -> list[str]:
    """
    Ids of the images of a split, the lines of its file, or of a part of a fold of several (see
    folds.py). A last column of -1, 0 or 1, as in VOC's own files of a class, is left out where no
    annotation has the whole line as its id.
    """
    if isinstance(split, dict):
        return fold_part([i for name in split["of"] for i in read_split(root, name)], split)
    folder = VOCFolder(root)
    path = folder.split(split)
    if not os.path.isfile(path):
        there = sorted(p.stem for p in Path(path).parent.glob("*.txt"))
        near = difflib.get_close_matches(split, there) or there[:_MOST_SHOWN]
        meant = f" (there: {', '.join(near)})" if near else ""
        raise DatasetError(f"{path} is missing{meant}: {_OF_VOC}")
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except ValueError as error:
        raise DatasetError(f"{path} {error}; it must list an image's id a line") from error
    ids = [_id_of(line, folder) for line in lines if line]
    if not ids:
        raise DatasetError(f"{path} lists no image")
    return ids


def _id_of(line: str, folder: VOCFolder) -> str:
    first, _, last = line.rpartition(" ") if " " in line else line.rpartition("\t")
    if last not in _MEMBERSHIPS or os.path.isfile(folder.annotation_of(line)):
        return line
    return first.rstrip() if os.path.isfile(folder.annotation_of(first.rstrip())) else line


def _annotation_fault(path: str, error: ValueError) -> Fault:
    """Of a file that :func:`read_annotation` refused."""
    reason, *detail = error.args
    if not os.path.isfile(path):
        how = how_named(path)
        if how is not None:
            reason += f": it is there {how}"
        elif has_image_suffix(os.path.splitext(path)[0]):
            reason += ": the id ends as an image's file does; leave that away"
    return Fault(path, reason, *detail)


def _image_of(image_id: str, find_images: ImageFinder) -> tuple[str, list[Fault]]:
    """Path of the image of an id, or where it should be, and the fault that there are several."""
    paths = find_images(image_id)
    if len(paths) > 1:
        names = ", ".join(map(os.path.basename, paths))
        return paths[0], [Fault(paths[0], "several images have this id: keep one of them", names)]
    return (paths or [os.path.join(find_images.folder, f"{image_id}.jpg")])[0], []


def _objects(
    annotation: Annotation, picker: ClassPicker, path: str
) -> tuple[np.ndarray, list[Fault]]:
    """(M,) of records.OBJECT, and the faults of the objects left out."""
    found = []
    for obj in annotation.objects:
        category = picker(obj.name)
        if category is not None:
            found.append(FoundObject(obj.box, category, obj.line, difficult=obj.difficult))
    return pack_objects(found, annotation.width, annotation.height, path, first_pixel=1)
