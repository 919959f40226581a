"""
The ground truths of a batch as one ragged set, and the pairs with candidates that matter to them.

Only pairs that can matter (some quality above 0) are kept, as flat lists, so that cost and memory
follow the objects of the batch and not images x the most crowded image.

Shape symbols: N images, R candidates an image, M ground truths of the batch, m some of them, P
pairs, Q qualities, K classes. Boxes are XYXY in absolute pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .candidates import Anchors, PointRelation, Points
from .packed import pack
from .quality import matched_pairwise_iou

# Bytes of temporaries that a cell of the ground truths x candidates matrix costs at worst, when
# every pair matters.
_BYTES_PER_CELL = 256
_CELLS_IN_CACHE = 2**17


class GroundTruths(NamedTuple):
    """
    Ground truths of N images, one after the other.

    Attributes:
        boxes: (M, 4) float32, XYXY in pixels. classes: (M,) int64.
        images: (M,) int64, image of each. firsts: (N,) int64, where each image begins.
    """

    boxes: Tensor
    classes: Tensor
    images: Tensor
    firsts: Tensor

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
            if not torch.is_tensor(b) or not torch.is_tensor(c):
                raise ValueError(f"image {i}: boxes and classes must be tensors, (M, 4) and (M,)")
            if c.dim() != 1 or tuple(b.shape) != (len(c), 4):
                raise ValueError(
                    f"image {i}: boxes of shape {tuple(b.shape)} do not fit "
                    f"classes of shape {tuple(c.shape)}; they must be (M, 4) and (M,), for no "
                    "object (0, 4) and (0,)"
                )
        device = boxes[0].device
        sizes = torch.tensor([len(b) for b in boxes])  # shapes are known to the host
        images = torch.arange(len(boxes)).repeat_interleave(sizes)
        firsts = sizes.cumsum(0) - sizes
        return cls(
            boxes=torch.cat(boxes).float(),
            classes=torch.cat(classes).long(),
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


@dataclass(frozen=True)
class Batch:
    """What a call has to label, and by what."""

    candidates: Anchors | Points
    truth: GroundTruths
    pred_boxes: Tensor | None  # (N, R, 4), decoded; None where no quality needs them
    pred_logits: Tensor | None  # (N, R, K); None where no quality needs them
    sigma: float  # of Eq. (1)

    @cached_property
    def pred_corners(self) -> Tensor:
        """The decoded boxes, coordinates before candidates: (N, 4, R)."""
        return self.pred_boxes.float().transpose(1, 2).contiguous()

    @cached_property
    def background_costs(self) -> Tensor:
        """Cross entropy of every candidate (N * R,) with no class at all."""
        logits = _given("pred_logits", self.pred_logits)
        # An image at a time: of all at once the temporaries would be as large as the logits.
        return torch.cat([F.softplus(image.float()).sum(dim=1) for image in logits])


class PairValues:
    """What is known of P pairs of a ground truth and a candidate, each value computed once."""

    def __init__(self, batch: Batch, gts: Tensor, inds: Tensor) -> None:
        """
        Args:
            gts: (P,) ground truths in [0, M). inds: (P,) candidates in [0, R).
        """
        self.batch = batch
        self.gts = gts
        self.inds = inds
        self.sigma = batch.sigma

    @cached_property
    def cells(self) -> Tensor:
        """Of the candidate in its image: (P,) int64 in [0, N * R)."""
        images = self.batch.truth.images.index_select(0, self.gts)
        return images * len(self.batch.candidates) + self.inds

    @cached_property
    def gt_boxes(self) -> Tensor:
        """Boxes (4, P)."""
        return self.batch.truth.boxes.t().index_select(1, self.gts)

    @cached_property
    def relation(self) -> Tensor | PointRelation:
        """How the boxes lie to their candidates."""
        return self.batch.candidates.relation(self.gt_boxes, self.inds)

    @cached_property
    def static(self) -> Tensor:
        """What the static rule ranks by (P,), 0 or more."""
        return self.batch.candidates.static(self.relation)

    @cached_property
    def prior(self) -> Tensor:
        """IoU with the anchor, or centerness (P,), in [0, 1]."""
        return self.batch.candidates.prior(self.relation)

    @cached_property
    def iou(self) -> Tensor:
        """IoU of the regressed box (P,), in [0, 1]."""
        pred_boxes = _given("pred_boxes", self.batch.pred_boxes)
        boxes = pred_boxes.flatten(0, 1).index_select(0, self.cells)
        return matched_pairwise_iou(boxes.float().t(), self.gt_boxes)

    @cached_property
    def score(self) -> Tensor:
        """Probability of the ground truth's class (P,) float64, in [0, 1]; 0 where it is NaN."""
        return self.logit.sigmoid().nan_to_num(nan=0.0)

    @cached_property
    def logit(self) -> Tensor:
        """
        Of the ground truth's class (P,) float64, since in float32 PyTorch's vector and scalar
        kernels differ in the last bit: a quality would depend on its place in the tensor, hence on
        the chunks.
        """
        classes = self.batch.truth.classes.index_select(0, self.gts)
        pred_logits = _given("pred_logits", self.batch.pred_logits)
        return _select(pred_logits, self.cells, classes).double()


class Pairs(NamedTuple):
    """Some ground truths with all the candidates that matter to them."""

    gts: Tensor  # (P,) int64 in [0, M), ascending
    sizes: Tensor  # (M,) int64, pairs of each ground truth
    inds: Tensor  # (P,) int64 in [0, R), the candidates
    cells: Tensor  # (P,) int64 in [0, N * R): the candidate in its image
    qualities: Tensor  # (Q, P) int64, packed with the ground truth


class PairFinder:
    """Finds the pairs of a batch that matter, and their qualities, in chunks of ground truths."""

    def __init__(
        self,
        batch: Batch,
        pool: Callable[[Batch, Tensor, Tensor], Tensor],
        qualities: Sequence[Callable[[PairValues], Tensor]],
    ) -> None:
        """
        Args:
            pool: from ground truths (4, m) and their images (m,) to the candidates that can matter
                to them, (m, R) bool.
            qualities: Q functions to (P,) float32, of which NaN and what is below 0 count as 0.
        """
        self.batch = batch
        self.truth = batch.truth
        self.candidates = batch.candidates
        self.pool = pool
        self.qualities = qualities
        self.gt_boxes = batch.truth.boxes.t().contiguous()  # (4, M)

    def plan(self, memory_budget: int, num_classes: int) -> Callable[[], Iterable[Pairs]]:
        """
        Something that yields all pairs, as often as it is called, within the budget.

        Raises:
            ValueError: a ground truth is degenerate, not finite or of no class.
        """
        num_gts = len(self.truth.images)
        step = max(1, memory_budget // (_BYTES_PER_CELL * len(self.candidates)))
        ranges = [slice(i, min(i + step, num_gts)) for i in range(0, num_gts, step)]
        masks = [self._may_match(rows) for rows in ranges[:1]]
        counts = [_count_rows(mask) for mask in masks]
        counts += [_count_rows(self._may_match(rows)) for rows in ranges[1:]]
        faults = self._faults(num_classes)
        # The one wait of a call.
        *sizes, num_faults = torch.stack([x.sum() for x in (*counts, faults)]).tolist()
        if num_faults:
            self._raise_fault(num_classes)
        chunks = list(zip(ranges, counts, sizes, strict=True))
        if len(ranges) <= 1:
            whole = [self._pairs(*c, m) for c, m in zip(chunks, masks, strict=True)]
            return lambda: whole
        return lambda: (self._pairs(*chunk, self._may_match(chunk[0])) for chunk in chunks)

    def _may_match(self, rows: slice) -> Tensor:
        """Which candidates can matter: (m, R) bool."""
        boxes, images = self.gt_boxes[:, rows], self.truth.images[rows]
        mask = torch.empty(len(images), len(self.candidates), dtype=torch.bool, device=boxes.device)
        # On the CPU in blocks that stay in its cache, on a GPU at once.
        step = len(images) if mask.is_cuda else max(1, _CELLS_IN_CACHE // mask.shape[1])
        for i in range(0, len(images), step):
            block = slice(i, i + step)
            mask[block] = self.pool(self.batch, boxes[:, block], images[block])
        return mask

    def _pairs(self, rows: slice, counts: Tensor, size: int, mask: Tensor) -> Pairs:
        """
        The ``size`` true cells of a mask (m, R) of the ground truths in ``rows``, of which each has
        so many as ``counts`` (m,) says.
        """
        gts = torch.arange(len(mask), device=mask.device)
        gts = gts.repeat_interleave(counts, output_size=size)
        inds = _nonzero(mask, size).sub_(gts, alpha=len(self.candidates))
        gts += rows.start
        sizes = counts.new_zeros(len(self.truth.images))
        sizes[rows] = counts
        values = PairValues(self.batch, gts, inds)
        qualities = torch.stack([of(values).float() for of in self.qualities])
        qualities.nan_to_num_(nan=0.0)  # whose bits would order above those of any number
        return Pairs(gts, sizes, inds, values.cells, pack(qualities, gts))

    def _faults(self, num_classes: int) -> Tensor:
        """Which ground truths are degenerate, not finite or of no class: (M,) bool."""
        sizes = self.gt_boxes[2:] - self.gt_boxes[:2]  # infinite or NaN where a coordinate is
        fine = ((sizes > 0) & (sizes < torch.inf)).all(dim=0)
        return ~(fine & (self.truth.classes >= 0) & (self.truth.classes < num_classes))

    def _raise_fault(self, num_classes: int) -> None:
        truth = self.truth
        which = int(self._faults(num_classes).nonzero()[0])
        image = int(truth.images[which])
        raise ValueError(
            f"ground truth {which - int(truth.firsts[image])} of image {image} must have "
            f"positive width and height and a class in [0, {num_classes}), got box "
            f"{truth.boxes[which].tolist()} of class {int(truth.classes[which])}"
        )


def _count_rows(mask: Tensor) -> Tensor:
    """True cells of each row of a mask (m, R): (m,) int64."""
    # In int32, since PyTorch would first copy the mask as int64.
    return mask.sum(dim=1, dtype=torch.int32).long()


def _nonzero(mask: Tensor, size: int) -> Tensor:
    """The ``size`` true cells of the flat mask, without waiting to learn how many they are."""
    mask = mask.flatten()
    try:
        return torch.nonzero_static(mask, size=size).squeeze(1)
    except NotImplementedError:  # on CUDA before PyTorch 2.7
        return mask.nonzero().squeeze(1)


def _given(name: str, predictions: Tensor | None) -> Tensor:
    if predictions is None:
        raise ValueError(
            f"a quality looks at {name}, which is not in the tuple `needs` of its row of QUALITIES"
        )
    return predictions


def _select(logits: Tensor, cells: Tensor, classes: Tensor) -> Tensor:
    """Of logits (N, R, K) those of cells (P,) in [0, N * R) and classes (P,)."""
    if logits.is_contiguous():  # as it is when it comes from a model, and faster
        return logits.view(-1).index_select(0, cells * logits.shape[2] + classes)
    return logits.flatten(0, 1)[cells, classes]
