"""
The tables of the method: qualities, counts, and strategies as rows of them.

A new strategy is a row of ``STRATEGIES``; one that ranks or counts otherwise, a function and its
row of ``QUALITIES`` or ``COUNTS``.

Shape symbols: P pairs of a ground truth and a candidate, M ground truths.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .packed import bits_to_quality, count_in_group, mark_best, quality_bits
from .pairs import PairValues
from .quality import amplify

# Dynamic k: how many of the best qualities are summed, and the sum's unit as an integer.
_DYNAMIC_TOP = 15
_ONE = 2**32


class Quality(NamedTuple):
    """By what the candidates of a ground truth can rank."""

    needs: tuple[str, ...]  # of "pred_boxes" and "pred_logits"
    of: Callable[[PairValues], Tensor]  # (P,) float32, 0 or more; 0 is never positive


def amplified(pairs: PairValues) -> Tensor:
    """The prior, amplified by the score: Eq. (1)."""
    return amplify(pairs.prior.double(), pairs.score, pairs.sigma).float()


QUALITIES: dict[str, Quality] = {
    "static": Quality((), lambda pairs: pairs.static),
    "prior": Quality((), lambda pairs: pairs.prior),
    "regressed": Quality(("pred_boxes",), lambda pairs: pairs.iou),
    "amplified": Quality(("pred_logits",), amplified),
}


class Owned(NamedTuple):
    """The pairs of some ground truths, after every candidate has got its owner."""

    gts: Tensor  # (P,) in [0, num_gts), ascending
    ranks: Tensor  # (P,) place of the pair among those of its ground truth
    bits: dict[str, Tensor]  # quality -> (P,) int64, its bits; 0 where another one is the owner
    thresholds: tuple[float, float]  # of the static rule: ignored, positive
    least_guided: int  # positives of a ground truth for a task that the strategy guides
    num_gts: int  # M

    def numbers_above(self, quality: str, threshold: float) -> Tensor:
        """How many candidates of each ground truth have at least that quality: (M,)."""
        return count_in_group(self.bits[quality] >= quality_bits(threshold), self.gts, self.num_gts)


class Numbers(NamedTuple):
    """How many candidates of each ground truth are what for a task, (M,) int64 each."""

    cls: Tensor  # positives of classification
    ignored: Tensor  # by classification, the next best
    loc: Tensor  # positives of localisation


class Count(NamedTuple):
    """How many candidates of a ground truth each task takes."""

    of: Callable[[Owned, "Strategy"], Numbers]
    counted: tuple[str, ...] = ("static",)  # the qualities that it looks at beside the tasks'
    # What ranks a task that the strategy does not guide. A sum of qualities needs the prior, since
    # the points' static quality has no unit.
    unguided: str = "static"


def static_numbers(owned: Owned, strategy: "Strategy") -> Numbers:
    """N_p and N_i of the static rule; a guided task of anchors has at least one positive."""
    ignored, positive = owned.thresholds
    num_positive = owned.numbers_above("static", positive)
    num_ignored = owned.numbers_above("static", ignored) - num_positive
    num_guided = num_positive.clamp(min=owned.least_guided)
    num_cls, num_loc = (num_positive if q == "static" else num_guided for q in strategy[:2])
    return Numbers(num_cls, num_ignored, num_loc)


def dynamic_k(owned: Owned, strategy: "Strategy") -> Numbers:
    """The sum of the 15 highest qualities, rounded down, at least 1; N_i of the static rule."""
    num_cls, num_loc = (_sum_of_best(owned, quality) for quality in strategy[:2])
    return Numbers(num_cls, static_numbers(owned, strategy).ignored, num_loc)


def _sum_of_best(owned: Owned, quality: str) -> Tensor:
    bits = owned.bits[quality]
    (best,) = mark_best(bits, owned.gts, (owned.ranks < _DYNAMIC_TOP,))
    values = bits_to_quality(bits).double().masked_fill_(~best, 0.0)
    # Integers sum to the same in any order. The slack is what float32 may lack to a whole number.
    sums = torch.full((owned.num_gts,), _ONE >> 16, dtype=torch.int64, device=bits.device)
    sums.scatter_add_(0, owned.gts, (values * _ONE).long())
    return (sums // _ONE).clamp(min=1)


COUNTS: dict[str, Count] = {
    "static": Count(static_numbers),
    "dynamic_k": Count(dynamic_k, unguided="prior"),
}


class Strategy(NamedTuple):
    """By which quality the candidates of a ground truth rank for each task, and how many count."""

    classification: str
    localisation: str
    count: str = "static"

    @property
    def qualities(self) -> list[str]:
        """The names of all that have to be known of a pair."""
        return list(dict.fromkeys((*COUNTS[self.count].counted, *self[:2])))

    @property
    def needs(self) -> set[str]:
        """Of "pred_boxes" and "pred_logits"."""
        return {need for name in self.qualities for need in QUALITIES[name].needs}

    def counted_by(self, count: str) -> "Strategy":
        """With another row of ``COUNTS``."""
        unguided = COUNTS[count].unguided
        tasks = (unguided if name == "static" else name for name in self[:2])
        return Strategy(*tasks, count)


STRATEGIES: dict[str, Strategy] = {
    "static": Strategy("static", "static"),
    "localize_to_classify": Strategy("regressed", "static"),  # Sec. 3.1
    "classify_to_localize": Strategy("static", "amplified"),  # Sec. 3.2
    "mutual_guidance": Strategy("regressed", "amplified"),
}
