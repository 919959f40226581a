#!/usr/bin/env python3
"""
Export a trained detector to ONNX or torch.export and verify the file against PyTorch.

    python tools/export.py output/BCCD/retinanet_R_18 model.onnx
    python tools/export.py output/BCCD/retinanet_R_18 model.onnx --nms --evaluate
    python tools/export.py --config-file mine.yaml --weights model.pth model.pt2

The file takes images (N, 3, S, S), uint8, of the config's INPUT.SQUARE_SIZE and channel order; see
docs/export.md.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from mutual_guidance.arguments import Parser, add_model, check_model
from mutual_guidance.data import check_datasets
from mutual_guidance.data.inputs import find_images
from mutual_guidance.engine import Predictor, Trainer
from mutual_guidance.engine.setup import check_classes
from mutual_guidance.errors import DatasetError, ExportError, InputError, printable, run_main
from mutual_guidance.export import (
    DetectorGraph,
    ExportedDetector,
    Parity,
    Suppression,
    check_path,
    check_size,
    export_detector,
    load_exported,
    verify,
)
from mutual_guidance.export.runtime import (
    BOX_TOLERANCE,
    SCORE_TOLERANCE,
    UNMATCHED_TOLERANCE,
)

NUM_IMAGES = 8
METRICS = ("AP", "AP50", "AP75")


def main(argv: list[str] | None = None) -> None:
    # So that the folder of an unfinished file goes, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run_main(run, parse_args(argv))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_model(parser)
    parser.add_argument("output", type=Path, help="file to write, .onnx or .pt2")
    parser.add_argument("--nms", action="store_true", help="non-maximum suppression inside")
    parser.add_argument(
        "--images", nargs="+", default=[], help="to verify on 8 of (default: of the test set)"
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="compare AP of file and model on the test sets"
    )
    args = parser.parse_args(argv)
    check_model(parser, args)
    args.opts = [*args.opts, "MODEL.DEVICE", "cpu"]
    return args


def run(args: argparse.Namespace) -> None:
    check_path(str(args.output))
    images = list(find_images(args.images).paths.values())[:NUM_IMAGES] if args.images else []
    predictor = Predictor.from_args(args)
    cfg, model = predictor.cfg, predictor.model
    size = cfg.INPUT.SQUARE_SIZE
    if cfg.INPUT.FORMAT == "L":
        raise ExportError("INPUT.FORMAT is L: a file takes images of three channels, RGB or BGR")
    check_size(model, size)
    if args.evaluate:
        check_test_sets(cfg)
    batch, what = verification_batch(predictor, images)
    suppression = Suppression.of_model(model, size)
    graph = DetectorGraph(model, suppression if args.nms else None)
    metadata = describe(predictor, suppression)

    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent) as folder:
        path = os.path.join(folder, args.output.name)
        print(f"Exporting {cfg.MODEL.META_ARCHITECTURE} at {size} pixels ...", flush=True)
        export_detector(graph, size, path, metadata)
        file = load_exported(path)
        parity = verify(graph, file, batch)
        print(f"Verified on {len(batch)} {what}:\n{parity_table(parity)}")
        if not parity.is_close():
            raise ExportError("the file differs from the model and was not kept")
        if args.nms and not any_detection(graph, batch):
            print(
                "Nothing was compared: the model finds nothing in them; give --images with objects"
            )
        os.replace(path, args.output)
    print(printable(f"Written: {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)"))
    if args.evaluate:
        exported = ExportedDetector(file, None if args.nms else suppression)
        print(ap_table({"PyTorch": model, args.output.name: exported}, cfg))


def check_test_sets(cfg: CfgNode) -> None:
    """Raise UserError unless the model can be evaluated on them."""
    if not cfg.DATASETS.TEST:
        raise InputError("--evaluate: DATASETS.TEST is empty: name a data set with --opts")
    check_datasets(list(cfg.DATASETS.TEST))
    check_classes(cfg)


def describe(predictor: Predictor, suppression: Suppression) -> dict[str, object]:
    """What a user of the file has to know besides the shapes in it."""
    return {
        "channel_order": predictor.cfg.INPUT.FORMAT,
        "thing_classes": list(predictor.metadata.thing_classes),
        "suppression": suppression.settings(),
    }


def verification_batch(predictor: Predictor, images: list[str]) -> tuple[torch.Tensor, str]:
    """Images (N, 3, S, S), uint8, and what they are."""
    what = "given images"
    if not images:
        images, what = test_images(predictor.cfg), "images of the test set"
    if not images:
        size = predictor.cfg.INPUT.SQUARE_SIZE
        blobs = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, size // 8, size // 8, 3))
        images = [blob.astype(np.uint8) for blob in blobs]
        what = "images of random blobs, since there is no data set that can be used and no --images"
    return torch.stack([predictor.preprocess(x)["image"] for x in images]), what


def test_images(cfg: CfgNode) -> list[str]:
    """Some of the first test set; none where it is not at hand."""
    if not cfg.DATASETS.TEST:
        return []
    try:
        check_datasets(cfg.DATASETS.TEST[:1])
    except DatasetError:
        return []
    return [x["file_name"] for x in DatasetCatalog.get(cfg.DATASETS.TEST[0])[:NUM_IMAGES]]


@torch.no_grad()
def any_detection(graph: DetectorGraph, batch: torch.Tensor) -> bool:
    """Whether the graph, with its suppression, finds anything."""
    _, _, classes = graph(batch)
    return bool((classes >= 0).any())


def parity_table(parity: Parity) -> str:
    headers = ("", "largest difference", "tolerance")
    rows = [
        ("box (pixels)", parity.box, BOX_TOLERANCE),
        ("score", parity.score, SCORE_TOLERANCE),
        ("detections without counterpart", parity.unmatched, UNMATCHED_TOLERANCE),
    ]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".2g")


def ap_table(models: dict[str, object], cfg: CfgNode) -> str:
    """AP of each on each test set, through the loader and evaluator of --eval-only."""
    setup_logger()  # shows how far an evaluation is
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = folder
        cfg.TEST.MISALIGNMENT = False  # a file gives no candidates
        for dataset in cfg.DATASETS.TEST:
            for name, model in models.items():
                loader = Trainer.build_test_loader(cfg, dataset)
                evaluator = Trainer.build_evaluator(cfg, dataset)
                metrics = inference_on_dataset(model, loader, evaluator)["bbox"]
                rows.append([dataset, name, *(metrics[m] for m in METRICS)])
    return tabulate(rows, ["data set", "", *METRICS], tablefmt="pipe", floatfmt=".3f")


if __name__ == "__main__":
    main()
