"""
Where two strategies label differently, as in Figure 4 of the paper.

Shape symbols: R anchors or points of an image.
"""

from collections.abc import Callable
from typing import NamedTuple

from detectron2.structures import Boxes
from PIL import Image, ImageDraw
from torch import Tensor

from ..modeling.meta_arch import DensePredictions, Guided
from . import canvas
from .images import GroundTruthImage
from .labelling import label, predict

_TASKS = {"cls": "Classification", "loc": "Localisation"}
_ADDED_COLORS = {"cls": canvas.GREEN, "loc": canvas.YELLOW}
_MARKS = {"boxes": canvas.draw_boxes, "points": canvas.draw_points}


class Difference(NamedTuple):
    """The positives of a task that a strategy labels otherwise than another one does."""

    removed: Tensor  # (R,) bool: positive by the first and not by the second
    added: Tensor  # (R,) bool: positive by the second and not by the first
    num_kept: int  # positive by both


def compared_strategies(strategy: str) -> tuple[str, str]:
    """What a training by that strategy is drawn with: the static rule and what differs from it."""
    return "static", "mutual_guidance" if strategy == "static" else strategy


def differences(
    detector: Guided, image: GroundTruthImage, dense: DensePredictions, strategies: tuple[str, str]
) -> dict[str, Difference]:
    """Of both tasks, "cls" and "loc", on the same predictions."""
    first, second = (label(detector, [image.inputs], dense, name) for name in strategies)
    return {
        "cls": _difference(first.cls_gt_inds[0] >= 0, second.cls_gt_inds[0] >= 0),
        "loc": _difference(first.loc_mask[0], second.loc_mask[0]),
    }


def _difference(before: Tensor, after: Tensor) -> Difference:
    before, after = before.cpu(), after.cpu()
    return Difference(before & ~after, after & ~before, int((before & after).sum()))


def draw_assignments(
    detector: Guided, image: GroundTruthImage, title: str, strategies: tuple[str, str]
) -> tuple[Image.Image, dict[str, int]]:
    """
    Draw the image twice: the ground truth white and dashed, what only the first strategy makes
    positive red, what only the second one makes positive for classification green (on the left) and
    for localisation yellow (on the right). Anchors are boxes, the points of FCOS dots.

    Args:
        detector: with the weights that the labels depend on.
        title: a line above. strategies: the two that are compared.

    Returns:
        The picture, and the counts of its legend: "ground_truths" and, of each task,
        "{cls,loc}_kept", "_removed" and "_added".
    """
    dense = predict(detector, [image.inputs])
    found = differences(detector, image, dense, strategies)
    counts = {"ground_truths": len(image.inputs["instances"])}
    for task, (removed, added, num_kept) in found.items():
        counts[f"{task}_kept"] = num_kept
        counts[f"{task}_removed"] = int(removed.sum())
        counts[f"{task}_added"] = int(added.sum())
    mark = _MARKS[detector.candidate_kind]
    anchors = Boxes.cat(dense.anchors).tensor.cpu()
    panels = [_panel(image, anchors, mark, strategies, *item) for item in found.items()]
    return canvas.compose(title, panels), counts


def _panel(
    image: GroundTruthImage,
    anchors: Tensor,
    mark: Callable[[ImageDraw.ImageDraw, Tensor, canvas.Color], None],
    strategies: tuple[str, str],
    task: str,
    difference: Difference,
) -> canvas.Panel:
    removed, added = anchors[difference.removed], anchors[difference.added]
    gt_boxes = image.inputs["instances"].gt_boxes.tensor
    picture, scale = canvas.enlarge(image.pixels)
    draw = ImageDraw.Draw(picture)
    mark(draw, removed * scale, canvas.RED)
    mark(draw, added * scale, _ADDED_COLORS[task])
    canvas.draw_dashed_boxes(draw, gt_boxes * scale, canvas.WHITE)
    first, second = strategies
    legend = [
        (canvas.WHITE, f"ground truth: {len(gt_boxes)}"),
        (canvas.RED, f"{first} only: {len(removed)}"),
        (_ADDED_COLORS[task], f"{second} only: {len(added)}"),
        (None, f"positive by both, not drawn: {difference.num_kept}"),
    ]
    return canvas.Panel(f"{_TASKS[task]}: {first} and {second}", picture, legend)
