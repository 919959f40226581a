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
        sizes = [len(b) for b in boxes]
        firsts = [sum(sizes[:i]) for i in range(len(sizes))]
        images = [i for i, size in enumerate(sizes) for _ in range(size)]
        return cls(
            boxes=torch.cat([b.reshape(-1, 4) for b in boxes]).float(),
            classes=torch.cat([c.reshape(-1) for c in classes]).long(),
            images=torch.tensor(images, dtype=torch.int64).to(device, non_blocking=True),
            firsts=torch.tensor(firsts, dtype=torch.int64).to(device, non_blocking=True),
        )


def pack(quality: Tensor, index: Tensor) -> Tensor:
    """Quality (float32, >= 0) and index as one int64; 0 where the quality is 0."""
    bits = quality.contiguous().view(torch.int32).long()
    return torch.where(quality > 0, (bits << _INDEX_BITS) + (_MAX_INDEX - index), 0)


def unpack_index(packed: Tensor) -> Tensor:
    """Index of packed values; -1 where nothing was packed."""
    return torch.where(packed > 0, _MAX_INDEX - (packed & _MAX_INDEX), -1)


def unpack_quality(packed: Tensor) -> Tensor:
    """Quality of packed values; 0 where nothing was packed."""
    return (packed >> _INDEX_BITS).int().view(torch.float32)


def scatter_max_(target: Tensor, index: Tensor, packed: Tensor) -> Tensor:
    """target[index[i]] = max(target[index[i]], packed[i]), in place."""
    return target.scatter_reduce_(0, index, packed, "amax")


def rank_in_group(quality: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """
    Rank of each element among those of its group, by descending quality.

    Args:
        quality: (P,) float32, >= 0.
        group: (P,) int64 in [0, num_groups), ascending.

    Returns:
        (P,) int64, 0 for the best of its group; on a tie the earlier element is better.
    """
    descending = _MAX_QUALITY_BITS - quality.contiguous().view(torch.int32).long()
    order = ((group << _INDEX_BITS) + descending).argsort(stable=True)
    sizes = count_in_group(torch.ones_like(group, dtype=torch.bool), group, num_groups)
    firsts = sizes.cumsum(0) - sizes
    # Groups keep their places in the order, so group[order] is group itself.
    rank_of_ordered = torch.arange(len(group), device=group.device) - firsts[group]
    return torch.empty_like(order).scatter_(0, order, rank_of_ordered)


def count_in_group(mask: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """How many elements of each group the mask (P,) selects: (num_groups,) int64."""
    return torch.zeros(num_groups, dtype=torch.int64, device=group.device).scatter_add_(
        0, group, mask.long()
    )
