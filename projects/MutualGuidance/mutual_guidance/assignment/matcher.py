"""
The matchers: static rule, Localize to Classify, Classify to Localize and Mutual Guidance.

Shape symbols: N images, R anchors or points an image, M_i ground truths of image i, M of the whole
batch, P pairs of a ground truth and a candidate, K classes. Boxes are XYXY in absolute pixels.
"""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .assign import Assignment, Pairs, Rule, assign
from .geometry import Anchors, Points, overlap
from .quality import amplify, box_iou
from .ragged import GroundTruths, pack
from .strategies import STRATEGIES, Strategy

# Bytes of temporaries that a cell of the ground truths x candidates matrix costs at worst, when
# every pair matters.
_BYTES_PER_CELL = 256
_CELLS_IN_CACHE = 2**17
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
        rule: Rule,
    ) -> None:
        if not sigma > 1:
            raise ValueError(f"sigma must be above 1 (Eq. 1 of the paper), got {sigma}")
        if num_positives not in _NUM_POSITIVES:
            known = ", ".join(_NUM_POSITIVES)
            raise ValueError(f"unknown num_positives {num_positives!r}; choose one of {known}")
        self.rule = rule._replace(dynamic_k=num_positives == "dynamic_k")
        self.strategy = self._strategy(strategy)
        self.sigma = float(sigma)
        self.num_classes = num_classes
        self.memory_budget = int(memory_budget)

    def with_strategy(self, strategy: str) -> "_Matcher":
        """This matcher with another strategy. Raises ValueError for an unknown one."""
        other = copy.copy(self)
        other.strategy = self._strategy(strategy)
        return other

    def _strategy(self, name: str) -> Strategy:
        """The qualities of a strategy."""
        if name not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ValueError(f"unknown strategy {name!r}; choose one of {known}")
        return STRATEGIES[name]

    @torch.no_grad()
    def match(
        self,
        geometry: Anchors | Points,
        gts: GroundTruths,
        pred_boxes: Tensor | None,
        pred_logits: Tensor | None,
    ) -> Assignment:
        """
        Label candidates whose ground truths are already one set.

        Args:
            pred_boxes, pred_logits: see :meth:`AnchorMatcher.__call__`.

        Raises:
            ValueError: see :meth:`AnchorMatcher.__call__`.
        """
        num_classes = self._check_shapes(geometry, gts, pred_boxes, pred_logits)
        finder = _PairFinder(
            geometry,
            gts,
            pred_boxes if "regressed" in self.strategy else None,
            pred_logits if "amplified" in self.strategy else None,
            self.sigma,
        )
        chunks = finder.plan(self.memory_budget, num_classes)
        return assign(chunks, self.strategy, self.rule, gts, len(geometry), num_classes)

    def _check_shapes(
        self,
        geometry: Anchors | Points,
        gts: GroundTruths,
        pred_boxes: Tensor | None,
        pred_logits: Tensor | None,
    ) -> int:
        """Refuse predictions that are missing or do not fit; return K."""
        expected = (len(gts.firsts), len(geometry))
        for quality, name, pred in (
            ("regressed", "pred_boxes", pred_boxes),
            ("amplified", "pred_logits", pred_logits),
        ):
            if pred is None and quality in self.strategy:
                raise ValueError(f"this strategy needs {name}")
            if pred is not None and tuple(pred.shape[:2]) != expected:
                raise ValueError(
                    f"{name} must begin with (N, R) = {expected}, got {tuple(pred.shape)}"
                )
        num_classes = self.num_classes if pred_logits is None else pred_logits.shape[2]
        if num_classes is None:
            raise ValueError("num_classes must be given where pred_logits is not")
        return num_classes


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

    Qualities are computed in float32 whatever the inputs are. Equal qualities rank by the index
    of the anchor. A call waits on the device once, to learn how many pairs overlap and whether the
    ground truths are valid.
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
            strategy: a row of the table above.
            sigma: degree of amplification, above 1; the paper uses 2.
            iou_thresholds: ignored from the first on, positive from the second on, in (0, 1].
            num_classes: K; only needed where ``pred_logits`` is None.
            memory_budget: bytes of working memory beyond inputs, outputs and 40 bytes an anchor
                of the batch; the ground truths are taken in as many chunks as that needs.
            num_positives: "static", as above and in the paper, or "dynamic_k".

        Raises:
            ValueError: unknown strategy or ``num_positives``, sigma not above 1, thresholds out of
                order or range.
        """
        low, high = iou_thresholds
        rule = Rule(True, "prior", low, high, least_positives=1)
        super().__init__(strategy, sigma, num_classes, memory_budget, num_positives, rule)
        if not 0 < low <= high <= 1:
            raise ValueError(f"iou_thresholds must ascend within (0, 1], got {iou_thresholds}")

    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
    ) -> Assignment:
        """
        Args:
            anchors: (R, 4).
            gt_boxes: N tensors (M_i, 4), of positive width and height.
            gt_classes: N tensors (M_i,), int64, in [0, K).
            pred_boxes: (N, R, 4) decoded boxes; None is fine where no task ranks by them.
            pred_logits: (N, R, K) classification logits; None is fine where no task ranks by them.

        Returns:
            Labels of both tasks; see :class:`Assignment`.

        Raises:
            ValueError: shapes that do not fit, a prediction that the strategy needs and is None,
                a degenerate ground truth or a class out of range (it says which of which image).
        """
        gts = GroundTruths.cat(gt_boxes, gt_classes)
        return self.match(Anchors(anchors), gts, pred_boxes, pred_logits)


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
            ValueError: unknown strategy or ``num_positives``, sigma not above 1, radius not above
                0.
        """
        tiny = torch.finfo(torch.float32).tiny
        rule = Rule(False, "rule", tiny, tiny)
        super().__init__(strategy, sigma, num_classes, memory_budget, num_positives, rule)
        if not center_sampling_radius > 0:
            raise ValueError(
                f"center_sampling_radius must be above 0, got {center_sampling_radius}"
            )
        self.center_sampling_radius = float(center_sampling_radius)

    def _strategy(self, name: str) -> Strategy:
        strategy = super()._strategy(name)
        if self.rule.dynamic_k:
            return strategy
        return Strategy(*("rule" if quality == "prior" else quality for quality in strategy))

    def __call__(
        self,
        points: Tensor,
        strides: Tensor,
        levels: Tensor,
        gt_boxes: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
    ) -> Assignment:
        """
        Args:
            points: (R, 2) in pixels.
            strides: (R,) in pixels. levels: (R,) integers, ascending with the stride.
            gt_boxes, gt_classes, pred_boxes, pred_logits: see :meth:`AnchorMatcher.__call__`.

        Returns:
            Labels of both tasks; none is ignored.

        Raises:
            ValueError: see :meth:`AnchorMatcher.__call__`.
        """
        geometry = Points(points, strides, levels, self.center_sampling_radius)
        gts = GroundTruths.cat(gt_boxes, gt_classes)
        return self.match(geometry, gts, pred_boxes, pred_logits)


class _PairFinder:
    """Finds the pairs of a batch that matter, and their qualities, in chunks of ground truths."""

    def __init__(
        self,
        geometry: Anchors | Points,
        gts: GroundTruths,
        pred_boxes: Tensor | None,
        pred_logits: Tensor | None,
        sigma: float,
    ) -> None:
        self.geometry = geometry
        self.gts = gts
        self.gt_boxes = gts.boxes.t().contiguous()  # (4, M)
        self.pred_boxes = pred_boxes
        self.pred_corners = None  # (N, 4, R)
        if pred_boxes is not None:
            self.pred_corners = pred_boxes.float().transpose(1, 2).contiguous()
        self.pred_logits = pred_logits
        self.sigma = sigma

    def plan(self, memory_budget: int, num_classes: int) -> Callable[[], Iterable[Pairs]]:
        """Something that yields all pairs, as often as it is called, within the budget."""
        step = max(1, memory_budget // (_BYTES_PER_CELL * max(len(self.geometry), 1)))
        starts = range(0, len(self.gts.images), step)
        ranges = [slice(i, min(i + step, len(self.gts.images))) for i in starts]
        masks = [self._may_match(rows) for rows in ranges[:1]]
        counts = [_count_rows(mask).sum() for mask in masks]
        counts += [_count_rows(self._may_match(rows)).sum() for rows in ranges[1:]]
        *sizes, num_faults = torch.stack([*counts, self._faults(num_classes).sum()]).tolist()
        if num_faults:
            self._raise_fault(num_classes)
        if len(ranges) <= 1:
            whole = [self._pairs(r, m, s) for r, m, s in zip(ranges, masks, sizes, strict=True)]
            return lambda: whole
        return lambda: (
            self._pairs(rows, self._may_match(rows), size)
            for rows, size in zip(ranges, sizes, strict=True)
        )

    def _may_match(self, rows: slice) -> Tensor:
        """Which candidates can have a quality above 0: (m, R) bool."""
        boxes, images = self.gt_boxes[:, rows], self.gts.images[rows]
        mask = torch.empty(len(images), len(self.geometry), dtype=torch.bool, device=boxes.device)
        # On the CPU in blocks that stay in its cache, on a GPU at once.
        step = len(images) if mask.is_cuda else max(1, _CELLS_IN_CACHE // max(mask.shape[1], 1))
        for i in range(0, len(images), step):
            block = slice(i, i + step)
            mask[block] = self.geometry.may_match(boxes[:, block])
            if self.pred_corners is not None:
                corners = self.pred_corners.index_select(0, images[block]).unbind(1)  # 4 x (m, R)
                mask[block] |= overlap(boxes[:, block, None], corners)
        return mask

    def _pairs(self, rows: slice, mask: Tensor, size: int) -> Pairs:
        in_chunk = _count_rows(mask)
        gts = torch.arange(len(mask), device=mask.device)
        gts = gts.repeat_interleave(in_chunk, output_size=size)
        candidates = _nonzero(mask, size).sub_(gts, alpha=len(self.geometry))
        gts += rows.start
        sizes = in_chunk.new_zeros(len(self.gts.images))
        sizes[rows] = in_chunk
        images = self.gts.images.index_select(0, gts)
        cells = images * len(self.geometry) + candidates
        boxes = self.gt_boxes.index_select(1, gts)
        qualities = self.geometry.qualities(boxes, candidates)
        if self.pred_boxes is not None:
            regressed = self.pred_boxes.flatten(0, 1).index_select(0, cells).float().t()
            qualities["regressed"] = box_iou(regressed, boxes)
        if self.pred_logits is not None:
            classes = self.gts.classes.index_select(0, gts)
            logits = _select(self.pred_logits, cells, classes)
            # In float64, since in float32 PyTorch's vector and scalar kernels differ in the last
            # bit: an element's quality would depend on its place in the tensor, hence the chunks.
            scores = logits.double().sigmoid().nan_to_num(nan=0.0)
            amplified = amplify(qualities["prior"].double(), scores, self.sigma)
            qualities["amplified"] = amplified.float()
        packed = {name: pack(quality, gts) for name, quality in qualities.items()}
        return Pairs(gts, sizes, candidates, cells, packed)

    def _faults(self, num_classes: int) -> Tensor:
        """Which ground truths are degenerate, not finite or of no class: (M,) bool."""
        x0, y0, x1, y1 = self.gt_boxes
        fine = (x1 > x0) & (y1 > y0) & self.gt_boxes.isfinite().all(dim=0)
        return ~(fine & (self.gts.classes >= 0) & (self.gts.classes < num_classes))

    def _raise_fault(self, num_classes: int) -> None:
        which = int(self._faults(num_classes).nonzero()[0])
        image = int(self.gts.images[which])
        raise ValueError(
            f"ground truth {which - int(self.gts.firsts[image])} of image {image} must have "
            f"positive width and height and a class in [0, {num_classes}), got box "
            f"{self.gts.boxes[which].tolist()} of class {int(self.gts.classes[which])}"
        )


def _count_rows(mask: Tensor) -> Tensor:
    """True cells of each row of a mask (m, R): (m,) int64."""
    # In int32, since PyTorch would first copy the mask as int64.
    return mask.sum(dim=1, dtype=torch.int32).long()


def _nonzero(mask: Tensor, size: int) -> Tensor:
    """The ``size`` true cells of the flat mask, without waiting to learn how many they are."""
    mask = mask.flatten()
    try:
        return torch.nonzero_static(mask, size=size).squeeze(1)
    except NotImplementedError:  # on CUDA before PyTorch 2.7
        return mask.nonzero().squeeze(1)


def _select(logits: Tensor, cells: Tensor, classes: Tensor) -> Tensor:
    """Of logits (N, R, K) those of cells (P,) in [0, N * R) and classes (P,)."""
    if logits.is_contiguous():  # as it is when it comes from a model, and faster
        return logits.view(-1).index_select(0, cells * logits.shape[2] + classes)
    return logits.flatten(0, 1)[cells, classes]
