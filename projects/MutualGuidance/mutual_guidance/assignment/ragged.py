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
        """
        Concatenate N tensors (M_i, 4) and N tensors (M_i,).

        Raises:
            ValueError: no image, or boxes and classes that do not fit together.
        """
        if len(boxes) == 0 or len(boxes) != len(classes):
            raise ValueError(
                f"need the ground truths of at least one image, boxes and classes alike; "
                f"got {len(boxes)} and {len(classes)}"
            )
        for i, (b, c) in enumerate(zip(boxes, classes, strict=True)):
            if b.numel() != 4 * c.numel():
                raise ValueError(
                    f"image {i}: boxes of shape {tuple(b.shape)} do not fit "
                    f"classes of shape {tuple(c.shape)}"
                )
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

    def in_batch(self, gt_inds: Tensor) -> Tensor:
        """Indices (N, R) within the image to indices within the batch; -1 stays."""
        return torch.where(gt_inds >= 0, gt_inds + self.firsts[:, None], -1)

    def boxes_at(self, gt_inds: Tensor) -> Tensor:
        """The boxes (N, R, 4) with indices (N, R) within the image; zeros for -1."""
        padded = torch.cat((self.boxes.new_zeros(1, 4), self.boxes))
        return padded[self.in_batch(gt_inds) + 1]


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


def is_index(packed: Tensor, index: Tensor) -> Tensor:
    """Whether that index was packed."""
    return (packed & _MAX_INDEX) == _MAX_INDEX - index


def replace_index(packed: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The same qualities packed with other indices."""
    return packed + (old - new)


def quality_bits(quality: float) -> int:
    """The bits of one quality, to compare with :func:`packed_bits`."""
    return struct.unpack("i", struct.pack("f", quality))[0]


def rank_in_group(group: Tensor, sizes: Tensor) -> Tensor:
    """Place (P,) of each element in its group; group (P,) in [0, G) ascends, sizes is (G,)."""
    firsts = sizes.cumsum(0) - sizes
    return torch.arange(len(group), device=group.device) - firsts.index_select(0, group)


def mark_best(bits: Tensor, group: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
    """
    The best elements of each group.

    Args:
        bits: (P,) int64, of qualities; 0 is never among the best, a tie goes to the earlier one.
        group: (P,) int64, ascending.
        wanted: masks (P,) of the places of each group that are wanted, the best being its first.

    Returns:
        For each of ``wanted`` the mask (P,) of the elements that take those places.
    """
    # Groups stay together in this order, so that places of a group before and after coincide.
    order = (group << _INDEX_BITS).add_(_MAX_QUALITY_BITS).sub_(bits).argsort(stable=True)
    some = bits > 0
    return [
        torch.empty_like(some).scatter_(0, order, places).logical_and_(some) for places in wanted
    ]


def count_in_group(mask: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """How many elements of each group the mask (P,) selects: (num_groups,) int64."""
    return torch.zeros(num_groups, dtype=torch.int64, device=group.device).scatter_add_(
        0, group, mask.long()
    )
