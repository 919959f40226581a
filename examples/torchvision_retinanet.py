#!/usr/bin/env python3
"""Mutual Guidance in a training loop without Detectron2: torchvision's RetinaNet on drawn images.

    python examples/torchvision_retinanet.py                       # 40 steps on the CPU
    python examples/torchvision_retinanet.py --strategy static     # the ordinary labels

`GuidedRetinaNet` is all there is to it; the rest draws images and trains. torchvision tells its
heads by a number for each anchor which ground truth it has: one list serves both tasks there, two
lists here.
"""

import argparse

import torch
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher

NUM_CLASSES = 3
SIDE = 96  # of the images, pixels


class GuidedRetinaNet(RetinaNet):
    """torchvision's RetinaNet, its anchors labelled for each task apart."""

    def __init__(self, matcher: AnchorMatcher, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.matcher = matcher

    def compute_loss(
        self, targets: list[dict], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Label the anchors by the predictions of this very step, then torchvision's losses."""
        deltas = head_outputs["bbox_regression"].detach().float()  # (N, R, 4); halves lack pixels
        labels = self.matcher(
            anchors[0],  # images of a batch are padded to one size, hence have the same anchors
            [t["boxes"] for t in targets],
            [t["labels"] for t in targets],
            torch.stack([self.box_coder.decode_single(d, anchors[0]) for d in deltas]),
            head_outputs["cls_logits"].detach(),
        )
        ignored = labels.cls_labels == -1
        between = self.proposal_matcher.BETWEEN_THRESHOLDS  # torchvision's number for ignored
        cls_inds = labels.cls_gt_inds.masked_fill(ignored, between)
        cls_head, reg_head = self.head.classification_head, self.head.regression_head
        return {
            "classification": cls_head.compute_loss(targets, head_outputs, cls_inds),
            "bbox_regression": reg_head.compute_loss(
                targets, head_outputs, anchors, labels.loc_gt_inds
            ),
        }


def build_model(strategy: str) -> GuidedRetinaNet:
    """ResNet-18 and a narrow pyramid of strides 8 to 64, from random weights."""
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(resnet18(), layers, [128, 256, 512], out_channels=64)
    sizes = tuple((16 * 2**i, 24 * 2**i) for i in range(4))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 4)
    num_anchors = anchors.num_anchors_per_location()[0]
    return GuidedRetinaNet(
        AnchorMatcher(strategy, sigma=2.0, iou_thresholds=(0.4, 0.5)),
        backbone,
        num_classes=NUM_CLASSES,
        anchor_generator=anchors,
        head=RetinaNetHead(backbone.out_channels, num_anchors, NUM_CLASSES),
        min_size=SIDE,
        max_size=SIDE,
    )


def draw_batch(generator: torch.Generator, num_images: int = 4) -> tuple[list, list[dict]]:
    """Images with two rectangles each, red, green or blue, and their boxes and classes."""
    images, targets = [], []
    for _ in range(num_images):
        image = torch.full((3, SIDE, SIDE), 0.5)
        corners = torch.randint(0, SIDE // 2, (2, 2), generator=generator)
        sides = torch.randint(16, SIDE // 2, (2, 2), generator=generator)
        classes = torch.randint(NUM_CLASSES, (2,), generator=generator)
        boxes = torch.cat((corners, corners + sides), dim=1)
        for (x0, y0, x1, y1), c in zip(boxes.tolist(), classes.tolist(), strict=True):
            image[:, y0:y1, x0:x1] = 0.0
            image[c, y0:y1, x0:x1] = 1.0
        images.append(image)
        targets.append({"boxes": boxes.float(), "labels": classes})
    return images, targets


def train(strategy: str, steps: int, seed: int = 0) -> list[float]:
    """Train on drawn images; return the loss of each step."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build_model(strategy).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    history = []
    for step in range(1, steps + 1):
        losses = model(*draw_batch(generator))
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
        if step % 10 == 0:
            print(f"step {step}: " + ", ".join(f"{k} {v.item():.3f}" for k, v in losses.items()))
    return history


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rules = [name for name in STRATEGIES if name != "atss"]  # which has to be told the levels
    parser.add_argument("--strategy", choices=rules, default="mutual_guidance")
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args(argv)
    train(args.strategy, args.steps)


if __name__ == "__main__":
    main()
