#!/usr/bin/env python3
"""
Time and memory of a detector's losses, forward and backward, beside those of Detectron2's RetinaNet
for the same predictions and labels.

    python benchmarks/losses.py --config-file configs/COCO-Detection/fssd_R_18.yaml --images 32

prints a table. Memory is the most that tensors take at one time beyond what was allocated before,
gradients of the predictions included, as PyTorch's profiler counts it on the CPU.
"""

import statistics
import time
from collections.abc import Callable

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import torch
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger
from tabulate import tabulate
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mutual_guidance.arguments import Parser, add_opts, at_least_one
from mutual_guidance.assignment import Assignment, GroundTruths
from mutual_guidance.engine import Trainer, prepare
from mutual_guidance.errors import run_main
from mutual_guidance.modeling import GuidedRetinaNet
from mutual_guidance.modeling.meta_arch import ground_truths
from mutual_guidance.modeling.meta_arch.guided import DensePredictions

NUM_OBJECTS = 6  # of an image
HEADERS = ("losses", "time (ms)", "peak memory (MiB)", "in logits")


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--config-file", required=True, metavar="FILE",
        help="of a RetinaNet; data that it registers is not read, and counts as 80 classes",
    )  # fmt: skip
    parser.add_argument("--images", type=at_least_one, default=32, help="of the batch")
    parser.add_argument("--repeats", type=at_least_one, default=5, help="measured, for the median")
    add_opts(parser)
    options = parser.parse_args(argv)
    setup_logger(name="mutual_guidance")
    # A box loss that both have.
    opts = ["MODEL.WEIGHTS", "", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou", *options.opts]
    cfg = prepare(options.config_file, [*opts, "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    batch = make_batch(Trainer.build_model(cfg), options.images, cfg.INPUT.SQUARE_SIZE)
    size = batch[1].logits.numel() * 4
    rows = []
    for name, losses in (("Mutual Guidance", ours), ("Detectron2 RetinaNet", detectron2s)):
        seconds, peak = measure(lambda losses=losses: losses(*batch), options.repeats)
        rows.append((name, seconds * 1e3, peak / 2**20, peak / size))
    shape = "x".join(map(str, batch[1].logits.shape))
    print(f"\nLogits {shape}, {size / 2**20:.0f} MiB in float32")
    print(tabulate(rows, HEADERS, "pipe", floatfmt=("", ".0f", ".0f", ".2f")))


def make_batch(
    model: GuidedRetinaNet, num_images: int, side: int
) -> tuple[GuidedRetinaNet, DensePredictions, GroundTruths, Assignment]:
    """A detector, random predictions of it, random objects and their labels."""
    shapes = [model.backbone.output_shape()[f] for f in model.head_in_features]
    sizes = [-(-side // shape.stride) for shape in shapes]
    features = [torch.zeros(num_images, 1, n, n) for n in sizes]
    num_anchors = model.anchor_generator.num_anchors[0]
    predictions = [
        [torch.randn(num_images, num_anchors * d, n, n) - bias for n in sizes]
        for d, bias in ((model.num_classes, 4.6), (4, 0.0))
    ]
    dense = model.dense(features, predictions)
    truth = ground_truths([random_objects(side) for _ in range(num_images)])
    return model, dense, truth, model.assign(dense, truth)


def random_objects(side: int) -> Instances:
    """Objects of a square image."""
    corners = torch.rand(NUM_OBJECTS, 2) * 0.6
    boxes = torch.cat((corners, corners + 0.05 + torch.rand(NUM_OBJECTS, 2) * 0.35), dim=1)
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(boxes * side)
    instances.gt_classes = torch.randint(20, (NUM_OBJECTS,))
    return instances


def ours(
    model: GuidedRetinaNet, dense: DensePredictions, truth: GroundTruths, labels: Assignment
) -> dict[str, Tensor]:
    """Of the detector."""
    return model.guided_losses(with_gradient(dense), truth, labels)


def detectron2s(
    model: GuidedRetinaNet, dense: DensePredictions, truth: GroundTruths, labels: Assignment
) -> dict[str, Tensor]:
    """Of Detectron2's RetinaNet."""
    dense = with_gradient(dense)
    boxes = list(truth.boxes_at(labels.loc_gt_inds))
    labels = list(labels.cls_labels)
    return RetinaNet.losses(model, dense.anchors, [dense.logits], labels, [dense.deltas], boxes)


def with_gradient(dense: DensePredictions) -> DensePredictions:
    return dense._replace(
        logits=dense.logits.detach().requires_grad_(), deltas=dense.deltas.detach().requires_grad_()
    )


def measure(losses: Callable[[], dict[str, Tensor]], repeats: int) -> tuple[float, int]:
    """Median seconds, and the peak in bytes."""

    def call() -> None:
        with EventStorage():
            sum(losses().values()).backward()

    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), peak_bytes(call)


def peak_bytes(call: Callable[[], None]) -> int:
    """The most that the tensors of a call take at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        call()
    used = [0]
    for event in prof.profiler.kineto_results.events():
        if event.name() == "[memory]":
            used.append(used[-1] + event.nbytes())
    return max(used)


if __name__ == "__main__":
    run_main(main)
