"""
The ground truths of a batch as one ragged set, and exact reductions over it.

Shape symbols: N images, R candidates (anchors or points) an image, M ground truths of the whole
batch, P pairs of a ground truth and a candidate.
"""

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
    return (_bits(quality) << _INDEX_BITS).add_(_MAX_INDEX).sub_(index)


def unpack_index(packed: Tensor) -> Tensor:
    """The index of packed values; one out of all range where nothing was packed."""
    return _MAX_INDEX - (packed & _MAX_INDEX)


def unpack_quality(packed: Tensor) -> Tensor:
    """The quality of packed values; 0 where nothing was packed."""
    return (packed >> _INDEX_BITS).int().view(torch.float32)


def _bits(quality: Tensor) -> Tensor:
    return quality.contiguous().view(torch.int32).long()


def best_in_group(quality: Tensor, group: Tensor, counts: Sequence[Tensor]) -> list[Tensor]:
    """
    The best elements of each group.

    Args:
        quality: (P,) float32, >= 0; 0 is never among the best, a tie goes to the earlier element.
        group: (P,) int64 in [0, G), ascending.
        counts: tensors (G,) int64, how many of each group are wanted.

    Returns:
        For each of the counts a mask (P,).
    """
    descending = (group << _INDEX_BITS).add_(_MAX_QUALITY_BITS).sub_(_bits(quality))
    order = descending.argsort(stable=True)
    place = torch.empty_like(order).scatter_(
        0, order, torch.arange(len(order), device=order.device)
    )
    ones = torch.ones_like(group, dtype=torch.bool)
    sizes = count_in_group(ones, group, len(counts[0]))
    firsts = sizes.cumsum(0) - sizes
    some = quality > 0
    return [(place < (firsts + count).index_select(0, group)) & some for count in counts]


def count_in_group(mask: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """How many elements of each group the mask (P,) selects: (num_groups,) int64."""
    return torch.zeros(num_groups, dtype=torch.int64, device=group.device).scatter_add_(
        0, group, mask.long()
    )
