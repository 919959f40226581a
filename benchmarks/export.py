#!/usr/bin/env python3
"""
Export every detector of the zoo, verify the files and time them against PyTorch.

    python benchmarks/export.py
    python benchmarks/export.py configs/PascalVOC-Detection/fssd_R_18.yaml --images photos/

Weights are random. So that scores and boxes are spread as those of a trained detector, the last
layers are rescaled to a deviation of 2 in their outputs. One thread; the shape that a config leaves
open is a square of 320 pixels.
"""

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import torch
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.data.images import read_image
from mutual_guidance.data.inputs import find_images
from mutual_guidance.engine import prepare
from mutual_guidance.errors import InputError, run_main
from mutual_guidance.export import (
    DetectorGraph,
    Parity,
    Suppression,
    export_detector,
    load_exported,
    verify,
)

ROOT = Path(__file__).resolve().parents[1]
STOCK_SIZE = 320
BATCH = 8
NUM_VERIFIED = 4
PREDICTION_LAYERS = ("cls_score", "bbox_pred", "ctrness")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "configs", nargs="*", type=Path,
        help="instead of PascalVOC-Detection/*; data that a config registers is not read, and "
        "counts as 80 classes",
    )  # fmt: skip
    parser.add_argument("--images", nargs="+", help="to verify on, instead of random blobs")
    parser.add_argument(
        "--repeats", type=at_least_one, default=5, help="runs to take the median time of"
    )
    args = parser.parse_args()
    configs = args.configs or sorted((ROOT / "configs" / "PascalVOC-Detection").glob("*.yaml"))
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    run_main(run, configs, args.images, args.repeats)


def run(configs: list[Path], images: list[str] | None, repeats: int) -> None:
    """Measure every config, and print the tables."""
    files = list(find_images(images).paths.values())[:BATCH] if images else []
    if 0 < len(files) < BATCH:
        raise InputError(f"--images: {len(files)} images, but {BATCH} are needed")
    rows = []
    for path in tqdm(configs, desc="Exporting"):
        rows.append(benchmark(path, files, repeats))
        tqdm.write(f"{parity_table(rows[-1:])}\n\n{time_table(rows[-1:])}\n")
    print(parity_table(rows))
    print()
    print(time_table(rows))


def benchmark(path: Path, files: list[str], repeats: int) -> dict[str, object]:
    """Parity of the files of a config by kind, megabytes and seconds."""
    cfg = prepare(path, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    size = cfg.INPUT.SQUARE_SIZE or STOCK_SIZE
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    images = read_images(files, size) if files else random_blobs(size)
    spread_outputs(model, images)
    row: dict[str, object] = {"config": path.stem, "size": size}
    with tempfile.TemporaryDirectory() as folder:
        for kind, suffix, suppression in (
            ("onnx", ".onnx", None),
            ("onnx, NMS", ".onnx", Suppression.of_model(model, size)),
            ("pt2", ".pt2", None),
        ):
            graph = DetectorGraph(model, suppression)
            file = os.path.join(folder, f"model{suffix}")
            export_detector(graph, size, file, {})
            run = load_exported(file, num_threads=1)
            row[kind] = verify(graph, run, images[:NUM_VERIFIED])
            row[f"MB {kind}"] = os.path.getsize(file) / 1e6
            if kind == "onnx":
                row |= {f"s onnx {n}": seconds(run, images[:n], repeats) for n in (1, BATCH)}
    row["params"] = sum(p.numel() for p in model.parameters()) / 1e6
    graph = torch.no_grad()(DetectorGraph(model))
    return row | {f"s torch {n}": seconds(graph, images[:n], repeats) for n in (1, BATCH)}


def random_blobs(size: int) -> Tensor:
    """Images (8, 3, size, size), uint8, smooth at the scale of objects."""
    coarse = torch.randint(256, (BATCH, 3, 8, 8)).float()
    return F.interpolate(coarse, size=(size, size), mode="bilinear").byte()


def read_images(files: list[str], size: int) -> Tensor:
    """Images (N, 3, size, size), uint8, warped to squares."""
    warped = [T.Resize(size).get_transform(x).apply_image(x) for x in map(read_image, files)]
    return torch.stack([torch.tensor(x).permute(2, 0, 1) for x in warped])


@torch.no_grad()
def spread_outputs(model: nn.Module, images: Tensor) -> None:
    """Scale the prediction layers so that their outputs have a deviation of 2."""
    deviations: dict[nn.Module, list[float]] = {}
    layers = [
        layer
        for name, layer in model.head.named_modules()
        if isinstance(layer, nn.Conv2d) and name.split(".")[0] in PREDICTION_LAYERS
    ]
    hooks = [
        layer.register_forward_hook(
            lambda layer, _, out: deviations.setdefault(layer, []).append(out.std().item())
        )
        for layer in layers
    ]
    DetectorGraph(model)(images)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        layer.weight *= 2 / statistics.mean(deviations[layer])


@torch.no_grad()
def seconds(run: Callable, images: Tensor, repeats: int) -> float:
    """Median processor time of a call, after one that warms up: other programs do not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        run(images)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def parity_table(rows: list[dict]) -> str:
    kinds = ("onnx", "onnx, NMS", "pt2")
    headers = ["config", "size"]
    for kind in kinds:
        headers += [f"{kind}: box (px)", "score"]
    headers.append("onnx, NMS: unmatched")
    table = []
    for row in rows:
        parities: list[Parity] = [row[kind] for kind in kinds]
        figures = [value for parity in parities for value in parity[:2]]
        table.append([row["config"], row["size"], *figures, row["onnx, NMS"].unmatched])
    return tabulate(table, headers, tablefmt="pipe", floatfmt=".1e")


def time_table(rows: list[dict]) -> str:
    headers = ["config", "params (M)", "onnx (MB)", "pt2 (MB)"]
    for n in (1, BATCH):
        headers += [f"{n}: PyTorch (ms)", "onnx (ms)", "ratio"]
    table = []
    for row in rows:
        cells = [row["config"], row["params"], row["MB onnx"], row["MB pt2"]]
        for n in (1, BATCH):
            torch_s, onnx_s = row[f"s torch {n}"], row[f"s onnx {n}"]
            cells += [1e3 * torch_s, 1e3 * onnx_s, onnx_s / torch_s]
        table.append(cells)
    formats = ["g", ".1f", ".1f", ".1f", *(".0f", ".0f", ".2f") * 2]
    return tabulate(table, headers, tablefmt="pipe", floatfmt=formats)


if __name__ == "__main__":
    main()
