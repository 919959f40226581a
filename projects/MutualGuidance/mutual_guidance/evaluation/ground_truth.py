"""The ground truths of a registered data set, for evaluation."""

from typing import NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances
from torchvision.ops import box_iou

from ..data import load_voc


class GroundTruths(NamedTuple):
    """Of an image with M objects."""

    boxes: np.ndarray  # (M, 4) float64, XYXY in pixels
    classes: np.ndarray  # (M,) int64
    counted: np.ndarray  # (M,) bool: neither a crowd nor marked difficult


def load_records(dataset_name: str) -> list[dict]:
    """Detectron2's data set dicts; on VOC layouts, the built-in ones too, with "difficult"."""
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("evaluator_type") != "pascal_voc":
        return DatasetCatalog.get(dataset_name)
    records, _ = load_voc(
        metadata.dirname, metadata.split, metadata.thing_classes, check_images=False
    )
    return records


def ground_truths(record: dict) -> GroundTruths:
    """Of a data set dict."""
    annotations = record["annotations"]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return GroundTruths(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in annotations], dtype=np.int64),
        np.array([not (a.get("iscrowd") or a.get("difficult")) for a in annotations], dtype=bool),
    )


def class_ious(predictions: Instances, gts: GroundTruths) -> np.ndarray:
    """(P, M) float64: IoU of predictions and ground truths, 0 where their classes differ."""
    boxes = predictions.pred_boxes.tensor.cpu().double()
    ious = box_iou(boxes, torch.from_numpy(gts.boxes)).numpy()
    return np.where(predictions.pred_classes.cpu().numpy()[:, None] == gts.classes, ious, 0.0)
