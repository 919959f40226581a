"""
The qualities of one ground truth's candidates, as in Figure 2 of the paper.

Shape symbols: R anchors or points of an image.
"""

from typing import NamedTuple

import torch
from detectron2.structures import Boxes
from torch import Tensor

from ..assignment import QUALITIES, GroundTruths
from ..errors import InputError
from ..modeling.meta_arch import DensePredictions, Guided, ground_truths
from .images import GroundTruthImage
from .labelling import label, predict

POSITIVE, IGNORED, NEGATIVE = "positive", "ignored", "negative"


class CandidateRow(NamedTuple):
    """A candidate of a ground truth: its qualities in [0, 1] and its labels."""

    box: list[float]  # the anchor, or for a point a square around it; XYXY, pixels
    prior: float  # IoU with the anchor, or centerness
    regressed: float  # IoU of the regressed box
    score: float  # predicted for the ground truth's class
    amplified: float
    # For this ground truth: of both tasks by the static rule, of classification by Localize to
    # Classify, of localisation by Classify to Localize.
    static: str
    localize_to_classify: str
    classify_to_localize: str


def candidate_rows(
    detector: Guided, image: GroundTruthImage, gt_index: int, limit: int
) -> list[CandidateRow]:
    """
    The candidates that matter most to one ground truth, by descending prior.

    Args:
        gt_index: of the ground truth.
        limit: number of rows; those come first whose positive labels differ between the
            strategies, then the other positives, then the rest, by descending prior each.

    Raises:
        InputError: the image has no such ground truth.
    """
    instances = image.inputs["instances"].to(detector.device)
    if not 0 <= gt_index < len(instances):
        raise InputError(f"image {image.name} has the objects 0 to {len(instances) - 1}")
    dense = predict(detector, [image.inputs])
    columns = _qualities(detector, dense, ground_truths([instances]), gt_index)

    positive, ignored = _labels(detector, image, dense, gt_index)
    differs = positive.any(dim=0) & ~positive.all(dim=0)
    rank = differs.float() * 4 + positive.any(dim=0).float() * 2 + columns[0]
    chosen = rank.topk(min(limit, len(rank))).indices
    chosen = chosen[columns[0][chosen].argsort(descending=True, stable=True)]
    boxes = Boxes.cat(dense.anchors).tensor
    return [
        CandidateRow(
            boxes[i].tolist(),
            *(float(column[i]) for column in columns),
            *(_label_name(p[i], s[i]) for p, s in zip(positive, ignored, strict=True)),
        )
        for i in chosen.tolist()
    ]


def _labels(
    detector: Guided, image: GroundTruthImage, dense: DensePredictions, gt_index: int
) -> tuple[Tensor, Tensor]:
    """Which candidates are positive for the ground truth, and which are ignored: 2 x (3, R)."""
    static, for_cls, for_loc = (
        label(detector, [image.inputs], dense, strategy)
        for strategy in ("static", "localize_to_classify", "classify_to_localize")
    )
    inds = torch.cat((static.cls_gt_inds, for_cls.cls_gt_inds, for_loc.loc_gt_inds))
    ignored = torch.cat((static.cls_labels < 0, for_cls.cls_labels < 0, for_loc.loc_mask & False))
    return inds == gt_index, ignored


def _qualities(
    detector: Guided, dense: DensePredictions, truth: GroundTruths, gt_index: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prior, IoU of the regressed box, score and amplified prior of all candidates: 4 x (R,)."""
    everyone = torch.arange(sum(dense.level_sizes), device=truth.boxes.device)
    pairs = detector.pairs(dense, truth, torch.full_like(everyone, gt_index), everyone)
    prior, regressed, amplified = (
        QUALITIES[name].of(pairs) for name in ("prior", "regressed", "amplified")
    )
    return prior, regressed, pairs.score, amplified


def _label_name(positive: Tensor, ignored: Tensor) -> str:
    return POSITIVE if positive else IGNORED if ignored else NEGATIVE
