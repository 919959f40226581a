"""The ground truths of a registered data set, for evaluation: the objects that training reads."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import Instances
from torchvision.ops import box_iou

from ..data import Record, records_of
from ..data.builtin import has_voc_files, read_builtin_voc, record_of
from ..data.coco import load_coco
from ..data.faults import fault_table, stopping
from ..errors import DatasetError

logger = logging.getLogger(__name__)


class GroundTruths(NamedTuple):
    """Of an image with M objects."""

    boxes: np.ndarray  # (M, 4) float64, XYXY in pixels
    classes: np.ndarray  # (M,) int64
    counted: np.ndarray  # (M,) bool: neither a crowd nor marked difficult
    crowd: np.ndarray  # (M,) bool


def load_records(dataset_name: str) -> list[Record]:
    """
    The records of a data set, one of Detectron2's own included, of which VOC's marks of difficult
    objects and COCO's areas are read, too. Raises DatasetError where VOC's cannot be.
    """
    records = records_of(dataset_name)
    if records is not None:
        return records
    dicts = DatasetCatalog.get(dataset_name)  # which sets the classes of COCO's files
    metadata = MetadataCatalog.get(dataset_name)
    if has_voc_files(dataset_name):
        read, faults = read_builtin_voc(dataset_name)
        if faults:
            raise DatasetError(f"data set {dataset_name}:\n{fault_table(faults)}")
        return _records_of(dicts, read)
    is_read = {"json_file", "image_root"} <= metadata.as_dict().keys()
    if not is_read or not any(d.get("annotations") for d in dicts):
        return _records_of(dicts)
    data = load_coco(
        metadata.json_file, metadata.image_root, metadata.thing_classes, check_images=False
    )
    if not stopping(data.faults):
        return _records_of(dicts, data.records)
    logger.warning(
        f"data set {dataset_name}: AP is of what Detectron2 could read of {metadata.json_file}, in "
        f"which this is wrong:\n{fault_table(data.faults)}"
    )
    source = metadata.json_file, metadata.image_root, dataset_name
    return _records_of(load_coco_json(*source, extra_annotation_keys=["area"]))


def _records_of(dicts: Sequence[dict], read: Sequence[Record] = ()) -> list[Record]:
    """
    Of Detectron2's data set dicts: those that were read from its files, and of other ids, which a
    loader of one's own may give, its own.
    """
    by_id = {record.image_id: record for record in read}
    return [by_id.get(d["image_id"]) or record_of(d)[0] for d in dicts]


def ground_truths(record: Record) -> GroundTruths:
    """Of a record."""
    objects = record.objects
    return GroundTruths(
        objects["box"],
        objects["class"].astype(np.int64),
        ~(objects["crowd"] | objects["difficult"]),
        objects["crowd"],
    )


def class_ious(predictions: Instances, gts: GroundTruths) -> np.ndarray:
    """(P, M) float64: IoU of predictions and ground truths, 0 where their classes differ."""
    boxes = predictions.pred_boxes.tensor.cpu().double()
    ious = box_iou(boxes, torch.from_numpy(gts.boxes)).numpy()
    return np.where(predictions.pred_classes.cpu().numpy()[:, None] == gts.classes, ious, 0.0)
