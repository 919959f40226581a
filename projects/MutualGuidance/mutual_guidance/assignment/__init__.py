"""
Label assignment of Mutual Guidance (Zhang et al., ACCV 2020), in plain PyTorch. To learn the method
from code, read ``plain.py`` first: the paper's method for anchors, in loops, on two pages.

A detector with anchors has to be told, at every step of its training, which anchors stand for which
ground truth. The static rule looks at their IoU alone, once and for both tasks: 0.5 or more is
positive, below 0.4 is background. But an anchor of high IoU may regress to a poor box, and one of
lower IoU be the only one that recognises the object. Mutual Guidance keeps *how many* anchors a
ground truth gets, and lets each task say *which* for the other:

* Localize to Classify (Sec. 3.1): for classification, anchors rank by the IoU of the box that they
  regress. What localises well shall score high.
* Classify to Localize (Sec. 3.2): for localisation, anchors rank by their IoU, amplified by the
  score p that they give the ground truth's class: IoU ^ ((sigma - p) / sigma), Eq. (1). What scores
  high shall localise well.

:class:`AnchorMatcher` labels anchors and lists the steps; :class:`PointMatcher` labels the points
of FCOS, with the centerness in the place of the IoU. Both label both tasks of a whole batch in one
call, without gradients, and return an :class:`Assignment`. ``STRATEGIES`` are the static rule, the
two directions alone, both together, and rules of other papers: rows of ``QUALITIES``, what ranks,
``COUNTS``, how many, and ``POOLS``, among which.

An object of class 1 and four anchors, of IoU 0.8, 0.6, 0.45 and 0 with it:

>>> import torch
>>> from mutual_guidance.assignment import AnchorMatcher
>>> anchors = torch.tensor([[0, 0, 10, 8], [0, 0, 10, 6], [0, 0, 10, 4.5], [20, 0, 30, 10]])
>>> truth = [torch.tensor([[0.0, 0.0, 10.0, 10.0]])], [torch.tensor([1])]

The static rule finds two positives (N_p) and one to be ignored (N_i: -1), the same for both tasks;
the fourth is background (3, the number of classes):

>>> labels = AnchorMatcher("static", num_classes=3)(anchors, *truth)
>>> labels.cls_labels.tolist(), labels.loc_mask.tolist()
([[1, 1, -1, 3]], [[True, True, False, False]])

Now the third anchor regresses best (IoU 0.9, against 0.3 and 0.7) and is sure of the class, with a
logit of 9. Its amplified IoU, 0.45 ^ ((2 - 1) / 2) = 0.67, passes the 0.6 of the second. There are
two positives again, but not the same, nor the same for both tasks:

>>> pred_boxes = anchors.clone()[None]
>>> pred_boxes[0, :3, 3] = torch.tensor([3.0, 7.0, 9.0])
>>> pred_logits = torch.full((1, 4, 3), -9.0)
>>> pred_logits[0, 2, 1] = 9.0
>>> labels = AnchorMatcher("mutual_guidance", sigma=2.0)(anchors, *truth, pred_boxes, pred_logits)
>>> labels.cls_labels.tolist(), labels.loc_mask.tolist()
([[-1, 1, 1, 3]], [[True, False, True, False]])

The losses are the detector's own: a focal loss over the anchors whose ``cls_labels`` are not -1,
and a box loss over ``loc_mask`` with the ground truths ``loc_gt_inds``, each divided by its number
of positives. Nothing changes in inference.

Nothing here imports more than PyTorch: the package can be used in any PyTorch detector.
"""

from .assign import Assignment
from .matcher import AnchorMatcher, PointMatcher
from .pairs import Batch, GroundTruths, PairValues
from .quality import amplify, centerness, matched_pairwise_iou
from .strategies import (
    COUNTS,
    POOLS,
    QUALITIES,
    STRATEGIES,
    Count,
    Eligible,
    Numbers,
    Quality,
    Strategy,
)

__all__ = [
    "COUNTS",
    "POOLS",
    "QUALITIES",
    "STRATEGIES",
    "AnchorMatcher",
    "Assignment",
    "Batch",
    "Count",
    "Eligible",
    "GroundTruths",
    "Numbers",
    "PairValues",
    "PointMatcher",
    "Quality",
    "Strategy",
    "amplify",
    "centerness",
    "matched_pairwise_iou",
]
