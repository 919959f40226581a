"""
The ground truths of a batch as one ragged set, and exact reductions over it.

Shape symbols: N images, R candidates (anchors or points) an image, M ground truths of the whole
batch, P pairs of a ground truth and a candidate.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A quality and an index share an int64: the bits of a non-negative float32 order like the float,
# so that an integer maximum finds the highest quality and, on a tie, the lowest index, in any
# order of the operands. That makes every reduction below exact and repeatable.
_INDEX_BITS = 32
_MAX_INDEX = 2**_INDEX_BITS - 1
_MAX_QUALITY_BITS = 2**31 - 1


class GroundTruths(NamedTuple):
    """Ground truths of N images, one after the other."""

    boxes: Tensor  # (M, 4) float32, XYXY, pixels
    classes: Tensor  # (M,) int64
    images: Tensor  # (M,) int64, image of each
    firsts: Tensor  # (N,) int64, where each image begins

    @classmethod
    def cat(cls, boxes: Sequence[Tensor], classes: Sequence[Tensor]) -> "GroundTruths":
        """Concatenate N tensors (M_i, 4) and N tensors (M_i,)."""
        device = boxes[0].device
        sizes = torch.tensor([len(b) for b in boxes])  # shapes are known to the host
        images = torch.arange(len(boxes)).repeat_interleave(sizes)
        firsts = sizes.cumsum(0) - sizes
        return cls(
            boxes=torch.cat([b.reshape(-1, 4) for b in boxes]).float(),
            classes=torch.cat([c.reshape(-1) for c in classes]).long(),
            images=images.to(device, non_blocking=True),
            firsts=firsts.to(device, non_blocking=True),
        )


def pack(quality: Tensor, index: Tensor) -> Tensor:
    """Quality (float32, >= 0 and not NaN) and index as one int64, at least 0."""
    bits = quality.contiguous().view(torch.int32).long()
    return (bits << _INDEX_BITS).add_(_MAX_INDEX).sub_(index)


def packed_bits(packed: Tensor) -> Tensor:
    """The bits of the packed quality, int64; 0 where it is 0 or nothing was packed."""
    return packed >> _INDEX_BITS


def packed_index(packed: Tensor) -> Tensor:
    """The packed index; one out of all range where nothing was packed."""
    return _MAX_INDEX - (packed & _MAX_INDEX)


def replace_index(packed: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The same qualities packed with other indices."""
    return packed + (old - new)


def quality_bits(quality: float) -> int:
    """The bits of one quality, to compare with :func:`packed_bits`."""
    return struct.unpack("i", struct.pack("f", quality))[0]


def best_in_group(bits: Tensor, group: Tensor, counts: Sequence[Tensor]) -> list[Tensor]:
    """
    The best elements of each group.

    Args:
        bits: (P,) int64, of qualities; 0 is never among the best, a tie goes to the earlier one.
        group: (P,) int64 in [0, G), ascending.
        counts: tensors (G,) int64, how many of each group are wanted.

    Returns:
        For each of the counts a mask (P,).
    """
    descending = (group << _INDEX_BITS).add_(_MAX_QUALITY_BITS).sub_(bits)
    order = descending.argsort(stable=True)
    # Groups stay together in the order, so a place tells the rank within the group.
    places = torch.arange(len(order), device=order.device)
    place = torch.empty_like(order).scatter_(0, order, places)
    sizes = count_in_group(torch.ones_like(group, dtype=torch.bool), group, len(counts[0]))
    firsts = sizes.cumsum(0) - sizes
    some = bits > 0
    return [(place < (firsts + count).index_select(0, group)) & some for count in counts]


def count_in_group(mask: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """How many elements of each group the mask (P,) selects: (num_groups,) int64."""
    return torch.zeros(num_groups, dtype=torch.int64, device=group.device).scatter_add_(
        0, group, mask.long()
    )
