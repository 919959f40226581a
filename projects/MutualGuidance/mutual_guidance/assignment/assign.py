"""
The assignment itself: pairs of a ground truth and a candidate in, labels out.

Shape symbols: N images, R candidates an image, M ground truths of the batch, P pairs, K classes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .candidates import Anchors, Points
from .packed import (
    is_index,
    mark_best,
    pack,
    packed_bits,
    packed_index,
    rank_in_group,
    replace_index,
)
from .pairs import Batch, GroundTruths, Pairs, PairValues
from .strategies import COUNTS, QUALITIES, Eligible, Strategy

# Above every packed quality, except of the points' static one, which guarantees nothing.
_CLAIM = 2**62


class Assignment(NamedTuple):
    """Labels of R candidates in each of N images, for each task."""

    cls_labels: Tensor  # (N, R) int64: a class, K for background, -1 for ignored
    cls_gt_inds: Tensor  # (N, R) int64: ground truth (in its image) of a positive, else -1
    loc_mask: Tensor  # (N, R) bool: trained for localisation
    loc_gt_inds: Tensor  # (N, R) int64: its ground truth (in its image), else -1


def assign(
    chunks: Callable[[], Iterable[Pairs]],
    strategy: Strategy,
    truth: GroundTruths,
    candidates: Anchors | Points,
    num_classes: int,
) -> Assignment:
    """
    Label the candidates of N images for both tasks.

    Args:
        chunks: yields the pairs of all ground truths; one ground truth is never in two chunks.
        num_classes: K, the label of background.
    """
    labels = Labels.background(len(truth.firsts) * len(candidates), num_classes, truth)
    if strategy.owner is None:
        owners = settle_owners(chunks, strategy, truth, candidates)
        for pairs in chunks():
            bits = {name: owned_bits(owner, pairs) for name, owner in owners.items()}
            labels.write_(pairs, select(pairs, bits, strategy, candidates))
        return labels.of_images()
    owner = truth.images.new_zeros(len(truth.firsts) * len(candidates))
    for pairs, taken in _selections(chunks, strategy, candidates):
        claims = pairs.qualities[strategy.owner].masked_fill(~(taken.considered | taken.trained), 0)
        owner.scatter_reduce_(0, pairs.cells, claims, "amax")
    for pairs, taken in _selections(chunks, strategy, candidates):
        owned = is_index(owner.index_select(0, pairs.cells), pairs.gts)
        labels.write_(pairs, Selection(*(mask & owned for mask in taken)))
    return labels.of_images()


def _selections(
    chunks: Callable[[], Iterable[Pairs]], strategy: Strategy, candidates: Anchors | Points
) -> Iterator[tuple[Pairs, "Selection"]]:
    """All pairs, and what their ground truths take before any candidate has an owner."""
    for pairs in chunks():
        bits = {name: packed_bits(quality) for name, quality in pairs.qualities.items()}
        yield pairs, select(pairs, bits, strategy, candidates)


def settle_owners(
    chunks: Callable[[], Iterable[Pairs]],
    strategy: Strategy,
    truth: GroundTruths,
    candidates: Anchors | Points,
) -> dict[str, Tensor]:
    """
    Give every candidate to one ground truth of its image, by each quality of the strategy; the
    lower index wins a tie. Where the candidates' kind guarantees it, each ground truth claims the
    candidate where its quality is highest; of several claims to one candidate the highest wins, and
    its quality there becomes 1.

    Returns:
        quality -> (N * R,) int64, that of each candidate packed with its owner; 0 for nobody.
    """
    num_cells = len(truth.firsts) * len(candidates)
    owners = {name: truth.images.new_zeros(num_cells) for name in strategy.qualities}
    claims = {name: truth.images.new_zeros(len(truth.images)) for name in owners}
    for pairs in chunks():
        for name, owner in owners.items():
            by_gt = pairs.qualities[name]
            owner.scatter_reduce_(0, pairs.cells, by_gt, "amax")
            if candidates.guarantees:
                by_candidate = replace_index(by_gt, pairs.gts, pairs.inds)
                claims[name].scatter_reduce_(0, pairs.gts, by_candidate, "amax")
    if candidates.guarantees:
        for name, owner in owners.items():
            _settle_claims_(owner, claims[name], truth, len(candidates))
    return owners


def _settle_claims_(
    owners: Tensor, claims: Tensor, truth: GroundTruths, num_candidates: int
) -> None:
    """
    Make the winners of the claims the owners, with quality 1.

    Args:
        owners: (N * R,) packed with ground truths. claims: (M,) packed with candidates.
    """
    valid = packed_bits(claims) > 0
    inds = packed_index(claims)
    claimed = (truth.images * num_candidates + inds).masked_fill_(~valid, 0)
    everyone = torch.arange(len(claims), device=claims.device)
    raised = replace_index(claims, inds, everyone).add_(_CLAIM)
    owners.scatter_reduce_(0, claimed, raised.masked_fill_(~valid, 0), "amax")
    # Every claim to a candidate now writes the same winner.
    winners = packed_index(owners.index_select(0, claimed))
    settled = pack(torch.ones_like(winners, dtype=torch.float32), winners)
    owners.scatter_reduce_(
        0, claimed, settled.masked_fill_(~valid, torch.iinfo(torch.int64).max), "amin"
    )


def owned_bits(owners: Tensor, pairs: Pairs) -> Tensor:
    """The quality (P,), as bits, of each pair whose ground truth owns the candidate; else 0."""
    owner = owners.index_select(0, pairs.cells)
    return packed_bits(owner).mul_(is_index(owner, pairs.gts))


class Selection(NamedTuple):
    """The pairs (P,) bool that become labels."""

    positive: Tensor  # of classification
    considered: Tensor  # positive or ignored by it
    trained: Tensor  # positive of localisation


def select(
    pairs: Pairs, bits: dict[str, Tensor], strategy: Strategy, candidates: Anchors | Points
) -> Selection:
    """
    The best candidates of each ground truth by the quality of each task, as many as count.

    Args:
        bits: quality -> (P,) int64; see :class:`Eligible`.
    """
    ranks = rank_in_group(pairs.gts, pairs.sizes)
    least = int(candidates.guarantees)
    eligible = Eligible(pairs.gts, ranks, bits, candidates.thresholds, least, len(pairs.sizes))
    numbers = COUNTS[strategy.count].of(eligible, strategy)
    num_cls, num_considered, num_loc = (
        ranks < number[pairs.gts]
        for number in (numbers.cls, numbers.cls + numbers.ignored, numbers.loc)
    )
    by_cls, by_loc = bits[strategy.classification], bits[strategy.localisation]
    positive, considered = mark_best(by_cls, pairs.gts, (num_cls, num_considered))
    (trained,) = mark_best(by_loc, pairs.gts, (num_loc,))
    return Selection(positive, considered, trained)


class Labels(NamedTuple):
    """The labels of all candidates of the batch, one image after the other."""

    truth: GroundTruths
    num_classes: int  # K
    cls_labels: Tensor  # (N * R,)
    cls_gt_inds: Tensor  # (N * R,)
    loc_gt_inds: Tensor  # (N * R,)

    @classmethod
    def background(cls, num_cells: int, num_classes: int, truth: GroundTruths) -> "Labels":
        """Of N * R candidates."""
        cls_labels = truth.images.new_full((num_cells,), num_classes)
        nobody = torch.full_like(cls_labels, -1)
        return cls(truth, num_classes, cls_labels, nobody, nobody.clone())

    def write_(self, pairs: Pairs, selection: Selection) -> None:
        """Label the selected pairs. A candidate has one owner: one pair at most writes a label."""
        truth = self.truth
        firsts = truth.firsts.index_select(0, truth.images)  # (M,) of each one's image
        local = pairs.gts - firsts.index_select(0, pairs.gts)
        labels = truth.classes.index_select(0, pairs.gts)
        labels.masked_fill_(~selection.positive, -1)
        labels.masked_fill_(~selection.considered, self.num_classes)
        cls_gts = local.masked_fill(~selection.positive, -1)
        self.cls_labels.scatter_reduce_(0, pairs.cells, labels, "amin")
        self.cls_gt_inds.scatter_reduce_(0, pairs.cells, cls_gts, "amax")
        loc_gts = local.masked_fill_(~selection.trained, -1)
        self.loc_gt_inds.scatter_reduce_(0, pairs.cells, loc_gts, "amax")

    def of_images(self) -> Assignment:
        """The labels, an image a row."""
        num_images = len(self.truth.firsts)
        loc_gt_inds = self.loc_gt_inds.view(num_images, -1)
        return Assignment(
            cls_labels=self.cls_labels.view(num_images, -1),
            cls_gt_inds=self.cls_gt_inds.view(num_images, -1),
            loc_mask=loc_gt_inds >= 0,
            loc_gt_inds=loc_gt_inds,
        )


def score_targets(batch: Batch, quality: str, assignment: Assignment) -> Tensor:
    """
    What the score of a positive of classification shall be: the quality, scaled so that the best of
    a ground truth's positives has their highest IoU of a regressed box (TOOD, Sec. 3.2). Where the
    quality is that IoU, it is the IoU.

    Returns:
        (N, R) float32 in [0, 1]; 0 for all that are not positive.
    """
    truth, gts = batch.truth, batch.truth.in_batch(assignment.cls_gt_inds).flatten()
    if len(truth.boxes) == 0:
        return torch.zeros_like(assignment.cls_gt_inds, dtype=torch.float32)
    inds = torch.arange(len(batch.candidates), device=gts.device).repeat(len(truth.firsts))
    positive, gts = gts >= 0, gts.clamp(min=0)  # the others' pairs are of no meaning
    pairs = PairValues(batch, gts, inds)
    values = QUALITIES[quality].of(pairs).where(positive, 0)
    best, best_iou = (
        values.new_zeros(len(truth.boxes)).scatter_reduce_(0, gts, x, "amax").index_select(0, gts)
        for x in (values, pairs.iou.where(positive, 0))
    )
    return torch.where(best > 0, values / best * best_iou, 0.0).view_as(assignment.cls_gt_inds)
