#!/usr/bin/env python3
"""
Write the page of the model zoo: a row a config with what can be known without training.

    python tools/model_zoo.py              # projects/MutualGuidance/MODEL_ZOO.md
    python tools/model_zoo.py --time 8     # seconds of a training step of 8 images, to the terminal
    python tools/model_zoo.py --time 8 configs/COCO-Detection/fcos_R_18.yaml
"""

import logging
import statistics
import time
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import FlopCountAnalysis
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.assignment.plain import STRATEGIES  # the paper's
from mutual_guidance.engine import prepare
from mutual_guidance.errors import run_main
from mutual_guidance.experiments.grid import load_experiment
from mutual_guidance.run_files import write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "projects" / "MutualGuidance" / "MODEL_ZOO.md"
FOLDERS = {"PascalVOC-Detection": "PASCAL VOC", "COCO-Detection": "MS COCO"}
STOCK_SIZE = (800, 1216)  # pixels; Detectron2's shortest edge at a common aspect ratio
# The experiments that reproduce the paper's tables, with its figures.
PAPER_TABLES = ("voc_table1", "coco_table2", "fcos_supplementary")
INTRODUCTION = """# Model zoo

Written by `python tools/model_zoo.py`. Parameters and operations (multiply-adds, counted by fvcore)
are those of inference at the size given; the paper's AP is of its Tables 1 and 2 and of the
supplementary's Table 1. The column of our own AP stays empty until it is measured on that data set,
and no weights trained on it are offered yet.
Every detector trains with any strategy: `MODEL.MUTUAL_GUIDANCE.STRATEGY`.
"""


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--time", type=at_least_one, metavar="IMAGES", help="time training steps instead"
    )
    parser.add_argument(
        "--repeats", type=at_least_one, default=5, help="steps to take the median of"
    )
    parser.add_argument(
        "configs", nargs="*", type=Path,
        help="with --time: these instead of all; data that a config registers is not read, and "
        "counts as 80 classes",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.configs and not args.time:
        parser.error("the page lists all configs: name some with --time only")
    logging.disable(logging.WARNING)  # fvcore's, about operators without arithmetic
    configs = [p for folder in FOLDERS for p in sorted((ROOT / "configs" / folder).glob("*.yaml"))]
    if args.time:
        print(time_table(args.configs or configs, args.time, args.repeats))
    else:
        write_text(PAGE, page(configs))
        print(f"Written: {PAGE.relative_to(ROOT)}")


def page(configs: list[Path]) -> str:
    """The page, a table a data set."""
    rows = {path: zoo_row(path) for path in tqdm(configs, desc="Counting")}
    headers = ["config", "size", "params (M)", "GMAC", "anchors or points"]
    headers += [f"paper, {name}" for name in STRATEGIES] + ["ours"]
    formats = ["g", "g", ".2f", ".1f", "g", *[".1f"] * len(STRATEGIES), ".1f"]
    parts = [INTRODUCTION]
    for folder, name in FOLDERS.items():
        table = [row for path, row in rows.items() if path.parent.name == folder]
        parts.append(f"## {name}\n{tabulate(table, headers, tablefmt='pipe', floatfmt=formats)}\n")
    return "\n".join(parts)


def zoo_row(path: Path) -> list:
    """Link, size, parameters, operations, anchors, the paper's AP and a blank."""
    cfg, model = build(path)
    model.eval()
    height, width = input_size(cfg)
    image = {"image": torch.zeros(3, height, width), "height": height, "width": width}
    key = f"{path.parent.name}/{path.stem}"
    return [
        f"[{path.stem}](../../configs/{key}.yaml)",
        f"{height}x{width}",
        sum(p.numel() for p in model.parameters()) / 1e6,
        FlopCountAnalysis(model, [image]).total() / 1e9,
        num_candidates(model, height, width),
        *paper_ap(f"configs/{key}.yaml"),
        None,
    ]


def num_candidates(model: nn.Module, height: int, width: int) -> int:
    """Anchors or points of an image; its feature maps are rounded up, as by convolutions."""
    shapes = [model.backbone.output_shape()[f] for f in model.head_in_features]
    features = [torch.zeros(1, 1, -(-height // s.stride), -(-width // s.stride)) for s in shapes]
    return sum(map(len, model.anchor_generator(features)))


def paper_ap(config: str) -> list[float | None]:
    """The paper's AP by strategy."""
    for name in PAPER_TABLES:
        paper = load_experiment(ROOT / "experiments" / f"{name}.yaml", Path()).paper
        figures = paper["figures"].get(config)
        if figures:
            column = paper["metrics"].index("AP")
            return [figures[s][column] if s in figures else None for s in STRATEGIES]
    return [None] * len(STRATEGIES)


def time_table(configs: list[Path], num_images: int, repeats: int) -> str:
    """Seconds of a training step by config and strategy."""
    rows = []
    for path in tqdm(configs, desc="Timing"):
        row = [f"{path.parent.name}/{path.stem}", "", *(None for _ in STRATEGIES)]
        for i, strategy in enumerate(STRATEGIES):
            cfg, model = build(path, "MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy)
            row[1] = sum(p.numel() for p in model.parameters()) / 1e6
            row[2 + i] = step_seconds(model, input_size(cfg), num_images, repeats)
        rows.append(row)
    return tabulate(rows, ["config", "params (M)", *STRATEGIES], tablefmt="pipe", floatfmt=".2f")


def step_seconds(model: nn.Module, size: tuple[int, int], num_images: int, repeats: int) -> float:
    """Median seconds of forward, losses, backward and update."""
    height, width = size
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batch = [
        {
            "image": torch.rand(3, height, width) * 255,
            "instances": objects(height, width, model.num_classes),
        }
        for _ in range(num_images)
    ]
    seconds = []
    with EventStorage():
        for _ in range(repeats + 1):  # the first one warms up
            start = time.perf_counter()
            optimizer.zero_grad()
            sum(model(batch).values()).backward()
            optimizer.step()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def objects(height: int, width: int, num_classes: int, count: int = 6) -> Instances:
    """Random ground truths of an image."""
    corners = torch.rand(count, 2) * 0.6
    boxes = torch.cat((corners, corners + 0.05 + torch.rand(count, 2) * 0.35), dim=1)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
    instances.gt_classes = torch.randint(num_classes, (count,))
    return instances


def build(path: Path, *opts: str) -> tuple[CfgNode, nn.Module]:
    """Config and model, from random weights."""
    cfg = prepare(path, opts)
    torch.manual_seed(0)
    return cfg, build_model(cfg)


def input_size(cfg: CfgNode) -> tuple[int, int]:
    """Height and width in pixels."""
    side = cfg.INPUT.SQUARE_SIZE
    return (side, side) if side else STOCK_SIZE


if __name__ == "__main__":
    run_main(main)
