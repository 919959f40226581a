"""
The matchers: static rule, Localize to Classify, Classify to Localize and Mutual Guidance.

Shape symbols: N images, R anchors or points an image, M_i ground truths of image i, M of the whole
batch, P pairs of a ground truth and a candidate, K classes. Boxes are XYXY in absolute pixels.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .assign import Assignment, assign, score_targets
from .candidates import Anchors, Points
from .pairs import Batch, GroundTruths, PairFinder
from .strategies import POOLS, QUALITIES, Strategy, strategy_row

_NUM_POSITIVES = ("static", "dynamic_k")


class _Matcher:
    """What the matchers of anchors and of points share."""

    def __init__(
        self,
        strategy: str,
        sigma: float,
        num_classes: int | None,
        memory_budget: int,
        num_positives: str,
    ) -> None:
        if not 1 < sigma < math.inf:
            raise ValueError(f"sigma must be above 1 and finite (Eq. 1 of the paper), got {sigma}")
        if num_positives not in _NUM_POSITIVES:
            known = ", ".join(_NUM_POSITIVES)
            raise ValueError(f"unknown num_positives {num_positives!r}; choose one of {known}")
        self.num_positives = num_positives
        self.strategy = self._strategy(strategy)
        if num_positives not in ("static", self.strategy.count):
            raise ValueError(
                f"strategy {strategy!r} counts its positives itself: num_positives must be static, "
                f"got {num_positives!r}"
            )
        self.sigma = float(sigma)
        self.num_classes = num_classes
        self.memory_budget = int(memory_budget)

    def with_strategy(self, strategy: str) -> "_Matcher":
        """This matcher with another strategy. Raises ValueError for an unknown one."""
        other = copy.copy(self)
        other.strategy = self._strategy(strategy)
        return other

    def _strategy(self, name: str) -> Strategy:
        return strategy_row(name).counted_by(self.num_positives)

    @torch.no_grad()
    def match(
        self,
        candidates: Anchors | Points,
        truth: GroundTruths,
        pred_boxes: Tensor | None,
        pred_logits: Tensor | None,
    ) -> Assignment:
        """
        Label candidates, made by ``candidates``, of ground truths that are one set already.

        Args:
            pred_boxes, pred_logits: see :meth:`AnchorMatcher.__call__`.

        Raises:
            ValueError: see :meth:`AnchorMatcher.__call__`.
        """
        num_classes = self._check(candidates, truth, pred_boxes, pred_logits)
        needs = self.strategy.needs
        batch = Batch(
            candidates,
            truth,
            pred_boxes if "pred_boxes" in needs else None,
            pred_logits if "pred_logits" in needs else None,
            self.sigma,
        )
        qualities = [QUALITIES[name].of for name in self.strategy.qualities]
        finder = PairFinder(batch, POOLS[self.strategy.pool], qualities)
        chunks = finder.plan(self.memory_budget, num_classes)
        return assign(chunks, self.strategy, truth, candidates, num_classes)

    @torch.no_grad()
    def score_targets(
        self,
        candidates: Anchors | Points,
        truth: GroundTruths,
        pred_boxes: Tensor,
        pred_logits: Tensor,
        assignment: Assignment,
    ) -> Tensor:
        """What the score of each positive (N, R) of an assignment shall be, in [0, 1]; else 0."""
        batch = Batch(candidates, truth, pred_boxes, pred_logits, self.sigma)
        return score_targets(batch, self.strategy.target, assignment)

    def _check(
        self,
        candidates: Anchors | Points,
        truth: GroundTruths,
        pred_boxes: Tensor | None,
        pred_logits: Tensor | None,
    ) -> int:
        """Refuse predictions that are missing or do not fit; return K."""
        expected = (len(truth.firsts), len(candidates))
        for name, pred, last in (("pred_boxes", pred_boxes, 4), ("pred_logits", pred_logits, "K")):
            if pred is None:
                if name in self.strategy.needs:
                    raise ValueError(f"this strategy needs {name}")
            elif tuple(pred.shape[:2]) != expected:
                raise ValueError(
                    f"{name} must begin with (N, R) = {expected}, got {tuple(pred.shape)}"
                )
            elif pred.dim() != 3 or last not in ("K", pred.shape[2]):
                raise ValueError(f"{name} must be (N, R, {last}), got {tuple(pred.shape)}")
            elif pred.device != truth.boxes.device:
                raise ValueError(
                    f"{name} is on {pred.device}, the ground truths are on {truth.boxes.device}: "
                    "move them to one device"
                )
        known = {self.num_classes, None if pred_logits is None else pred_logits.shape[2]} - {None}
        if not known:
            raise ValueError("num_classes must be given where pred_logits is not")
        if len(known) > 1:
            raise ValueError(
                f"pred_logits must be (N, R, {self.num_classes}), as num_classes says, without "
                f"background, got {tuple(pred_logits.shape)}"
            )
        return known.pop()


class AnchorMatcher(_Matcher):
    """
    Label anchors for classification and for localisation (Sec. 3 of the paper).

    For every quality Q of a ground truth and an anchor, by which a task ranks its candidates:

    1. *Guarantee.* Each ground truth claims the anchor where Q is highest, if that is above 0. Of
       several claims to one anchor the highest wins (the lower index on a tie); the anchor is then
       the winner's alone, with quality 1.
    2. *Ownership.* Every other anchor counts only for the ground truth where its Q is highest.
    3. *Numbers.* By the IoU with the anchor, N_p anchors of a ground truth are at or above the
       higher threshold and N_i more at or above the lower one. For a task that ranks by another
       quality N_p is at least 1, also where step 1 gave the only such anchor to another object.
    4. *Classification.* The N_p best by its quality are positive, the next N_i are ignored and all
       others background.
    5. *Localisation.* The N_p best by its quality are positive.
    6. Quality 0 never makes a positive or an ignored anchor.

    ======================== ======================== ==========================
    strategy                 classification ranks by  localisation ranks by
    ======================== ======================== ==========================
    ``static``               IoU with the anchor      IoU with the anchor
    ``localize_to_classify`` IoU of the regressed box IoU with the anchor
    ``classify_to_localize`` IoU with the anchor      amplified IoU (Eq. 1)
    ``mutual_guidance``      IoU of the regressed box amplified IoU (Eq. 1)
    ======================== ======================== ==========================

    With ``num_positives="dynamic_k"`` (not of the paper; its authors' later work), N_p of each task
    is instead the sum of the ground truth's 15 highest Q of that task, rounded down, at least 1.
    N_i stays as it is.

    ``atss``, ``task_aligned`` and ``simota`` are rules of other papers (see ``STRATEGIES``): each
    ground truth takes its best of a pool first, and the owner of an anchor that several took is
    settled then. They ignore nothing, and both tasks have the same labels.

    Qualities are rounded to float32 whatever the inputs are. Equal qualities rank by the index of
    the anchor. A call waits on the device once, to learn how many pairs overlap and whether the
    ground truths are valid (on CUDA before PyTorch 2.7 more often).
    """

    def __init__(
        self,
        strategy: str = "mutual_guidance",
        sigma: float = 2.0,
        iou_thresholds: tuple[float, float] = (0.4, 0.5),
        num_classes: int | None = None,
        memory_budget: int = 2**30,
        num_positives: str = "static",
    ) -> None:
        """
        Args:
            strategy: a row of ``STRATEGIES``.
            sigma: degree of amplification, above 1; the paper uses 2.
            iou_thresholds: ignored from the first on, positive from the second on, in (0, 1].
            num_classes: K, without background; only needed where ``pred_logits`` is None.
            memory_budget: bytes of working memory beyond inputs, outputs and 40 bytes an anchor
                of the batch; the ground truths are taken in as many chunks as that needs.
                ``simota`` takes the logits of one image in float32 beside it.
            num_positives: "static", as above and in the paper, or "dynamic_k".

        Raises:
            ValueError: unknown strategy or ``num_positives``, ``dynamic_k`` with a strategy that
                counts its positives itself, sigma not above 1 or infinite, thresholds out of
                number, order or range.
        """
        super().__init__(strategy, sigma, num_classes, memory_budget, num_positives)
        if len(iou_thresholds) != 2:
            raise ValueError(f"iou_thresholds must be two numbers, got {iou_thresholds}")
        low, high = iou_thresholds
        if not 0 < low <= high <= 1:
            raise ValueError(f"iou_thresholds must ascend within (0, 1], got {iou_thresholds}")
        self.iou_thresholds = (low, high)

    def candidates(self, anchors: Tensor, level_sizes: Sequence[int] = ()) -> Anchors:
        """The anchors (R, 4) as :meth:`match` takes them; see :class:`Anchors`."""
        return Anchors(anchors, self.iou_thresholds, level_sizes)

    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        level_sizes: Sequence[int] = (),
    ) -> Assignment:
        """
        Args:
            anchors: (R, 4), XYXY in pixels, the same for all images.
            gt_boxes: N tensors (M_i, 4), XYXY in pixels, of positive width and height, on the
                device of all others; (0, 4) for an image without objects.
            gt_classes: N tensors (M_i,), int64, in [0, K).
            pred_boxes: (N, R, 4), decoded, XYXY in pixels; None is fine where no task ranks by
                them.
            pred_logits: (N, R, K), before the sigmoid and without background; of a softmax head
                ``probabilities[..., :K].logit(eps=1e-6)``, background being the last class. None is
                fine where no task ranks by them.
            level_sizes: anchors of each level, R in sum, for ``atss``; none: all are of one level.

        Returns:
            Labels of both tasks; see :class:`Assignment`.

        Raises:
            ValueError: shapes that do not fit, a prediction that the strategy needs and is None,
                a degenerate ground truth or a class out of range (it says which of which image).
        """
        truth = GroundTruths.cat(gt_boxes, gt_classes)
        candidates = self.candidates(anchors, level_sizes)
        return self.match(candidates, truth, pred_boxes, pred_logits)


class PointMatcher(_Matcher):
    """
    Label the points of FCOS for classification and for localisation (supplementary, Sec. 2).

    N_p of a ground truth is the number of points that Detectron2's FCOS rule gives it: inside the
    box, within ``center_sampling_radius`` strides of its centre in x and y, the largest of
    l, t, r, b within (4, 8) strides (open-ended at the first and last level), a point claimed by
    several going to the smallest box. ``static`` is that rule itself, its rounding included: areas
    that differ by less than about 8 square pixels tie, and the lower index has the point.

    A task that a strategy does not guide has the labels of ``static``. A guided one takes the N_p
    best points by its quality of the table in :class:`AnchorMatcher`, with the centerness of the
    points inside the box and within that range of scales in the place of the IoU with the anchor.
    Ownership is as there; no point is guaranteed and none is ignored. With
    ``num_positives="dynamic_k"`` N_p is as there, and a task that is not guided ranks by the
    centerness.
    """

    def __init__(
        self,
        strategy: str = "mutual_guidance",
        sigma: float = 2.0,
        center_sampling_radius: float = 1.5,
        num_classes: int | None = None,
        memory_budget: int = 2**30,
        num_positives: str = "static",
    ) -> None:
        """
        Args:
            center_sampling_radius: in strides, above 0.
            strategy, sigma, num_classes, memory_budget, num_positives: see
                :class:`AnchorMatcher`.

        Raises:
            ValueError: unknown strategy or ``num_positives``, ``dynamic_k`` with a strategy that
                counts its positives itself, sigma not above 1 or infinite, radius not above 0.
        """
        super().__init__(strategy, sigma, num_classes, memory_budget, num_positives)
        if not center_sampling_radius > 0:
            raise ValueError(
                f"center_sampling_radius must be above 0, got {center_sampling_radius}"
            )
        self.center_sampling_radius = float(center_sampling_radius)

    def candidates(
        self, points: Tensor, strides: Tensor, levels: Tensor, level_sizes: Sequence[int] = ()
    ) -> Points:
        """The points (R, 2) as :meth:`match` takes them; see :class:`Points`."""
        return Points(points, strides, levels, self.center_sampling_radius, level_sizes)

    def __call__(
        self,
        points: Tensor,
        strides: Tensor,
        levels: Tensor,
        gt_boxes: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        level_sizes: Sequence[int] = (),
    ) -> Assignment:
        """
        Args:
            points: (R, 2) in pixels, level after level, the finest first.
            strides: (R,) in pixels. levels: (R,) integers, ascending with the stride.
            level_sizes: points of each level, for ``atss``, which else waits for the device to
                count them.
            gt_boxes, gt_classes, pred_boxes, pred_logits: see :meth:`AnchorMatcher.__call__`.

        Returns:
            Labels of both tasks; none is ignored.

        Raises:
            ValueError: see :meth:`AnchorMatcher.__call__`.
        """
        truth = GroundTruths.cat(gt_boxes, gt_classes)
        candidates = self.candidates(points, strides, levels, level_sizes)
        return self.match(candidates, truth, pred_boxes, pred_logits)
