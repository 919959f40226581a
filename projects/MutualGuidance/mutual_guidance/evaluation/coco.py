"""
COCO's average precision on the records that training reads.

Shape symbols: T IoU thresholds, R recalls, K classes, A ranges of area, L limits on detections.
"""

import contextlib
import io
import itertools
import json
import logging
import os
from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from pycocotools.coco import COCO

from ..alive import sign_of_life, waiting
from ..data import Record
from ..data.shared import of_all_processes
from ..interrupt import left_on_signal
from ..run_files import CLASS_AP, write_text
from .coco_matching import SparseCOCOeval
from .ground_truth import load_records

logger = logging.getLogger(__name__)

# Detections of a class that COCO counts in an image.
COCO_LIMIT = 100
_AREAS = ("", "s", "m", "l")  # all, small, medium, large


class COCOBoxEvaluator(DatasetEvaluator):
    """
    AP, AP50, AP75, APs, APm, APl and AP of each class, by pycocotools.

    Detectron2's own evaluator reads the JSON file anew, with boxes that training dropped and
    whatever ids stand there; this one gives pycocotools the records, under ids of its own. Crowd
    regions are neither counted nor held against a detection.
    """

    def __init__(self, dataset_name: str, output_dir: str, max_detections: int) -> None:
        """
        Args:
            dataset_name: with ``thing_classes`` in its metadata.
            output_dir: inference/<data set>/coco_instances_results.json is written there.
            max_detections: that the detector returns of an image. Where an image has more objects
                of a class than the 100 detections that COCO counts, AP@<max_detections> and so on
                are measured with this limit, too.
        """
        self._records = load_records(dataset_name)  # which may set the metadata
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._file = os.path.join(
            output_dir, "inference", dataset_name, "coco_instances_results.json"
        )
        self._classes = metadata.thing_classes
        self._category_ids = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        self._limits = [1, 10, COCO_LIMIT]
        most = most_of_a_class(self._records)
        if most > COCO_LIMIT:
            self._add_limit(most, max_detections)

    def _add_limit(self, most: int, max_detections: int) -> None:
        text = (
            f"An image of {self._dataset_name} has {most} objects of a class, but AP counts "
            f"{COCO_LIMIT} detections of a class in an image, as COCO does: "
        )
        if max_detections > COCO_LIMIT:
            self._limits.append(max_detections)
            text += f"AP@{max_detections} counts {max_detections} (TEST.DETECTIONS_PER_IMAGE)"
        else:
            text += f"with TEST.DETECTIONS_PER_IMAGE above {COCO_LIMIT} more would be measured"
        logger.warning(text)

    def reset(self) -> None:
        self._results = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for x, output in zip(inputs, outputs, strict=True):
            self._results += instances_to_coco_json(output["instances"].to("cpu"), x["image_id"])

    def evaluate(self) -> dict | None:
        """
        Returns:
            {"bbox": {metric: value}}, in percent; NaN where there is no ground truth, which the
            means leave out. None on all processes but the first, and when a signal ends it.
        """
        gathered, metrics = comm.gather(self._results, dst=0), None
        if comm.is_main_process():
            metrics = self._measure(list(itertools.chain.from_iterable(gathered)))
        with waiting():
            of_all_processes(None)  # the others have the patience that no group of Detectron2's has
        return metrics

    @left_on_signal
    def _measure(self, results: list[dict]) -> dict:
        self._save(results)
        precision = average_precisions(self._records, results, len(self._classes), self._limits)
        return {"bbox": summarize(precision, self._limits, self._classes)}

    def _save(self, results: list[dict]) -> None:
        """Write the detections as COCO's server takes them, with the ids of the JSON file."""
        ids = {index: category_id for category_id, index in self._category_ids.items()}
        rows = ({**r, "category_id": ids.get(r["category_id"], r["category_id"])} for r in results)
        os.makedirs(os.path.dirname(self._file), exist_ok=True)
        # One by one: within a call of all of them no signal would be heeded.
        write_text(self._file, f"[{', '.join(map(json.dumps, rows))}]")


def most_of_a_class(records: Sequence[Record]) -> int:
    """The largest number of objects that an image has of a class, crowd regions left out."""
    counts = (
        np.unique(r.objects["class"][~r.objects["crowd"]], return_counts=True)[1] for r in records
    )
    return max((int(c.max()) for c in counts if len(c)), default=0)


def average_precisions(
    records: Sequence[Record], results: list[dict], num_classes: int, limits: list[int]
) -> np.ndarray:
    """
    Args:
        records: the ground truth. results: detections as of ``instances_to_coco_json``.
        limits: on the detections of a class in an image, ascending (L).

    Returns:
        (T, R, K, A, L): precision at each recall, -1 where there is no ground truth.
    """
    indices = {record.image_id: i for i, record in enumerate(records)}
    truth, found = ([[] for _ in range(num_classes)] for _ in range(2))
    for record in records:
        columns = (record.objects[key].tolist() for key in ("box", "class", "area", "crowd"))
        for xyxy, category, area, crowd in zip(*columns, strict=True):
            where = {"image_id": indices[record.image_id], "category_id": category}
            of_object = {"bbox": _xywh(xyxy), "area": area, "iscrowd": int(crowd)}
            truth[category].append(where | of_object)
    # Another detector may have classes beyond those of the data.
    for result in (r for r in results if r["category_id"] < num_classes):
        area = result["bbox"][2] * result["bbox"][3]
        where = {"image_id": indices[result["image_id"]], "area": area, "iscrowd": 0}
        found[result["category_id"]].append(result | where)
    # Class by class, since pycocotools goes to each image with every class.
    parts = [_precision_of(k, truth[k], found[k], limits) for k in range(num_classes)]
    return np.concatenate(parts, axis=2)


def _precision_of(
    category: int, truth: list[dict], found: list[dict], limits: list[int]
) -> np.ndarray:
    """(T, R, 1, A, L), from the images that have the category."""
    sign_of_life()
    images = sorted({annotation["image_id"] for annotation in (*truth, *found)})
    with contextlib.redirect_stdout(io.StringIO()):
        sets = [_coco(images, [category], annotations) for annotations in (truth, found)]
        evaluation = SparseCOCOeval(*sets, "bbox")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"]


def _coco(images: Sequence[int], categories: Sequence[int], annotations: list[dict]) -> COCO:
    """A data set of pycocotools. Ids of annotations begin at 1, since it takes 0 for no match."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category} for category in categories],
        "annotations": [{**a, "id": i} for i, a in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco


def _xywh(box: list[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def summarize(
    precision: np.ndarray, limits: Sequence[int], classes: Sequence[str]
) -> dict[str, float]:
    """Means of precision (T, R, K, A, L) in percent; thresholds are 0.50:0.05:0.95."""
    at = limits.index(COCO_LIMIT)
    metrics = {
        "AP": _mean(precision[..., 0, at]),
        "AP50": _mean(precision[0, ..., 0, at]),
        "AP75": _mean(precision[5, ..., 0, at]),
    }
    metrics |= {f"AP{_AREAS[a]}": _mean(precision[..., a, at]) for a in range(1, len(_AREAS))}
    for more in range(at + 1, len(limits)):
        metrics[f"AP@{limits[more]}"] = _mean(precision[..., 0, more])
        metrics[f"AP50@{limits[more]}"] = _mean(precision[0, ..., 0, more])
        metrics[f"AP75@{limits[more]}"] = _mean(precision[5, ..., 0, more])
    of_class = {f"{CLASS_AP}{n}": _mean(precision[:, :, k, 0, at]) for k, n in enumerate(classes)}
    return metrics | of_class


def _mean(precision: np.ndarray) -> float:
    defined = precision[precision > -1]
    return 100 * float(defined.mean()) if defined.size else float("nan")
