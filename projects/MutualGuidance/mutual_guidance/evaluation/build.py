"""The evaluator of a data set."""

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..data.builtin import evaluator_type
from .coco import COCOBoxEvaluator
from .detections import DetectionsWriter
from .misalignment import MisalignmentEvaluator
from .pascal_voc import PascalVOCEvaluator


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """
    Average precision by the data set's ``evaluator_type``, with the detections as a file, and
    misalignment if TEST.MISALIGNMENT.

    Raises:
        DatasetError: for a data set of another type.
    """
    evaluators = [ap_evaluator(cfg, dataset_name), DetectionsWriter(dataset_name, cfg.OUTPUT_DIR)]
    if cfg.TEST.MISALIGNMENT:
        evaluators.append(MisalignmentEvaluator(dataset_name, cfg.OUTPUT_DIR))
    return DatasetEvaluators(evaluators)


def ap_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """Average precision alone. Raises DatasetError for a data set of another type."""
    if evaluator_type(dataset_name) == "pascal_voc":
        return PascalVOCEvaluator(dataset_name)
    return COCOBoxEvaluator(dataset_name, cfg.OUTPUT_DIR, cfg.TEST.DETECTIONS_PER_IMAGE)
