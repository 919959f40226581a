"""
The assignment itself: pairs of a ground truth and a candidate in, labels out.

Shape symbols: N images, R candidates an image, M ground truths of the batch, P pairs, Q qualities,
K classes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .candidates import Anchors, Points
from .packed import (
    bits_to_quality,
    is_index,
    mark_best,
    packed_bits,
    packed_index,
    quality_bits,
    rank_in_group,
    replace_index,
    with_quality,
)
from .pairs import Batch, GroundTruths, Pairs, PairValues
from .strategies import COUNTS, QUALITIES, Eligible, Strategy

# Above every packed quality, except of the points' static one, which guarantees nothing.
_CLAIM = 2**62


class Assignment(NamedTuple):
    """
    Labels of R candidates in each of N images, for each task.

    Attributes:
        cls_labels: (N, R) int64, a class, K for background, -1 for ignored.
        cls_gt_inds: (N, R) int64, ground truth (in its image) of a positive, else -1.
        loc_mask: (N, R) bool, trained for localisation.
        loc_gt_inds: (N, R) int64, its ground truth (in its image), else -1.
    """

    cls_labels: Tensor
    cls_gt_inds: Tensor
    loc_mask: Tensor
    loc_gt_inds: Tensor


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
            labels.write_(pairs, select(pairs, owned_bits(owners, pairs), strategy, candidates))
        return labels.of_images()
    owner = truth.images.new_zeros(len(truth.firsts) * len(candidates))
    for pairs, taken in _selections(chunks, strategy, candidates):
        claims = pairs.qualities[strategy.qualities.index(strategy.owner)]
        claims = claims.masked_fill(~(taken.considered | taken.trained), 0)
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
        yield pairs, select(pairs, packed_bits(pairs.qualities), strategy, candidates)


def settle_owners(
    chunks: Callable[[], Iterable[Pairs]],
    strategy: Strategy,
    truth: GroundTruths,
    candidates: Anchors | Points,
) -> Tensor:
    """
    Give every candidate to one ground truth of its image, by each quality of the strategy; the
    lower index wins a tie. Where the candidates' kind guarantees it, each ground truth claims the
    candidate where its quality is highest; of several claims to one candidate the highest wins, and
    its quality there becomes 1.

    Returns:
        (Q, N * R) int64, each quality of each candidate packed with its owner; 0 for nobody.

    Raises:
        ValueError: a quality is above 1 where this is guaranteed (looked at on the CPU alone).
    """
    num_qualities, num_cells = len(strategy.qualities), len(truth.firsts) * len(candidates)
    owners = truth.images.new_zeros(num_qualities, num_cells)
    claims = truth.images.new_zeros(num_qualities, len(truth.images))
    for pairs in chunks():
        _take_highest_(owners, pairs.cells, pairs.qualities)
        if candidates.guarantees:
            by_candidate = replace_index(pairs.qualities, pairs.gts, pairs.inds)
            _take_highest_(claims, pairs.gts, by_candidate)
    if candidates.guarantees:
        _check_range(claims, strategy)
        _settle_claims_(owners, claims, truth, len(candidates))
    return owners


def _check_range(claims: Tensor, strategy: Strategy) -> None:
    """Raise ValueError for a quality above 1; on the CPU, where nothing waits for it."""
    if claims.device.type != "cpu":
        return
    for name, bits in zip(strategy.qualities, packed_bits(claims), strict=True):
        if (bits > quality_bits(1.0)).any():
            raise ValueError(
                f"quality {name} must range from 0 to 1, the value of an object's best anchor, got "
                f"{bits_to_quality(bits).max():g}: scale it, or give the strategy an owner"
            )


def _take_highest_(highest: Tensor, places: Tensor, values: Tensor) -> None:
    """Raise ``highest`` (Q, ...) at places (P,) to values (Q, P)."""
    highest.scatter_reduce_(1, places.expand_as(values), values, "amax")


def _settle_claims_(
    owners: Tensor, claims: Tensor, truth: GroundTruths, num_candidates: int
) -> None:
    """
    Make the winners of the claims the owners, with quality 1.

    Args:
        owners: (Q, N * R) packed with ground truths. claims: (Q, M) packed with candidates.
    """
    invalid = packed_bits(claims) == 0
    inds = packed_index(claims)
    claimed = (truth.images * num_candidates + inds).masked_fill_(invalid, 0)
    everyone = torch.arange(claims.shape[1], device=claims.device)
    raised = replace_index(claims, inds, everyone).add_(_CLAIM)
    owners.scatter_reduce_(1, claimed, raised.masked_fill_(invalid, 0), "amax")
    # Every claim to a candidate now writes the same winner.
    settled = with_quality(owners.gather(1, claimed), 1.0)
    owners.scatter_reduce_(
        1, claimed, settled.masked_fill_(invalid, torch.iinfo(torch.int64).max), "amin"
    )


def owned_bits(owners: Tensor, pairs: Pairs) -> Tensor:
    """The qualities (Q, P), as bits, of each pair whose ground truth owns the candidate; else 0."""
    owner = owners.index_select(1, pairs.cells)
    return packed_bits(owner).mul_(is_index(owner, pairs.gts))


class Selection(NamedTuple):
    """The pairs (P,) bool that become labels."""

    positive: Tensor  # of classification
    considered: Tensor  # positive or ignored by it
    trained: Tensor  # positive of localisation


def select(
    pairs: Pairs, bits: Tensor, strategy: Strategy, candidates: Anchors | Points
) -> Selection:
    """
    The best candidates of each ground truth by the quality of each task, as many as count.

    Args:
        bits: (Q, P) int64 of the strategy's qualities; see :class:`Eligible`.
    """
    bits = dict(zip(strategy.qualities, bits, strict=True))
    ranks = rank_in_group(pairs.gts, pairs.sizes)
    least = int(candidates.guarantees)
    eligible = Eligible(pairs.gts, ranks, bits, candidates.thresholds, least, len(pairs.sizes))
    numbers = COUNTS[strategy.count].of(eligible, strategy)
    counts = torch.stack((numbers.cls, numbers.cls + numbers.ignored, numbers.loc))
    wanted = ranks < counts.index_select(1, pairs.gts)  # (3, P)
    positive, considered = mark_best(bits[strategy.classification], pairs.gts, wanted[:2])
    trained = mark_best(bits[strategy.localisation], pairs.gts, wanted[2])
    return Selection(positive, considered, trained)


class Labels(NamedTuple):
    """The labels of all candidates of the batch, one image after the other."""

    truth: GroundTruths
    num_classes: int  # K
    cls_labels: Tensor  # (N * R,)
    gt_inds: Tensor  # (2, N * R), of classification and of localisation

    @classmethod
    def background(cls, num_cells: int, num_classes: int, truth: GroundTruths) -> "Labels":
        """Of N * R candidates."""
        cls_labels = truth.images.new_full((num_cells,), num_classes)
        return cls(truth, num_classes, cls_labels, cls_labels.new_full((2, num_cells), -1))

    def write_(self, pairs: Pairs, selection: Selection) -> None:
        """Label the selected pairs. A candidate has one owner: one pair at most writes a label."""
        truth = self.truth
        firsts = truth.firsts.index_select(0, truth.images)  # (M,) of each one's image
        local = pairs.gts - firsts.index_select(0, pairs.gts)
        labels = truth.classes.index_select(0, pairs.gts)
        positive, considered, trained = selection
        labels.masked_fill_(~positive, -1).masked_fill_(~considered, self.num_classes)
        self.cls_labels.scatter_reduce_(0, pairs.cells, labels, "amin")
        gt_inds = torch.where(torch.stack((positive, trained)), local, -1)
        _take_highest_(self.gt_inds, pairs.cells, gt_inds)

    def of_images(self) -> Assignment:
        """The labels, an image a row."""
        num_images = len(self.truth.firsts)
        cls_gt_inds, loc_gt_inds = self.gt_inds.view(2, num_images, -1)
        return Assignment(
            cls_labels=self.cls_labels.view(num_images, -1),
            cls_gt_inds=cls_gt_inds,
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
    values = QUALITIES[quality].of(pairs).float().nan_to_num(nan=0.0).where(positive, 0)
    best, best_iou = (
        values.new_zeros(len(truth.boxes)).scatter_reduce_(0, gts, x, "amax").index_select(0, gts)
        for x in (values, pairs.iou.where(positive, 0))
    )
    return torch.where(best > 0, values / best * best_iou, 0.0).view_as(assignment.cls_gt_inds)
