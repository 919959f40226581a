"""Predictions on images of any source, as files that other tools read."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from ..data.inputs import has_image_suffix


class Prediction(NamedTuple):
    """What was found in one image."""

    name: str  # as find_images gives it
    instances: Instances  # pred_boxes, scores and pred_classes on the CPU; image_size the image's


def coco_dataset(predictions: Sequence[Prediction], metadata: Metadata) -> dict:
    """
    A data set in COCO's format whose annotations have a ``score`` each. Ids count
    from 1, but categories have those of a COCO data set that the model was trained on.
    """
    ids = _category_ids(metadata)
    images, annotations = [], []
    for image_id, (name, instances) in enumerate(predictions, start=1):
        height, width = instances.image_size
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for result in instances_to_coco_json(instances, image_id):
            annotations.append(
                {
                    **result,
                    "id": len(annotations) + 1,
                    "category_id": ids[result["category_id"]],
                    "area": result["bbox"][2] * result["bbox"][3],
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": i, "name": name} for i, name in zip(ids, metadata.thing_classes, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _category_ids(metadata: Metadata) -> list[int]:
    """Of each class."""
    known = metadata.get("thing_dataset_id_to_contiguous_id")
    if known is None:
        return list(range(1, len(metadata.thing_classes) + 1))
    return sorted(known, key=known.get)


def voc_id(name: str) -> str:
    """The id of an image in VOC's files: its name without an image's suffix; frames have none."""
    return os.path.splitext(name)[0] if has_image_suffix(name) else name


def write_voc(predictions: Sequence[Prediction], classes: Sequence[str], folder: str) -> None:
    """
    Write ``comp4_det_test_CLASS.txt`` for every class, as VOC's devkit reads them: a line a
    detection with image id, score and the box, its pixels counted from 1 and inclusive.
    """
    lines: list[list[str]] = [[] for _ in classes]
    for name, instances in predictions:
        boxes, scores = instances.pred_boxes.tensor.tolist(), instances.scores.tolist()
        for (x0, y0, x1, y1), score, label in zip(
            boxes, scores, instances.pred_classes.tolist(), strict=True
        ):
            # Detectron2's boxes count from 0 and end beside their last pixel.
            corners = f"{x0 + 1:.2f} {y0 + 1:.2f} {x1:.2f} {y1:.2f}"
            lines[label].append(f"{voc_id(name)} {score:.6f} {corners}\n")
    for label, of_class in zip(classes, lines, strict=True):
        path = os.path.join(folder, f"comp4_det_test_{label}.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(of_class)
