"""
A dense detector in tensors alone, with a batch of any size and nothing that depends on the data.

Shape symbols: N images, S their side in pixels, R anchors or points an image, K classes, C
candidates an image, D detections an image.
"""

import torch
from detectron2.layers import batched_nms
from torch import Tensor, nn

from ..modeling.meta_arch import Guided
from ..modeling.mode import evaluation_mode


class DetectorGraph(nn.Module):
    """From images to the decoded box and the scores of every anchor, and on to detections."""

    def __init__(self, model: Guided, suppression: "Suppression | None" = None) -> None:
        """
        Args:
            model: a guided detector.
            suppression: what ends the graph; without it boxes and scores leave as they are.
        """
        super().__init__()
        self.model = model
        self.suppression = suppression

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            images: (N, 3, S, S), 0 to 255, in the channel order of INPUT.FORMAT. S is a multiple of
                the backbone's size_divisibility.

        Returns:
            boxes (N, R, 4), XYXY in pixels of the input and not clipped to it, and scores
            (N, R, K); or what :class:`Suppression` makes of them.
        """
        model = self.model
        dense = model.predict_dense((images - model.pixel_mean) / model.pixel_std)
        boxes, scores = dense.boxes, model.scores(dense)
        return self.suppression(boxes, scores) if self.suppression else (boxes, scores)


class Suppression(nn.Module):
    """
    From the boxes of all anchors to detections, as ``inference_single_image`` of Detectron2's dense
    detectors, for a batch and in shapes that do not depend on the data: the best candidates of each
    level, those above the threshold, non-maximum suppression a class, and the best of what is left.
    """

    def __init__(
        self,
        level_sizes: list[int],
        score_thresh: float,
        topk_candidates: int,
        nms_thresh: float,
        max_detections: int,
    ) -> None:
        """
        Args:
            level_sizes: anchors of each level, R in sum. score_thresh: of a detection, exclusive.
            topk_candidates: kept of each level. nms_thresh: an IoU. max_detections: D at most.
        """
        super().__init__()
        self.level_sizes = level_sizes
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections

    @classmethod
    @torch.no_grad()
    def of_model(cls, model: Guided, size: int) -> "Suppression":
        """With the settings of a model, which stays as it is, for inputs of ``size`` pixels."""
        with evaluation_mode(model):
            dense = model.predict_dense(torch.zeros(1, 3, size, size, device=model.device))
        return cls(
            level_sizes=dense.level_sizes,
            score_thresh=model.test_score_thresh,
            topk_candidates=model.test_topk_candidates,
            nms_thresh=model.test_nms_thresh,
            max_detections=model.max_detections_per_image,
        )

    def settings(self) -> dict[str, object]:
        """What the constructor takes."""
        names = ("level_sizes", "score_thresh", "topk_candidates", "nms_thresh", "max_detections")
        return {name: getattr(self, name) for name in names}

    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            boxes: (N, R, 4). scores: (N, R, K).

        Returns:
            boxes (N, D, 4), scores (N, D) and classes (N, D) int64, the best first. Where an image
            has less than D detections the rest has score 0 and class -1.
        """
        boxes, scores, classes = self._candidates(boxes, scores)
        kept = suppress(boxes, scores, classes, self.score_thresh, self.nms_thresh)
        scores, order = (scores * kept).topk(min(self.max_detections, scores.shape[1]))
        classes = classes.gather(1, order).where(scores > 0, -1)
        return _gather_boxes(boxes, order), scores, classes

    def _candidates(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, C, 4), scores (N, C) and classes (N, C) of the best of each level."""
        num_classes = scores.shape[2]
        best, anchors, classes, first = [], [], [], 0
        for level in scores.split(self.level_sizes, dim=1):
            flat = level.flatten(1)
            values, inds = flat.topk(min(self.topk_candidates, flat.shape[1]))
            best.append(values)
            anchors.append(inds // num_classes + first)
            classes.append(inds % num_classes)
            first += level.shape[1]
        return (
            _gather_boxes(boxes, torch.cat(anchors, 1)),
            torch.cat(best, 1),
            torch.cat(classes, 1),
        )


def _gather_boxes(boxes: Tensor, inds: Tensor) -> Tensor:
    """Boxes (N, R, 4) at the indices (N, C)."""
    return boxes.gather(1, inds[:, :, None].expand(-1, -1, 4))


@torch.library.custom_op("mutual_guidance::suppress", mutates_args=())
def suppress(
    boxes: Tensor, scores: Tensor, classes: Tensor, score_thresh: float, nms_thresh: float
) -> Tensor:
    """
    Non-maximum suppression within each image and class.

    One operator, since its steps have shapes that depend on the data and loop over images; in ONNX
    it becomes NonMaxSuppression.

    Args:
        boxes: (N, C, 4). scores: (N, C). classes: (N, C) int64.

    Returns:
        Which stay: (N, C) bool.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(len(scores)):
        above = (scores[image] > score_thresh).nonzero().squeeze(1)
        of_above = batched_nms(
            boxes[image, above], scores[image, above], classes[image, above], nms_thresh
        )
        kept[image, above[of_above]] = True
    return kept


@suppress.register_fake
def _(boxes, scores, classes, score_thresh, nms_thresh):
    return torch.empty_like(scores, dtype=torch.bool)
