"""
The assignment itself: pairs of a ground truth and a candidate in, labels out.

Only pairs that can matter (some quality above 0) are kept, as flat lists, so that cost and memory
follow the objects of the batch and not images x the most crowded image.

Shape symbols: N images, R candidates an image, M ground truths of the batch, P pairs, K classes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .ragged import (
    GroundTruths,
    count_in_group,
    is_index,
    mark_best,
    pack,
    packed_bits,
    packed_index,
    quality_bits,
    rank_in_group,
    replace_index,
)
from .strategies import Strategy

# Above every packed quality, except of FCOS's rule, which guarantees nothing.
_CLAIM = 2**62
# Dynamic k: how many of the best qualities are summed, and the sum's unit as an integer.
_DYNAMIC_TOP = 15
_ONE = 2**32


class Assignment(NamedTuple):
    """Labels of R candidates in each of N images, for each task."""

    cls_labels: Tensor  # (N, R) int64: a class, K for background, -1 for ignored
    cls_gt_inds: Tensor  # (N, R) int64: ground truth (in its image) of a positive, else -1
    loc_mask: Tensor  # (N, R) bool: trained for localisation
    loc_gt_inds: Tensor  # (N, R) int64: its ground truth (in its image), else -1


class Pairs(NamedTuple):
    """Some ground truths with all the candidates that matter to them."""

    gts: Tensor  # (P,) int64 in [0, M), ascending
    sizes: Tensor  # (M,) int64, pairs of each ground truth
    candidates: Tensor  # (P,) int64 in [0, R)
    cells: Tensor  # (P,) int64 in [0, N * R): the candidate in its image
    qualities: dict[str, Tensor]  # name -> (P,) int64, packed with the ground truth


class Rule(NamedTuple):
    """What the static rule fixes: whom it guarantees a candidate, and the numbers N_p and N_i."""

    guarantee: bool
    counted: str  # the quality whose thresholds give the numbers
    ignore_threshold: float  # N_p + N_i: candidates at or above it
    positive_threshold: float  # N_p: candidates at or above it
    least_positives: int = 0  # of N_p for a task that ranks by another quality than ``counted``
    dynamic_k: bool = False  # N_p from the qualities of each task instead


def settle_ownership(
    chunks: Callable[[], Iterable[Pairs]],
    names: Iterable[str],
    gts: GroundTruths,
    num_candidates: int,
    guarantee: bool,
) -> dict[str, Tensor]:
    """
    Give every candidate to one ground truth of its image, by each of the qualities.

    Args:
        chunks: yields the pairs of all ground truths; one ground truth is never in two chunks.
        names: of the qualities; the lower index wins a tie.
        num_candidates: R.
        guarantee: let each ground truth claim the candidate where its quality is highest; of
            several claims to one candidate the highest wins, and its quality there becomes 1.

    Returns:
        name -> (N * R,) int64, the quality of each candidate packed with its owner; 0 for nobody.
    """
    num_cells = len(gts.firsts) * num_candidates
    best = {name: gts.images.new_zeros(num_cells) for name in names}
    claims = {name: gts.images.new_zeros(len(gts.images)) for name in best}
    for pairs in chunks():
        for name in best:
            packed = pairs.qualities[name]
            best[name].scatter_reduce_(0, pairs.cells, packed, "amax")
            if guarantee:
                claim = replace_index(packed, pairs.gts, pairs.candidates)
                claims[name].scatter_reduce_(0, pairs.gts, claim, "amax")
    if guarantee:
        for name in best:
            _settle_claims_(best[name], claims[name], gts, num_candidates)
    return best


def _settle_claims_(best: Tensor, claims: Tensor, gts: GroundTruths, num_candidates: int) -> None:
    """Make the winners of the claims (M,) the owners, with quality 1, in ``best`` (N * R,)."""
    valid = packed_bits(claims) > 0
    candidates = packed_index(claims)
    claimed = (gts.images * num_candidates + candidates).masked_fill_(~valid, 0)
    everyone = torch.arange(len(claims), device=claims.device)
    raised = replace_index(claims, candidates, everyone).add_(_CLAIM)
    best.scatter_reduce_(0, claimed, raised.masked_fill_(~valid, 0), "amax")
    # Every claim to a candidate now writes the same winner.
    winners = packed_index(best.index_select(0, claimed))
    settled = pack(torch.ones_like(winners, dtype=torch.float32), winners)
    best.scatter_reduce_(
        0, claimed, settled.masked_fill_(~valid, torch.iinfo(torch.int64).max), "amin"
    )


def owned_bits(best: Tensor, pairs: Pairs) -> Tensor:
    """The quality (P,), as bits, of each pair whose ground truth owns the candidate; else 0."""
    best = best.index_select(0, pairs.cells)
    return packed_bits(best).mul_(is_index(best, pairs.gts))


def dynamic_k(bits: Tensor, gts: Tensor, rank: Tensor, num_gts: int) -> Tensor:
    """
    Numbers of positives (M,) int64: the sum of each ground truth's 15 highest qualities, rounded
    down, at least 1.

    Args:
        bits: (P,) of final qualities. gts: (P,), ascending. rank: (P,), of
            :func:`rank_in_group`. num_gts: M.
    """
    (best,) = mark_best(bits, gts, (rank < _DYNAMIC_TOP,))
    qualities = bits.to(torch.int32).view(torch.float32).double().masked_fill_(~best, 0.0)
    # Integers sum to the same in any order. The slack is what float32 may lack to a whole number.
    sums = torch.full((num_gts,), _ONE >> 16, dtype=torch.int64, device=bits.device)
    sums.scatter_add_(0, gts, (qualities * _ONE).long())
    return (sums // _ONE).clamp(min=1)


def assign(
    chunks: Callable[[], Iterable[Pairs]],
    strategy: Strategy,
    rule: Rule,
    gts: GroundTruths,
    num_candidates: int,
    num_classes: int,
) -> Assignment:
    """
    Label the candidates of N images for both tasks.

    Args:
        chunks, num_candidates: as in :func:`settle_ownership`.
        strategy: the quality of each task. rule: the numbers of the static rule.
        num_classes: K, the label of background.
    """
    names = dict.fromkeys((rule.counted, *strategy))
    ownership = settle_ownership(chunks, names, gts, num_candidates, rule.guarantee)
    num_images, num_gts = len(gts.firsts), len(gts.images)
    cls_labels = gts.images.new_full((num_images * num_candidates,), num_classes)
    cls_gt_inds = torch.full_like(cls_labels, -1)
    loc_gt_inds = torch.full_like(cls_labels, -1)
    for pairs in chunks():
        final = {name: owned_bits(best, pairs) for name, best in ownership.items()}
        counted = final[rule.counted]
        rank = rank_in_group(pairs.gts, pairs.sizes)
        num_pos, num_any = (
            count_in_group(counted >= quality_bits(threshold), pairs.gts, num_gts)
            for threshold in (rule.positive_threshold, rule.ignore_threshold)
        )
        if rule.dynamic_k:
            num_cls, num_loc = (dynamic_k(final[n], pairs.gts, rank, num_gts) for n in strategy)
        else:
            num_guided = num_pos.clamp(min=rule.least_positives)
            num_cls, num_loc = (num_pos if n == rule.counted else num_guided for n in strategy)
        first_cls, first_any = (
            rank < number[pairs.gts] for number in (num_cls, num_cls + num_any - num_pos)
        )
        first_loc = first_cls if num_loc is num_cls else rank < num_loc[pairs.gts]
        positive, considered = mark_best(
            final[strategy.classification], pairs.gts, (first_cls, first_any)
        )
        (trained,) = mark_best(final[strategy.localisation], pairs.gts, (first_loc,))

        local = pairs.gts - gts.firsts.index_select(0, gts.images).index_select(0, pairs.gts)
        classes = gts.classes.index_select(0, pairs.gts)
        # A candidate has one owner, so at most one of its pairs writes a label.
        labels = classes.masked_fill_(~positive, -1).masked_fill_(~considered, num_classes)
        cls_labels.scatter_reduce_(0, pairs.cells, labels, "amin")
        cls_gt_inds.scatter_reduce_(0, pairs.cells, local.masked_fill(~positive, -1), "amax")
        loc_gt_inds.scatter_reduce_(0, pairs.cells, local.masked_fill_(~trained, -1), "amax")

    loc_gt_inds = loc_gt_inds.view(num_images, -1)
    return Assignment(
        cls_labels=cls_labels.view(num_images, -1),
        cls_gt_inds=cls_gt_inds.view(num_images, -1),
        loc_mask=loc_gt_inds >= 0,
        loc_gt_inds=loc_gt_inds,
    )
