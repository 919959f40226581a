"""The evaluator of a data set."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators

from ..errors import DatasetError
from .misalignment import MisalignmentEvaluator
from .pascal_voc import PascalVOCEvaluator


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """
    Average precision by the data set's ``evaluator_type``, and misalignment if TEST.MISALIGNMENT.

    Raises:
        DatasetError: for a data set that has no boxes.
    """
    evaluator = _ap_evaluator(cfg, dataset_name)
    if not cfg.TEST.MISALIGNMENT:
        return evaluator
    return DatasetEvaluators([evaluator, MisalignmentEvaluator(dataset_name, cfg.OUTPUT_DIR)])


def _ap_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    if kind == "pascal_voc":
        return PascalVOCEvaluator(dataset_name)
    if kind == "coco":
        return COCOEvaluator(
            dataset_name, ("bbox",), output_dir=cfg.OUTPUT_DIR, allow_cached_coco=False
        )
    raise DatasetError(f"data set {dataset_name} is of type {kind!r}; coco and pascal_voc work")
