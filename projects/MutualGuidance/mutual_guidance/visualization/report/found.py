"""What a run found on its test set: the detections that its last evaluation kept, and the truth."""

from dataclasses import dataclass
from pathlib import Path

from detectron2.data import MetadataCatalog

from ...config import load_config
from ...data import check_datasets, register_datasets
from ...evaluation.detections import read_detections
from ...evaluation.ground_truth import GroundTruths, ground_truths, load_records
from ...evaluation.matching import Matched, match
from ...run_files import DETECTIONS_FOLDER


@dataclass
class Found:
    """Of every image of a data set, in its order."""

    classes: list[str]
    files: list[str]
    gts: list[GroundTruths]
    matches: list[Matched]


def detection_files(folder: Path) -> dict[str, Path]:
    """By data set, below the output folder of a run."""
    files = sorted((folder / DETECTIONS_FOLDER).glob("**/*.npz"))
    return {
        path.relative_to(folder / DETECTIONS_FOLDER).with_suffix("").as_posix(): path
        for path in files
    }


def read_found(path: Path, dataset: str, config: Path) -> Found:
    """
    Args:
        path: of the detections. config: config.yaml of the run, which says where the images are.

    Raises:
        ConfigError, DatasetError: the config or the data set cannot be read, or is another one.
        OSError, ValueError: the detections cannot be read, or belong to other images.
    """
    detections = read_detections(path)
    cfg = load_config(config)
    register_datasets(cfg.DATASETS.REGISTER)
    check_datasets([dataset])
    classes = list(MetadataCatalog.get(dataset).thing_classes)
    if classes != list(cfg.DATASETS.CLASSES):
        raise ValueError(f"{dataset} has other classes now than when the run was trained")
    most = max((d.classes.max(initial=0) for d in detections.values()), default=0)
    if most >= len(classes):
        raise ValueError(f"it tells of class {most}, and {dataset} has {len(classes)} classes")
    records = {str(record.image_id): record for record in load_records(dataset)}
    if records.keys() != detections.keys():
        raise ValueError(f"{dataset} has other images now than when the run was evaluated")
    gts = {image_id: ground_truths(record) for image_id, record in records.items()}
    return Found(
        classes,
        [record.file_name for record in records.values()],
        list(gts.values()),
        [match(detections[image_id], gts[image_id]) for image_id in records],
    )
