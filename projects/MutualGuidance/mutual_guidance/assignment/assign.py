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
    pack,
    rank_in_group,
    scatter_max_,
    unpack_index,
    unpack_quality,
)
from .strategies import Strategy


class Assignment(NamedTuple):
    """Labels of R candidates in each of N images, for each task."""

    cls_labels: Tensor  # (N, R) int64: a class, K for background, -1 for ignored
    cls_gt_inds: Tensor  # (N, R) int64: ground truth (in its image) of a positive, else -1
    loc_mask: Tensor  # (N, R) bool: trained for localisation
    loc_gt_inds: Tensor  # (N, R) int64: its ground truth (in its image), else -1


class Pairs(NamedTuple):
    """Some ground truths with all the candidates that matter to them."""

    gts: Tensor  # (P,) int64 in [0, M), ascending
    candidates: Tensor  # (P,) int64 in [0, R)
    cells: Tensor  # (P,) int64 in [0, N * R): the candidate in its image
    qualities: dict[str, Tensor]  # name -> (P,) float32, >= 0


class Rule(NamedTuple):
    """What the static rule fixes: whom it guarantees a candidate, and the numbers N_p and N_i."""

    guarantee: bool
    counted: str  # the quality whose thresholds give the numbers
    ignore_threshold: float  # N_p + N_i: candidates at or above it
    positive_threshold: float  # N_p: candidates at or above it


class Ownership(NamedTuple):
    """To which ground truth each candidate counts, by one quality."""

    owners: Tensor  # (N * R,) int64 in [0, M), -1 for nobody
    guaranteed: Tensor  # (N * R,) bool: it is its owner's best and no other's

    def final_quality(self, pairs: Pairs, quality: Tensor) -> Tensor:
        """The quality of each pair after guarantee and ownership (P,)."""
        owned = self.owners[pairs.cells] == pairs.gts
        raised = torch.where(self.guaranteed[pairs.cells], 1.0, quality)
        return torch.where(owned, raised, 0.0)


def settle_ownership(
    chunks: Callable[[], Iterable[Pairs]],
    quality: str,
    gts: GroundTruths,
    num_candidates: int,
    guarantee: bool,
) -> Ownership:
    """
    Give every candidate to one ground truth of its image.

    Args:
        chunks: yields the pairs of all ground truths; one ground truth is never in two chunks.
        quality: name of the quality that decides; the lower index wins a tie.
        num_candidates: R.
        guarantee: let each ground truth claim the candidate where its quality is highest; of
            several claims to one candidate the highest wins.
    """
    num_cells = len(gts.firsts) * num_candidates
    best_gts = gts.images.new_zeros(num_cells)
    claims = gts.images.new_zeros(len(gts.images))
    for pairs in chunks():
        values = pairs.qualities[quality]
        scatter_max_(best_gts, pairs.cells, pack(values, pairs.gts))
        if guarantee:
            scatter_max_(claims, pairs.gts, pack(values, pairs.candidates))

    won = torch.zeros_like(best_gts)
    claimed = (gts.images * num_candidates + unpack_index(claims)).clamp(min=0)
    everyone = torch.arange(len(claims), device=claims.device)
    scatter_max_(won, claimed, pack(unpack_quality(claims), everyone))
    guaranteed = won > 0
    return Ownership(unpack_index(torch.where(guaranteed, won, best_gts)), guaranteed)


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
    num_gts = len(gts.images)
    names = {rule.counted, *strategy}
    ownerships = {
        name: settle_ownership(chunks, name, gts, num_candidates, rule.guarantee)
        for name in sorted(names)
    }
    num_cells = len(gts.firsts) * num_candidates
    cls_codes = torch.zeros(num_cells, dtype=torch.int64, device=gts.images.device)
    loc_codes = torch.zeros_like(cls_codes)
    for pairs in chunks():
        final = {
            name: ownerships[name].final_quality(pairs, pairs.qualities[name]) for name in names
        }
        ranks = {
            name: rank_in_group(final[name], pairs.gts, num_gts) for name in sorted(set(strategy))
        }

        def among_best(name: str, counts: Tensor, pairs=pairs, final=final, ranks=ranks) -> Tensor:
            return (ranks[name] < counts[pairs.gts]) & (final[name] > 0)

        counted = final[rule.counted]
        num_pos = count_in_group(counted >= rule.positive_threshold, pairs.gts, num_gts)
        num_any = count_in_group(counted >= rule.ignore_threshold, pairs.gts, num_gts)
        # A candidate has one owner, so at most one of its pairs has a code other than 0.
        cls_code = among_best(strategy.classification, num_pos).long()
        cls_code += among_best(strategy.classification, num_any)
        loc_code = among_best(strategy.localisation, num_pos).long()
        scatter_max_(cls_codes, pairs.cells, cls_code)
        scatter_max_(loc_codes, pairs.cells, loc_code)

    return _to_labels(
        cls_codes.view(len(gts.firsts), -1),
        loc_codes.view(len(gts.firsts), -1).bool(),
        ownerships[strategy.classification].owners.view(len(gts.firsts), -1),
        ownerships[strategy.localisation].owners.view(len(gts.firsts), -1),
        gts,
        num_classes,
    )


def _to_labels(
    cls_codes: Tensor,
    loc_mask: Tensor,
    cls_owners: Tensor,
    loc_owners: Tensor,
    gts: GroundTruths,
    num_classes: int,
) -> Assignment:
    """Labels from codes (2 positive, 1 ignored, 0 background) and owners, all (N, R)."""
    positive = cls_codes == 2
    if len(gts.classes) == 0:
        labels = torch.full_like(cls_owners, num_classes)
    else:
        labels = torch.where(positive, gts.classes[cls_owners.clamp(min=0)], num_classes)
    firsts = gts.firsts[:, None]
    return Assignment(
        cls_labels=torch.where(cls_codes == 1, -1, labels),
        cls_gt_inds=torch.where(positive, cls_owners - firsts, -1),
        loc_mask=loc_mask,
        loc_gt_inds=torch.where(loc_mask, loc_owners - firsts, -1),
    )
