"""The evaluator of a data set."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..errors import DatasetError
from .coco import COCOBoxEvaluator
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
    evaluators = [ap_evaluator(cfg, dataset_name), DetectionsWriter(dataset_name, cfg.OUTPUT_DIR)]
    if cfg.TEST.MISALIGNMENT:
        evaluators.append(MisalignmentEvaluator(dataset_name, cfg.OUTPUT_DIR))
    return DatasetEvaluators(evaluators)


def ap_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """Average precision alone. Raises DatasetError for a data set that has no boxes."""
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    if kind == "pascal_voc":
        return PascalVOCEvaluator(dataset_name)
    if kind == "coco":
        return COCOBoxEvaluator(dataset_name, cfg.OUTPUT_DIR, cfg.TEST.DETECTIONS_PER_IMAGE)
    raise DatasetError(f"data set {dataset_name} is of type {kind!r}; coco and pascal_voc work")
