"""
Synthetic batches for a matcher.

Shape symbols: N images, R anchors, M_i ground truths of image i, M of the batch, K classes.
"""

from typing import NamedTuple

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor


class Scenario(NamedTuple):
    """A synthetic batch of images with anchors on a pyramid."""

    num_images: int
    size: tuple[int, int]  # height, width in pixels
    strides: tuple[int, ...]
    anchor_sizes: tuple[tuple[float, ...], ...]  # of each level, pixels
    aspect_ratios: tuple[float, ...]
    num_objects: int  # of the batch
    num_classes: int
    object_sides: tuple[float, float]  # pixels, log-uniform
    crowd: int = 0  # so many of the objects are in the first image, and no others

    @property
    def num_anchors(self) -> int:
        """R."""
        cells = [-(-self.size[0] // s) * -(-self.size[1] // s) for s in self.strides]
        anchors = [len(sizes) * len(self.aspect_ratios) for sizes in self.anchor_sizes]
        return sum(c * a for c, a in zip(cells, anchors, strict=True))

    @property
    def most_crowded(self) -> int:
        """Objects of the most crowded image, as expected of the random ones."""
        return max(self.crowd, -(-(self.num_objects - self.crowd) // self.num_images))


class Batch(NamedTuple):
    """What a matcher gets."""

    anchors: Tensor  # (R, 4)
    level_sizes: list[int]  # anchors of each level
    gt_boxes: list[Tensor]  # N x (M_i, 4)
    gt_classes: list[Tensor]  # N x (M_i,)
    pred_boxes: Tensor  # (N, R, 4)
    pred_logits: Tensor  # (N, R, K)


_SSD = Scenario(
    num_images=32,
    size=(320, 320),
    strides=(8, 16, 32, 64),
    anchor_sizes=tuple((24.0 * 2**i, 24.0 * 2 ** (i + 0.5)) for i in range(4)),
    aspect_ratios=(1.0, 0.5, 2.0),
    num_objects=80,
    num_classes=20,
    object_sides=(30, 300),
)
_DENSE = Scenario(
    num_images=128,
    size=(640, 640),
    strides=(8, 16, 32),
    anchor_sizes=((32.0,), (64.0,), (128.0,)),
    aspect_ratios=(1.0,),
    num_objects=75_000,
    num_classes=60,
    object_sides=(8, 48),
    crowd=5_000,
)
_LARGE = Scenario(
    num_images=16,
    size=(800, 1333),
    strides=(8, 16, 32, 64, 128),
    anchor_sizes=tuple(tuple(32.0 * 2 ** (i + j / 3) for j in range(3)) for i in range(5)),
    aspect_ratios=(0.5, 1.0, 2.0),
    num_objects=100,
    num_classes=80,
    object_sides=(20, 700),
)
SWEEP = (10, 30, 100, 300, 1_000, 2_500, 5_000)
SCENARIOS = {
    "voc": _SSD,
    "coco": _SSD._replace(num_objects=200, num_classes=80, object_sides=(10, 300)),
    "dense": _DENSE,
    "large": _LARGE,  # 100 objects in the batch
    "large_crowded": _LARGE._replace(num_objects=1_600),  # 100 objects an image
    **{
        f"sweep_{count}": _DENSE._replace(
            num_images=8, num_objects=count, object_sides=(16, 256), crowd=0
        )
        for count in SWEEP
    },
}
# Runs before every measurement, so that what is made once for all calls is there.
WARM_UP = _SSD._replace(num_images=2, num_objects=6)


def make_batch(scenario: Scenario, device: str, seed: int = 0) -> Batch:
    """The same batch on every device: predicted boxes near their anchors, logits of about -4."""
    generator = torch.Generator().manual_seed(seed)
    levels = make_anchors(scenario)
    anchors = torch.cat(levels)
    shape = (scenario.num_images, len(anchors))
    deltas = torch.randn(*shape, 4, generator=generator) * torch.tensor([0.1, 0.1, 0.2, 0.2])
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    pred_boxes = torch.stack([transform.apply_deltas(d, anchors) for d in deltas])
    logits = torch.randn(*shape, scenario.num_classes, generator=generator) - 4
    boxes = make_objects(scenario, generator)
    classes = [torch.randint(scenario.num_classes, (len(b),), generator=generator) for b in boxes]
    return Batch(
        anchors=anchors.to(device),
        level_sizes=[len(level) for level in levels],
        gt_boxes=[b.to(device) for b in boxes],
        gt_classes=[c.to(device) for c in classes],
        pred_boxes=pred_boxes.to(device),
        pred_logits=logits.to(device),
    )


def make_anchors(scenario: Scenario) -> list[Tensor]:
    """The anchors (R_i, 4) of each level, by Detectron2's generator."""
    generate = DefaultAnchorGenerator(
        sizes=[list(sizes) for sizes in scenario.anchor_sizes],
        aspect_ratios=[list(scenario.aspect_ratios)],
        strides=list(scenario.strides),
        offset=0.5,
    )
    height, width = scenario.size
    features = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in scenario.strides]
    return [boxes.tensor for boxes in generate(features)]


def make_objects(scenario: Scenario, generator: torch.Generator) -> list[Tensor]:
    """N tensors (M_i, 4): boxes anywhere in the image, cut at its border."""
    free = scenario.num_objects - scenario.crowd
    first_free = 1 if scenario.crowd else 0
    images = torch.randint(first_free, scenario.num_images, (free,), generator=generator)
    counts = images.bincount(minlength=scenario.num_images)
    counts[0] += scenario.crowd

    extent = torch.tensor([scenario.size[1], scenario.size[0]]).float()
    low, high = torch.tensor(scenario.object_sides).log()
    total = scenario.num_objects
    sides = (low + (high - low) * torch.rand(total, 1, generator=generator)).exp()
    stretch = (torch.randn(total, 1, generator=generator) * 0.2).exp()
    half = torch.cat((sides * stretch, sides / stretch), dim=1) / 2  # (M, 2)
    centres = torch.rand(total, 2, generator=generator) * extent
    low_corners, high_corners = (centres - half).clamp(min=0), torch.min(centres + half, extent)
    return list(torch.cat((low_corners, high_corners), dim=1).split(counts.tolist()))
