"""Random batches for the matchers: integer coordinates, so that float32 and float64 agree."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

STRATEGY_NAMES = ("static", "localize_to_classify", "classify_to_localize", "mutual_guidance")


@dataclass
class Scene:
    """One batch: N lists of ground truths and the predictions for R candidates."""

    gt_boxes: list  # N tensors (M_i, 4)
    gt_classes: list  # N tensors (M_i,)
    pred_boxes: torch.Tensor  # (N, R, 4)
    pred_logits: torch.Tensor  # (N, R, K)


def random_boxes(generator, count, extent, smallest, largest):
    """(count, 4) boxes with integer corners and sides within [smallest, largest]."""
    sides = torch.randint(smallest, largest + 1, (count, 2), generator=generator)
    corners = torch.randint(0, extent, (count, 2), generator=generator)
    return torch.cat((corners, corners + sides), dim=1).float()


def ground_truths(generator, kind, count, extent):
    """Boxes (M, 4) of the kind: ordinary, tiny, nested or identical."""
    if kind == "tiny":
        return random_boxes(generator, count, extent, 1, 2)
    boxes = random_boxes(generator, count, extent, 3, extent // 2)
    if kind == "nested" and count:
        shrink = torch.arange(count)[:, None].clamp(max=extent // 8) * torch.tensor([1, 1, -1, -1])
        boxes = torch.tensor([0, 0, extent, extent]) + shrink.float()
    if kind == "identical":
        boxes = boxes[:1].expand(count, 4).clone()
    return boxes


@st.composite
def scenes(draw, num_candidates, extent, max_gts=12):
    """Batches of 1 to 3 images: empty, sparse, crowded; K from 1 to 4."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    num_classes = draw(st.integers(1, 4))
    gt_boxes = [
        ground_truths(
            generator,
            draw(st.sampled_from(("ordinary", "tiny", "nested", "identical"))),
            draw(st.sampled_from((0, 1, 2, 5, max_gts))),
            extent,
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    num_images = len(gt_boxes)
    gt_classes = [torch.randint(num_classes, (len(b),), generator=generator) for b in gt_boxes]
    pred_boxes = random_boxes(generator, num_images * num_candidates, extent, 1, extent)
    logits = torch.randint(-60, 60, (num_images, num_candidates, num_classes), generator=generator)
    return Scene(gt_boxes, gt_classes, pred_boxes.view(num_images, num_candidates, 4), logits / 10)
