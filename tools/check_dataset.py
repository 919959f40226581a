#!/usr/bin/env python3
"""
Check a data set as the training does, and compare its objects with the anchors.

    python tools/check_dataset.py configs/BCCD/retinanet_R_18.yaml
    python tools/check_dataset.py coco_2017_val --config-file configs/COCO-Detection/fssd_R_18.yaml

tells what is wrong by file and reason; then, of each data set, objects an image, sizes and aspect
ratios at the size that the detector sees, how well the best anchor of each object fits, and anchors
that would suit the sizes, as tables and as a picture.

Shape symbols: N images, M objects of a data set, A anchors at a cell.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, build_anchor_generator
from detectron2.structures import BoxMode
from tabulate import tabulate
from torch import Tensor

from mutual_guidance.arguments import Parser
from mutual_guidance.assignment import matched_pairwise_iou
from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.engine import load_config
from mutual_guidance.errors import ConfigError, DatasetError, run_main

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  after the choice of the backend

THRESHOLDS = (0.5, 0.4, 0.2)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# The suggested anchors reach from the lower to the upper one of the objects' scales.
COVERED = (0.05, 0.95)
FIRST_STRIDE = 8  # pixels, of the level p3
MAX_LEVELS = 5  # p3 to p7


class Objects(NamedTuple):
    """The objects of a data set, as the detector sees them."""

    boxes: Tensor  # (M, 4) XYXY, pixels of the resized image
    image_sizes: Tensor  # (M, 2) width and height of the resized image
    classes: Tensor  # (M,) int64
    per_image: Tensor  # (N,) int64, objects of each image

    @property
    def sides(self) -> Tensor:
        """Widths and heights (M, 2)."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def scales(self) -> Tensor:
        """Square roots of the areas (M,), as the sizes of anchors."""
        return self.sides.prod(dim=1).sqrt()


def main(argv: list[str] | None = None) -> None:
    run_main(check, parse_args(argv))


def check(args: argparse.Namespace) -> None:
    """Check the data sets, then print and draw what is in each."""
    is_config = args.data.endswith((".yaml", ".yml"))
    cfg = load_config(args.data if is_config else args.config_file, [])
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] if is_config else [args.data]
    if not names:
        raise ConfigError(f"{args.data} names no data set in DATASETS.TRAIN or DATASETS.TEST")
    register_datasets(cfg.DATASETS.REGISTER)
    check_datasets(names)
    print(f"Can be trained and evaluated on: {', '.join(names)}")
    generator = anchors_of(cfg)
    args.output.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(names):
        report(name, cfg, generator, args.output / f"{name}.png")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    parser.add_argument(
        "data",
        metavar="NAME|CONFIG",
        help="name of a data set, or the .yaml of which TRAIN and TEST are checked",
    )
    parser.add_argument(
        "--config-file",
        default="configs/Base-Anchors.yaml",
        help="with a NAME: whose anchors it is compared with, and whose data sets are registered",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output/check_dataset"), help="folder of the pictures"
    )
    return parser.parse_args(argv)


def report(name: str, cfg: CfgNode, generator: DefaultAnchorGenerator, path: Path) -> None:
    """Print the tables of a data set and draw its picture."""
    objects = read_objects(name, cfg)
    ious = best_anchor_ious(objects, generator)
    sizes = suggest_sizes(objects.scales)
    ratios = cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS
    suggested = DefaultAnchorGenerator(
        sizes=sizes,
        aspect_ratios=ratios,
        strides=[FIRST_STRIDE * 2**i for i in range(len(sizes))],
        offset=cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
    )
    suggested_ious = best_anchor_ious(objects, suggested)
    empty = int((objects.per_image == 0).sum())
    print(f"\n{name}: {len(objects.boxes)} objects in {len(objects.per_image)} images, "
          f"{empty} of them without any")  # fmt: skip
    print(f"\n{quantile_table(objects)}\n")
    print(f"{class_table(objects, ious, MetadataCatalog.get(name).thing_classes)}\n")
    print(f"{share_table({'of the config': ious, 'suggested': suggested_ious})}\n")
    print(suggestion(sizes))
    draw(path, name, objects, generator, {"config": ious, "suggested": suggested_ious})
    print(f"Picture: {path}")


def anchors_of(cfg: CfgNode) -> DefaultAnchorGenerator:
    """The anchors of the config's detector. Raises ConfigError for one without."""
    if "FCOS" in cfg.MODEL.META_ARCHITECTURE:
        raise ConfigError(
            f"{cfg.MODEL.META_ARCHITECTURE} has no anchors to compare the objects with: give the "
            "NAME of the data set, and an anchor-based detector with --config-file"
        )
    shapes = build_backbone(cfg).output_shape()
    return build_anchor_generator(cfg, [shapes[f] for f in cfg.MODEL.RETINANET.IN_FEATURES])


def read_objects(name: str, cfg: CfgNode) -> Objects:
    """All objects but crowd regions, at the size of the detector's input when it is tested."""
    boxes, image_sizes, classes, per_image = [], [], [], []
    for record in DatasetCatalog.get(name):
        old = (record["height"], record["width"])
        new = input_size(cfg, *old)
        annotations = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
        per_image.append(len(annotations))
        for annotation in annotations:
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
            boxes.append([v * new[1 - i % 2] / old[1 - i % 2] for i, v in enumerate(box)])
            image_sizes.append(new[::-1])
            classes.append(annotation["category_id"])
    if not boxes:
        raise DatasetError(f"data set {name} has no object to count")
    return Objects(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(image_sizes, dtype=torch.float32),
        torch.tensor(classes),
        torch.tensor(per_image),
    )


def input_size(cfg: CfgNode, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels to which an image is resized for testing."""
    side = cfg.INPUT.SQUARE_SIZE
    if side:
        return side, side
    return T.ResizeShortestEdge.get_output_shape(
        height, width, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    )


def best_anchor_ious(objects: Objects, generator: DefaultAnchorGenerator) -> Tensor:
    """
    IoU of each object with its best anchor (M,).

    Among anchors of one shape the one with the nearest centre overlaps most, so that only one cell
    of each level has to be looked at.
    """
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    best = torch.zeros(len(centres))
    for stride, shapes in zip(generator.strides, generator.cell_anchors, strict=True):
        last = (objects.image_sizes / stride).ceil() - 1
        cells = (centres / stride - generator.offset).round().clamp(min=0).minimum(last)
        shifts = ((cells + generator.offset) * stride).repeat(1, 2)  # (M, 4)
        anchors = shifts.t()[..., None] + shapes.t()[:, None]  # (4, M, A)
        best = best.maximum(matched_pairwise_iou(anchors, objects.boxes.t()[..., None]).amax(dim=1))
    return best


def suggest_sizes(scales: Tensor) -> list[list[float]]:
    """
    Two sizes a level, half an octave apart as in the paper's detectors: the first is the lower
    quantile of the scales (M,), and there are as many levels as it takes to reach the upper one.
    """
    low, high = (quantile(scales, q) for q in COVERED)
    base = max(1, round(low))
    num_levels = min(max(1, math.ceil(math.log2(high / base) + 0.5)), MAX_LEVELS)
    return [[base * 2.0**i, round(base * 2 ** (i + 0.5), 2)] for i in range(num_levels)]


def suggestion(sizes: list[list[float]]) -> str:
    """The suggested anchors as keys of a config."""
    names = ", ".join(f'"p{3 + i}"' for i in range(len(sizes)))
    low, high = (f"{100 * q:.0f} %" for q in COVERED)
    return f"""Suggested: base size {sizes[0][0]:.0f}, {len(sizes)} levels, so that the sizes of the
anchors reach from the {low} to the {high} quantile of the objects' scales:
MODEL:
  ANCHOR_GENERATOR:
    SIZES: {sizes}
  PYRAMID:
    NUM_LEVELS: {len(sizes)}
  RETINANET:
    IN_FEATURES: [{names}]
"""


def quantile_table(objects: Objects) -> str:
    """A row a quantity, a column a quantile."""
    width, height = objects.sides.unbind(dim=1)
    quantities = {
        "objects an image": objects.per_image.float(),
        "width (px)": width,
        "height (px)": height,
        "scale, sqrt(width * height) (px)": objects.scales,
        "aspect ratio, height / width": height / width,
    }
    rows = [
        [name, *(quantile(values, q) for q in QUANTILES)] for name, values in quantities.items()
    ]
    headers = ["quantile", *(f"{100 * q:.0f} %" for q in QUANTILES)]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".2f")


def quantile(values: Tensor, q: float) -> float:
    """The value that a share q of the others is below. Of any number, unlike torch.quantile."""
    return values.sort().values[round(q * (len(values) - 1))].item()


def class_table(objects: Objects, ious: Tensor, names: Sequence[str]) -> str:
    """A row a class: objects, their median scale, the share that no anchor fits."""
    rows = []
    for index, name in enumerate(names):
        chosen = objects.classes == index
        count = int(chosen.sum())
        scale = quantile(objects.scales[chosen], 0.5) if count else None
        share = 100 * (ious[chosen] < THRESHOLDS[0]).float().mean().item() if count else None
        rows.append([name, count, scale, share])
    headers = ["class", "objects", "median scale (px)", f"best anchor below {THRESHOLDS[0]} (%)"]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f")


def share_table(ious: dict[str, Tensor]) -> str:
    """A row a set of anchors, a column an IoU that the best anchor of an object may miss."""
    rows = [
        [name, *(100 * (values < t).float().mean().item() for t in THRESHOLDS)]
        for name, values in ious.items()
    ]
    headers = ["objects whose best anchor is", *(f"below {t} (%)" for t in THRESHOLDS)]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f")


def draw(
    path: Path,
    name: str,
    objects: Objects,
    generator: DefaultAnchorGenerator,
    ious: dict[str, Tensor],
) -> None:
    """Four panels: objects an image, sizes with the anchors, aspect ratios, best IoU."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    figure.suptitle(f"{name}: {len(objects.boxes)} objects in {len(objects.per_image)} images")
    anchors = torch.cat(list(generator.cell_anchors))
    draw_counts(axes[0, 0], objects.per_image)
    draw_sizes(axes[0, 1], objects.sides, anchors[:, 2:] - anchors[:, :2])
    draw_ratios(axes[1, 0], objects.sides, anchors[:, 2:] - anchors[:, :2])
    draw_ious(axes[1, 1], ious)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_counts(axis: plt.Axes, per_image: Tensor) -> None:
    """Histogram of the objects an image (N,), a bar a number."""
    counts = per_image.bincount()
    axis.bar(range(len(counts)), counts.numpy(), width=1.0)
    axis.set(xlabel="objects an image", ylabel="images")


def draw_sizes(axis: plt.Axes, sides: Tensor, anchor_sides: Tensor) -> None:
    """Widths and heights (M, 2) of the objects and of the anchors at a cell, on log axes."""
    axis.hexbin(*sides.t().numpy(), gridsize=40, xscale="log", yscale="log", mincnt=1, bins="log")
    axis.plot(*anchor_sides.t().numpy(), "x", color="tab:red", label="anchors")
    axis.set(xlabel="width (px)", ylabel="height (px)")
    axis.legend()


def draw_ratios(axis: plt.Axes, sides: Tensor, anchor_sides: Tensor) -> None:
    """Histogram of height / width, with lines at the anchors'."""
    axis.hist((sides[:, 1] / sides[:, 0]).log2().numpy(), bins=50)
    for ratio in (anchor_sides[:, 1] / anchor_sides[:, 0]).log2().round(decimals=3).unique():
        axis.axvline(ratio.item(), color="tab:red", linestyle="--")
    axis.set(xlabel="aspect ratio, log2(height / width); dashed: anchors", ylabel="objects")


def draw_ious(axis: plt.Axes, ious: dict[str, Tensor]) -> None:
    """Share of the objects whose best anchor is below an IoU, of each set of anchors."""
    for name, values in ious.items():
        shares = torch.linspace(0, 100, len(values))
        axis.plot(values.sort().values.numpy(), shares.numpy(), label=f"anchors: {name}")
    for threshold in THRESHOLDS:
        axis.axvline(threshold, color="tab:gray", linestyle=":")
    axis.set(xlabel="IoU of the best anchor", ylabel="objects below it (%)", xlim=(0, 1))
    axis.legend()


if __name__ == "__main__":
    main()
