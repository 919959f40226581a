"""The evaluator of a data set."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators

from ..errors import DatasetError
from .detections import DetectionsWriter
from .misalignment import MisalignmentEvaluator
from .pascal_voc import PascalVOCEvaluator


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """
    Average precision by the data set's ``evaluator_type``, with the detections as a file, and
    misalignment if TEST.MISALIGNMENT.

    Raises:
        DatasetError: for a data set that has no boxes.
    """
    evaluators = [_ap_evaluator(cfg, dataset_name), DetectionsWriter(dataset_name, cfg.OUTPUT_DIR)]
    if cfg.TEST.MISALIGNMENT:
        evaluators.append(MisalignmentEvaluator(dataset_name, cfg.OUTPUT_DIR))
    return DatasetEvaluators(evaluators)


def _ap_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    if kind == "pascal_voc":
        return PascalVOCEvaluator(dataset_name)
    if kind == "coco":
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        return COCOEvaluator(dataset_name, ("bbox",), output_dir=folder, allow_cached_coco=False)
    raise DatasetError(f"data set {dataset_name} is of type {kind!r}; coco and pascal_voc work")
