#!/usr/bin/env python3
"""
Check what a training would stop at, and compare the objects of a data set with the anchors.

    python tools/check_dataset.py configs/BCCD/retinanet_R_18.yaml
    python tools/check_dataset.py coco_2017_val --config-file configs/COCO-Detection/fssd_R_18.yaml

tells what is wrong by reason; then, of each data set, objects an image, sizes and aspect ratios at
the size that the detector sees, and draws some of its annotated images. On the data sets that are
trained on it judges how well the best anchor of each object fits, and says which would fit better.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, build_anchor_generator
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from tabulate import tabulate
from torch import Tensor

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.data import Record, check_datasets
from mutual_guidance.data.anchor_fit import (
    COVERED,
    THRESHOLDS,
    Objects,
    best_anchor_ious,
    fits_better,
    misses,
    quantile,
    resized_objects,
    suggest_anchors,
    suggest_ratios,
    suggest_sizes,
)
from mutual_guidance.data.mapper import MIN_SIDE, is_ssds
from mutual_guidance.data.register import FAULTS_FILE
from mutual_guidance.engine import prepare
from mutual_guidance.engine.checks import check_batch, check_weights
from mutual_guidance.errors import DatasetError, run_main
from mutual_guidance.evaluation.ground_truth import load_records
from mutual_guidance.figures import write_png
from mutual_guidance.visualization.dataset import draw_annotated, draw_statistics
from mutual_guidance.visualization.report.files import thinned

ROOT = Path(__file__).resolve().parents[1]
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
NUM_DRAWN = 9
CONFIGS, SUGGESTED = "of the config", "suggested"


def main(argv: list[str] | None = None) -> None:
    run_main(check, parse_args(argv))


def check(args: argparse.Namespace) -> None:
    """Check the data sets, then print and draw what is in each."""
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / FAULTS_FILE).unlink(missing_ok=True)  # they may have been mended since
    if args.data.endswith((".yaml", ".yml")):
        data = ("TRAIN", "TEST")
        cfg = prepare(args.data, data=data, for_training=True, folder=str(args.output))
        check_batch(cfg, args.num_gpus)
        learnt, names = cfg.DATASETS.TRAIN, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        print(f"Can be trained and evaluated on: {', '.join(names)}")
    else:
        cfg = prepare(args.config_file)
        check_datasets([args.data], folder=str(args.output))
        learnt = names = [args.data]
        print(f"Can be trained on: {args.data}")
    generator = anchors_of(cfg)
    for name in dict.fromkeys(names):
        report(name, cfg, generator, name in learnt, args.output)
    if args.data not in names:
        check_weights(cfg, "start")  # last, since the data can be looked at without


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
        default=str(ROOT / "configs" / "Base-Anchors.yaml"),
        help="with a NAME: whose anchors it is compared with, and whose data sets are registered",
    )
    parser.add_argument(
        "--num-gpus",
        type=at_least_one,
        default=1,
        metavar="N",
        help="with a CONFIG: processes that the training will have",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output/check_dataset"), help="folder of the pictures"
    )
    return parser.parse_args(argv)


def report(
    name: str,
    cfg: CfgNode,
    generator: DefaultAnchorGenerator | None,
    is_learnt: bool,
    folder: Path,
) -> None:
    """
    Print the tables of a data set and draw its pictures; of one that is trained on judge the
    anchors, if there are any, and how many objects SSD's augmentation may drop.
    """
    generator = generator if is_learnt else None
    records = load_records(name)
    objects = resized_objects(records, cfg)
    classes = MetadataCatalog.get(name).thing_classes
    if not len(objects.boxes):
        raise DatasetError(f"data set {name} has no object to count")
    empty = int((objects.per_image == 0).sum())
    print(f"\n{name}: {len(objects.boxes)} objects in {len(records)} images, "
          f"{empty} of them without any{crowds_of(records)}")  # fmt: skip
    ious = {} if generator is None else anchor_ious(objects, cfg, generator)
    print(remarks(objects, cfg, is_learnt))
    print(f"{quantile_table(objects)}\n\n{class_table(objects, classes, ious.get(CONFIGS))}\n")
    if ious:
        print(f"{share_table(ious)}\n\n{judgement(ious, objects, cfg)}\n")
    statistics = draw_statistics(name, objects, generator, ious)
    write_png(folder / f"{name}.png", statistics)
    images = folder / f"{name}_images.png"
    annotated = draw_annotated(cfg, spread(records), classes)
    write_png(images, annotated)
    print(f"Pictures: {folder / f'{name}.png'}, and {images}: look whether the boxes are right")


def crowds_of(records: Sequence[Record]) -> str:
    """What is said of crowd regions, where there are any."""
    number = sum(int(r.objects["crowd"].sum()) for r in records)
    return f"; crowd regions, which no detector learns: {number}" if number else ""


def remarks(objects: Objects, cfg: CfgNode, is_learnt: bool) -> str:
    """What is said of too many objects in an image and of too small ones, a line each."""
    most, told = int(objects.per_image.max()), ""
    if most > cfg.TEST.DETECTIONS_PER_IMAGE:
        told += (
            f"One of them has {most}, more than a detector returns: raise "
            f"TEST.DETECTIONS_PER_IMAGE {cfg.TEST.DETECTIONS_PER_IMAGE}\n"
        )
    small = (objects.sides < MIN_SIDE * objects.image_sizes).any(dim=1)
    if is_learnt and is_ssds(cfg) and small.any():
        by_image = small.split(objects.per_image.tolist())
        only = sum(bool(len(of_image) and of_image.all()) for of_image in by_image)
        told += (
            f"{100 * small.float().mean():.1f} % of the objects are below {100 * MIN_SIDE:.0f} % "
            "of their image's width or height, where SSD's augmentation drops them unless its crop "
            f"enlarges them; {only} images have no others and are hardly ever augmented "
            "(INPUT.SSD_AUGMENTATION False keeps all objects)\n"
        )
    return told


def anchor_ious(
    objects: Objects, cfg: CfgNode, generator: DefaultAnchorGenerator
) -> dict[str, Tensor]:
    """Best IoUs (M,) with the anchors of the config, and with suggested ones that fit better."""
    ious = {CONFIGS: best_anchor_ious(objects, generator)}
    suggested = best_anchor_ious(objects, suggest_anchors(objects, cfg))
    if fits_better(suggested, than=ious[CONFIGS]):
        ious[SUGGESTED] = suggested
    return ious


def judgement(ious: dict[str, Tensor], objects: Objects, cfg: CfgNode) -> str:
    """Whether the anchors fit, or what would."""
    if SUGGESTED in ious:
        return suggestion(suggest_sizes(objects.scales, cfg), suggest_ratios(cfg))
    return "Your anchors fit: those that the sizes of the objects suggest are no better."


def spread(records: Sequence[Record]) -> list[Record]:
    """Some records with an object, from the first to the last."""
    annotated = [r for r in records if not r.objects["crowd"].all()]
    return thinned(annotated, NUM_DRAWN)


def anchors_of(cfg: CfgNode) -> DefaultAnchorGenerator | None:
    """The anchors of the config's detector, None for one of points or of two stages."""
    detector = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if not issubclass(detector, RetinaNet):
        return None
    shapes = build_backbone(cfg).output_shape()
    return build_anchor_generator(cfg, [shapes[f] for f in cfg.MODEL.RETINANET.IN_FEATURES])


def suggestion(sizes: list[list[float]], ratios: list) -> str:
    """The suggested anchors as keys of a config."""
    names = ", ".join(f'"p{3 + i}"' for i in range(len(sizes)))
    low, high = (f"{100 * q:.0f} %" for q in COVERED)
    return f"""Suggested: base size {sizes[0][0]:.0f}, {len(sizes)} levels, so that the sizes of the
anchors reach from the {low} to the {high} quantile of the objects' scales:
MODEL:
  ANCHOR_GENERATOR:
    SIZES: {sizes}
    ASPECT_RATIOS: {ratios}
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


def class_table(objects: Objects, names: Sequence[str], ious: Tensor | None) -> str:
    """A row a class: objects, their median scale and, with best IoUs (M,), the share below 0.5."""
    headers = ["class", "objects", "median scale (px)"]
    if ious is not None:
        headers.append(f"best anchor below {THRESHOLDS[0]} (%)")
    rows, scales = [], objects.scales
    for index, name in enumerate(names):
        chosen = objects.classes == index
        row = [name, int(chosen.sum())]
        if row[1]:
            row.append(quantile(scales[chosen], 0.5))
            row += [] if ious is None else [100 * misses(ious[chosen])[0]]
        rows.append(row)
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f", disable_numparse=[0])


def share_table(ious: dict[str, Tensor]) -> str:
    """A row a set of anchors, a column an IoU that the best anchor of an object may miss."""
    rows = [[name, *(100 * share for share in misses(values))] for name, values in ious.items()]
    headers = ["objects whose best anchor is", *(f"below {t} (%)" for t in THRESHOLDS)]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f")


if __name__ == "__main__":
    main()
