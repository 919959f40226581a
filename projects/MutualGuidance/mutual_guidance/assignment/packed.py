"""
Exact reductions over pairs: a quality and an index in one integer.

Shape symbols: P pairs of a ground truth and a candidate, G groups of them.
"""

import struct

import torch
from torch import Tensor

# A quality and an index share an int64: the bits of a non-negative float32 order like the float,
# so that an integer maximum finds the highest quality and, on a tie, the lowest index, in any
# order of the operands. That makes every reduction below exact and repeatable.
_INDEX_BITS = 32
_MAX_INDEX = 2**_INDEX_BITS - 1
_MAX_QUALITY_BITS = 2**31 - 1


def pack(quality: Tensor, index: Tensor) -> Tensor:
    """Quality (float32, not NaN; below 0 it is 0) and index as one int64, at least 0."""
    return (quality_as_bits(quality) << _INDEX_BITS).add_(_MAX_INDEX).sub_(index)


def quality_as_bits(quality: Tensor) -> Tensor:
    """Qualities (float32, not NaN; below 0 they are 0) as int64 that order like them."""
    return quality.contiguous().view(torch.int32).long().clamp_(min=0)


def packed_bits(packed: Tensor) -> Tensor:
    """The bits of the packed quality, int64; 0 where it is 0 or nothing was packed."""
    return packed >> _INDEX_BITS


def packed_index(packed: Tensor) -> Tensor:
    """The packed index; one out of all range where nothing was packed."""
    return _MAX_INDEX - (packed & _MAX_INDEX)


def is_index(packed: Tensor, index: Tensor) -> Tensor:
    """Whether that index was packed."""
    return (packed & _MAX_INDEX) == _MAX_INDEX - index


def with_quality(packed: Tensor, quality: float) -> Tensor:
    """The same indices packed with one quality."""
    return (packed & _MAX_INDEX).add_(quality_bits(quality) << _INDEX_BITS)


def replace_index(packed: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The same qualities packed with other indices."""
    return packed + (old - new)


def quality_bits(quality: float) -> int:
    """The bits of one quality, to compare with :func:`packed_bits`."""
    return struct.unpack("i", struct.pack("f", quality))[0]


def bits_to_quality(bits: Tensor) -> Tensor:
    """The qualities (float32) of bits, of :func:`packed_bits`."""
    return bits.to(torch.int32).view(torch.float32)


def rank_in_group(group: Tensor, sizes: Tensor) -> Tensor:
    """Place (P,) of each element in its group; group (P,) in [0, G) ascends, sizes is (G,)."""
    firsts = sizes.cumsum(0) - sizes
    return torch.arange(len(group), device=group.device) - firsts.index_select(0, group)


def mark_best(bits: Tensor, group: Tensor, wanted: Tensor) -> Tensor:
    """
    The best elements of each group.

    Args:
        bits: (P,) int64, of qualities; 0 is never among the best, a tie goes to the earlier one.
        group: (P,) int64, ascending.
        wanted: masks (..., P) of the places of each group that are wanted, the best being its
            first.

    Returns:
        For each of ``wanted`` the mask of the elements that take those places: (..., P).
    """
    # Groups stay together in this order, so that places of a group before and after coincide.
    order = (group << _INDEX_BITS).add_(_MAX_QUALITY_BITS).sub_(bits).argsort(stable=True)
    taken = torch.empty_like(wanted).scatter_(-1, order.expand_as(wanted), wanted)
    return taken.logical_and_(bits > 0)


def count_in_group(mask: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """How many elements of each group the mask (..., P) selects: (..., num_groups) int64."""
    counts = torch.zeros(*mask.shape[:-1], num_groups, dtype=torch.int64, device=group.device)
    return counts.scatter_add_(-1, group.expand_as(mask), mask.long())
