"""
Where the strategies label differently, as in Figure 4 of the paper.

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

_TITLES = {
    "localize_to_classify": ("Classification", "Localize to Classify"),
    "classify_to_localize": ("Localisation", "Classify to Localize"),
}
_ADDED_COLORS = {"localize_to_classify": canvas.GREEN, "classify_to_localize": canvas.YELLOW}
_MARKS = {"boxes": canvas.draw_boxes, "points": canvas.draw_points}


class Difference(NamedTuple):
    """The positives of the task that a strategy labels otherwise than the static rule does."""

    removed: Tensor  # (R,) bool: positive by the static rule and not by the strategy
    added: Tensor  # (R,) bool: positive by the strategy and not by the static rule
    num_kept: int  # positive by both


def differences(
    detector: Guided, image: GroundTruthImage, dense: DensePredictions
) -> dict[str, Difference]:
    """
    Of "localize_to_classify" in the positives of classification and of "classify_to_localize" in
    those of localisation, both on the same predictions.
    """
    static, for_cls, for_loc = (
        label(detector, [image.inputs], dense, strategy) for strategy in ("static", *_TITLES)
    )
    return {
        "localize_to_classify": _difference(
            static.cls_gt_inds[0] >= 0, for_cls.cls_gt_inds[0] >= 0
        ),
        "classify_to_localize": _difference(static.loc_mask[0], for_loc.loc_mask[0]),
    }


def _difference(before: Tensor, after: Tensor) -> Difference:
    before, after = before.cpu(), after.cpu()
    return Difference(before & ~after, after & ~before, int((before & after).sum()))


def draw_assignments(
    detector: Guided, image: GroundTruthImage, title: str
) -> tuple[Image.Image, dict[str, int]]:
    """
    Draw the image twice: the ground truth white and dashed, what only the static rule makes
    positive red, what only Localize to Classify makes positive for classification green (on the
    left) and only Classify to Localize for localisation yellow (on the right). Anchors are boxes,
    the points of FCOS dots.

    Args:
        detector: with the weights that the labels depend on.
        title: a line above.

    Returns:
        The picture, and the counts of its legend: "ground_truths", "static" (positives) and
        "removed" and "added" for each of the two strategies.
    """
    dense = predict(detector, [image.inputs])
    found = differences(detector, image, dense)
    counts = {"ground_truths": len(image.inputs["instances"])}
    for strategy, (removed, added, num_kept) in found.items():
        counts["static"] = int(removed.sum()) + num_kept
        counts[f"{strategy}_removed"] = int(removed.sum())
        counts[f"{strategy}_added"] = int(added.sum())
    mark = _MARKS[detector.candidate_kind]
    anchors = Boxes.cat(dense.anchors).tensor.cpu()
    panels = [_panel(image, anchors, mark, *item) for item in found.items()]
    return canvas.compose(title, panels), counts


def _panel(
    image: GroundTruthImage,
    anchors: Tensor,
    mark: Callable[[ImageDraw.ImageDraw, Tensor, canvas.Color], None],
    strategy: str,
    difference: Difference,
) -> canvas.Panel:
    removed, added = anchors[difference.removed], anchors[difference.added]
    gt_boxes = image.inputs["instances"].gt_boxes.tensor
    picture, scale = canvas.enlarge(image.pixels)
    draw = ImageDraw.Draw(picture)
    mark(draw, removed * scale, canvas.RED)
    mark(draw, added * scale, _ADDED_COLORS[strategy])
    canvas.draw_dashed_boxes(draw, gt_boxes * scale, canvas.WHITE)
    task, name = _TITLES[strategy]
    legend = [
        (canvas.WHITE, f"ground truth: {len(gt_boxes)}"),
        (canvas.RED, f"static rule only: {len(removed)}"),
        (_ADDED_COLORS[strategy], f"{name} only: {len(added)}"),
        (None, f"positive by both, not drawn: {difference.num_kept}"),
    ]
    return canvas.Panel(f"{task}: static rule and {name}", picture, legend)
