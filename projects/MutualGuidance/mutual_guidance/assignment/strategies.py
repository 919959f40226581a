"""
The tables of the method: qualities, counts, pools, and strategies as rows of them.

A new strategy is a row of ``STRATEGIES``; one that ranks, counts or looks for candidates otherwise,
a function and its row of ``QUALITIES``, ``COUNTS`` or ``POOLS``.

Shape symbols: P pairs of a ground truth and a candidate, R candidates, M ground truths, m some of
them. Coordinates come first.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .candidates import inside, overlap
from .packed import bits_to_quality, count_in_group, mark_best, quality_as_bits, quality_bits
from .pairs import Batch, PairValues
from .quality import amplify

_ONE = 2**32  # the unit of sums as integers, which are the same in any order
_DYNAMIC_TOP = 15  # dynamic k: how many of the best qualities are summed
_NEAREST = 9  # ATSS: candidates of an object on each level
_ALIGNED_TOP, _BETA = 13, 6  # TOOD: positives of an object; power of the IoU
_SIMOTA_TOP, _SIMOTA_RADIUS, _SIMOTA_IOU_WEIGHT = 10, 2.5, 3.0


class Quality(NamedTuple):
    """
    By what the candidates of a ground truth can rank.

    Attributes:
        needs: names of the predictions that it looks at, "pred_boxes" and "pred_logits", a tuple.
        of: of P pairs, each for itself since they come in chunks, (P,) in [0, 1], of a strategy
            with an owner any from 0 on; 0 and NaN are never positive.
    """

    needs: tuple[str, ...]
    of: Callable[[PairValues], Tensor]


def amplified(pairs: PairValues) -> Tensor:
    """The prior, amplified by the score: Eq. (1)."""
    return amplify(pairs.prior.double(), pairs.score, pairs.sigma).float()


def inner_iou(pairs: PairValues) -> Tensor:
    """ATSS: the IoU with the anchor where its centre is inside the object, else 0."""
    candidates = pairs.batch.candidates
    within = inside(candidates.centres.index_select(1, pairs.inds), pairs.gt_boxes)
    return candidates.box_iou(pairs.gt_boxes, pairs.inds).masked_fill(~within, 0.0)


def aligned(pairs: PairValues) -> Tensor:
    """TOOD, Eq. (1): score ^ alpha * IoU ^ beta of the regressed box, with alpha = 1, beta = 6."""
    return (pairs.score * pairs.iou.double() ** _BETA).float()


def low_cost(pairs: PairValues) -> Tensor:
    """
    SimOTA, Eq. (1) of YOLOX: 1 / (1 + cost), the cost being the cross entropy of the scores of all
    classes with the object's and 3 * -log(IoU). Points within 2.5 strides of the object's centre
    come before all others: 1 more, and all of it halved, to be at most 1 as other qualities are.
    """
    entropy = pairs.batch.background_costs.index_select(0, pairs.cells) - pairs.logit
    cost = entropy - _SIMOTA_IOU_WEIGHT * (pairs.iou.double() + 1e-8).log()
    candidates, boxes, inds = pairs.batch.candidates, pairs.gt_boxes, pairs.inds
    central = candidates.near_centre(boxes, inds, _SIMOTA_RADIUS)
    return ((1 / (1 + cost.clamp(min=0)) + central) / 2).float()


QUALITIES: dict[str, Quality] = {
    "static": Quality((), lambda pairs: pairs.static),
    "prior": Quality((), lambda pairs: pairs.prior),
    "regressed": Quality(("pred_boxes",), lambda pairs: pairs.iou),
    "amplified": Quality(("pred_logits",), amplified),
    "anchor_iou": Quality(
        (), lambda pairs: pairs.batch.candidates.box_iou(pairs.gt_boxes, pairs.inds)
    ),
    "inner_iou": Quality((), inner_iou),
    "aligned": Quality(("pred_boxes", "pred_logits"), aligned),
    "low_cost": Quality(("pred_boxes", "pred_logits"), low_cost),
}


def overlapping(batch: Batch, gt_boxes: Tensor, images: Tensor) -> Tensor:
    """Those with some quality above 0: the prior, or the IoU of the regressed box."""
    mask = batch.candidates.may_match(gt_boxes)
    if batch.pred_boxes is not None:
        corners = batch.pred_corners.index_select(0, images).unbind(1)  # 4 x (m, R)
        mask |= overlap(gt_boxes[..., None], corners)
    return mask


def nearest(batch: Batch, gt_boxes: Tensor, images: Tensor) -> Tensor:
    """ATSS: the nine of each level whose centres are nearest; of equal ones the lower index."""
    candidates = batch.candidates
    offsets = candidates.centres[:, None] - ((gt_boxes[:2] + gt_boxes[2:]) / 2)[..., None]
    distances = offsets.square().sum(dim=0)  # (m, R)
    inds = torch.arange(distances.shape[1], device=distances.device)
    mask = torch.zeros_like(distances, dtype=torch.bool)
    first = 0
    for size in candidates.level_sizes:
        # The index in the lower bits settles ties.
        level = slice(first, first + size)
        order = (quality_as_bits(distances[:, level]) << 32) + inds[level]
        chosen = order.topk(min(_NEAREST, size), dim=1, largest=False).indices
        mask.scatter_(1, chosen + first, True)
        first += size
    return mask


def centred(batch: Batch, gt_boxes: Tensor, images: Tensor) -> Tensor:
    """Those whose centre is inside the object."""
    return inside(batch.candidates.centres[:, None], gt_boxes[..., None])


# Which candidates can matter to ground truths (4, m) of images (m,): (m, R) bool.
POOLS: dict[str, Callable[[Batch, Tensor, Tensor], Tensor]] = {
    "overlapping": overlapping,
    "nearest": nearest,
    "centred": centred,
}


class Eligible(NamedTuple):
    """The pairs of some ground truths that compete for the labels of the candidates."""

    gts: Tensor  # (P,) in [0, num_gts), ascending
    ranks: Tensor  # (P,) place of the pair among those of its ground truth
    # Quality -> (P,) int64, its bits; 0 where another ground truth already owns the candidate.
    bits: dict[str, Tensor]
    thresholds: tuple[float, float]  # of the static rule: ignored, positive
    least_guided: int  # positives of a ground truth for a task that the strategy guides
    num_gts: int  # M

    def numbers_above(self, quality: str, thresholds: tuple[float, float]) -> Tensor:
        """How many candidates of each ground truth have at least these qualities: (2, M)."""
        above = torch.stack([self.bits[quality] >= quality_bits(t) for t in thresholds])
        return count_in_group(above, self.gts, self.num_gts)

    def sums(self, values: Tensor) -> Tensor:
        """Sums (M,) int64, in units of 2 ** -32, of values (P,) float64 of each ground truth."""
        sums = torch.zeros(self.num_gts, dtype=torch.int64, device=values.device)
        return sums.scatter_add_(0, self.gts, (values * _ONE).long())


class Numbers(NamedTuple):
    """How many candidates of each ground truth are what for a task, (M,) int64 each."""

    cls: Tensor  # positives of classification
    ignored: Tensor  # by classification, the next best
    loc: Tensor  # positives of localisation


class Count(NamedTuple):
    """How many candidates of a ground truth each task takes."""

    of: Callable[[Eligible, "Strategy"], Numbers]
    counted: tuple[str, ...] = ("static",)  # the qualities that it looks at beside the tasks'
    # What ranks a task that the strategy does not guide. A sum of qualities needs the prior, since
    # the points' static quality has no unit.
    unguided: str = "static"


def static_numbers(pairs: Eligible, strategy: "Strategy") -> Numbers:
    """N_p and N_i of the static rule; a guided task of anchors has at least one positive."""
    num_considered, num_positive = pairs.numbers_above("static", pairs.thresholds)
    num_ignored = num_considered - num_positive
    num_guided = num_positive.clamp(min=pairs.least_guided)
    num_cls, num_loc = (num_positive if q == "static" else num_guided for q in strategy[:2])
    return Numbers(num_cls, num_ignored, num_loc)


def dynamic_k(pairs: Eligible, strategy: "Strategy") -> Numbers:
    """The sum of the 15 highest qualities, rounded down, at least 1; N_i of the static rule."""
    num_cls, num_loc = (_sum_of_best(pairs, quality, _DYNAMIC_TOP) for quality in strategy[:2])
    return Numbers(num_cls, static_numbers(pairs, strategy).ignored, num_loc)


def _sum_of_best(pairs: Eligible, quality: str, top: int) -> Tensor:
    """The sum (M,) of the ``top`` highest qualities, rounded down, at least 1."""
    bits = pairs.bits[quality]
    best = mark_best(bits, pairs.gts, pairs.ranks < top)
    values = bits_to_quality(bits).double().masked_fill_(~best, 0.0)
    # The slack is what float32 may lack to a whole number.
    return ((pairs.sums(values) + (_ONE >> 16)) // _ONE).clamp(min=1)


def adaptive(pairs: Eligible, strategy: "Strategy") -> Numbers:
    """ATSS: as many as have an IoU of the mean and the standard deviation of all candidates'."""
    ious = bits_to_quality(pairs.bits["anchor_iou"]).double()
    number = count_in_group(torch.ones_like(pairs.gts, dtype=torch.bool), pairs.gts, pairs.num_gts)
    # In float32 the mean of equal IoUs may be above them.
    means = pairs.sums(ious).double() / _ONE / number.clamp(min=1)
    squares = pairs.sums((ious - means[pairs.gts]).square()).double() / _ONE
    thresholds = means + (squares / (number - 1).clamp(min=1)).sqrt()
    rank_values = bits_to_quality(pairs.bits[strategy.classification]).double()
    enough = rank_values >= thresholds[pairs.gts]
    return _same_for_both(count_in_group(enough, pairs.gts, pairs.num_gts))


def thirteen(pairs: Eligible, strategy: "Strategy") -> Numbers:
    """TOOD: the same number for every object."""
    return _same_for_both(pairs.gts.new_full((pairs.num_gts,), _ALIGNED_TOP))


def simota(pairs: Eligible, strategy: "Strategy") -> Numbers:
    """SimOTA: the sum of the ten highest IoUs of regressed boxes, rounded down, at least 1."""
    return _same_for_both(_sum_of_best(pairs, "regressed", _SIMOTA_TOP))


def _same_for_both(number: Tensor) -> Numbers:
    return Numbers(number, torch.zeros_like(number), number)


COUNTS: dict[str, Count] = {
    "static": Count(static_numbers),
    "dynamic_k": Count(dynamic_k, unguided="prior"),
    "adaptive": Count(adaptive, counted=("anchor_iou",)),
    "thirteen": Count(thirteen, counted=()),
    "simota": Count(simota, counted=("regressed",)),
}


class Strategy(NamedTuple):
    """
    How the candidates of a ground truth are labelled: names of rows of the tables.

    In the paper's strategies every candidate first gets its owner, by each quality, and the best of
    what a ground truth owns are positive. Where there is an ``owner``, the best of the pool are
    taken first, and a candidate that several ground truths took stays with that of the highest such
    quality; nothing takes its place.

    Attributes:
        classification, localisation: the quality that ranks for the task.
        count: how many are positive and ignored. pool: which candidates can be.
        owner: the quality that decides between ground truths.
        target: what the score of a positive shall be, where it is no label.
    """

    classification: str
    localisation: str
    count: str = "static"
    pool: str = "overlapping"
    owner: str | None = None
    target: str = "regressed"

    @property
    def qualities(self) -> list[str]:
        """The names of all that have to be known of a pair."""
        names = (*COUNTS[self.count].counted, self.classification, self.localisation, self.owner)
        return [name for name in dict.fromkeys(names) if name]

    @property
    def scales_target(self) -> bool:
        """
        Whether the target is a metric scaled to the IoU. The loss is then divided by the sum of
        the targets, as in TOOD's code, and not by their number, which is several times as large.
        """
        return self.target != "regressed"

    @property
    def needs(self) -> set[str]:
        """Of "pred_boxes" and "pred_logits"."""
        return {need for name in self.qualities for need in QUALITIES[name].needs}

    def counted_by(self, count: str) -> "Strategy":
        """With another row of ``COUNTS`` in the place of the static rule's."""
        if self.count != "static":
            return self
        unguided = COUNTS[count].unguided
        tasks = (unguided if name == "static" else name for name in self[:2])
        return Strategy(*tasks, count, *self[3:])


STRATEGIES: dict[str, Strategy] = {
    "static": Strategy("static", "static"),
    "localize_to_classify": Strategy("regressed", "static"),  # Sec. 3.1
    "classify_to_localize": Strategy("static", "amplified"),  # Sec. 3.2
    "mutual_guidance": Strategy("regressed", "amplified"),
    # Zhang et al., CVPR 2020. Nine candidates a level whatever the anchors of a location are (their
    # code takes nine locations); the deviation of a single candidate is 0.
    "atss": Strategy("inner_iou", "inner_iou", "adaptive", "nearest", owner="anchor_iou"),
    # TOOD, Feng et al., ICCV 2021.
    "task_aligned": Strategy(
        "aligned", "aligned", "thirteen", "centred", owner="regressed", target="aligned"
    ),
    # YOLOX, Ge et al., 2021. The pool is what is inside the object (there also what is near its
    # centre, from where FCOS could not regress), and a candidate that several objects take stays
    # with one of them (there with the cheapest of all). Anchors have no stride to be near by.
    "simota": Strategy("low_cost", "low_cost", "simota", "centred", owner="low_cost"),
}


def strategy_row(name: str) -> Strategy:
    """A row of ``STRATEGIES``. Raises ValueError for an unknown one, or one of unknown names."""
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}")
    row = STRATEGIES[name]
    ranks = [row.classification, row.localisation, row.target, *filter(None, [row.owner])]
    if row.count in COUNTS:
        ranks += COUNTS[row.count].counted
    for kind, table, used in (
        ("quality", QUALITIES, ranks),
        ("count", COUNTS, [row.count]),
        ("pool", POOLS, [row.pool]),
    ):
        for unknown in [x for x in used if x not in table]:
            raise ValueError(
                f"strategy {name!r}: unknown {kind} {unknown!r}; choose one of {', '.join(table)}"
            )
    return row
