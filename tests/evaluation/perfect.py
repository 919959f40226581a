"""Detectors that find what a data set's records hold: exactly, and about."""

import numpy as np

from mutual_guidance.config import load_config
from mutual_guidance.evaluation import build_evaluator
from mutual_guidance.evaluation.ground_truth import load_records
from tests.conftest import REPOSITORY, predicted


def perfect_metrics(name, folder):
    """Metrics of the detector that finds all exactly, which leaves crowd regions out."""
    return metrics_of(config_evaluator(name, folder), perfect_detections(name))


def config_evaluator(name, folder):
    """The evaluator that a run of the data set has."""
    config = REPOSITORY / "configs" / "Base-Anchors.yaml"
    return build_evaluator(load_config(str(config), ["OUTPUT_DIR", str(folder)]), name)


def metrics_of(evaluator, found):
    evaluator.reset()
    for model_input, output in found:
        evaluator.process([model_input], [output])
    return evaluator.evaluate()["bbox"]


def perfect_detections(name):
    """(input, output) of each image."""
    for record in load_records(name):
        objects = record.objects[~record.objects["crowd"]]
        yield _of(record, objects["box"], np.ones(len(objects)), objects["class"])


def noisy_detections(name):
    """(input, output) of each image: boxes near the truth and elsewhere, some classes wrong."""
    generator = np.random.default_rng(0)
    for record in load_records(name):
        true = record.objects["box"]
        side = np.sqrt((true[:, 2:] - true[:, :2]).prod(axis=1)).clip(1)[:, None]
        spreads = [generator.normal(0, spread, true.shape) * side for spread in (0.06, 0.2)]
        boxes = np.concatenate([*(true + s for s in spreads), [[1, 1, 30, 40]]])
        classes = np.array([*record.objects["class"], *record.objects["class"], 0])
        wrong = generator.random(len(boxes)) < 0.15
        classes = np.where(wrong, 1 - classes.clip(0, 1), classes)
        yield _of(record, boxes, generator.random(len(boxes)), classes)


def _of(record, *found):
    instances = predicted(*found, size=(record.height, record.width))
    return {"image_id": record.image_id}, {"instances": instances}
