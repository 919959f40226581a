"""Detectron2's DefaultTrainer with the project's data, evaluators and reports."""

import json
import logging
import math
import os
import weakref

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from tabulate import tabulate

from ..checkpoint import Checkpointer
from ..data import build_mapper
from ..evaluation import build_evaluator

logger = logging.getLogger(__name__)

RESULTS_FILE = "evaluation.json"


class Trainer(DefaultTrainer):
    """Trains and evaluates what the config describes."""

    def build_hooks(self):
        # Here, since the hooks that DefaultTrainer builds hold on to the checkpointer.
        self.checkpointer = Checkpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        return super().build_hooks()

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_train_loader(cfg, mapper=build_mapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_detection_test_loader(
            cfg, dataset_name, mapper=build_mapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model, evaluators=None) -> dict:
        """
        As Detectron2's; the main process also logs one table a data set and writes
        ``evaluation.json`` to the output folder: {data set: {"bbox": {metric: percent}}}.
        """
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process():
            names = cfg.DATASETS.TEST
            by_dataset = {names[0]: results} if len(names) == 1 else results
            for name, result in by_dataset.items():
                logger.info(f"Results on {name}:\n{results_table(result['bbox'])}")
            path = os.path.join(cfg.OUTPUT_DIR, RESULTS_FILE)
            with PathManager.open(path, "w") as f:
                json.dump(_nan_to_none(by_dataset), f, indent=2, allow_nan=False)
            logger.info(f"Results saved to {path}")
        return results


def results_table(metrics: dict[str, float]) -> str:
    """Metrics in percent as a table: the means in a row, then a row a class."""
    means = {k: v for k, v in metrics.items() if not k.startswith("AP-")}
    classes = [(k[len("AP-") :], v) for k, v in metrics.items() if k.startswith("AP-")]
    table = tabulate([means.values()], headers=means.keys(), tablefmt="pipe", floatfmt=".1f")
    if not classes:
        return table
    return f"{table}\n\n{tabulate(classes, ('class', 'AP'), 'pipe', floatfmt='.1f')}"


def _nan_to_none(results):
    """JSON has no NaN."""
    if isinstance(results, dict):
        return {k: _nan_to_none(v) for k, v in results.items()}
    return None if isinstance(results, float) and math.isnan(results) else results
