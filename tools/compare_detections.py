#!/usr/bin/env python3
"""
Draw the detections of two or more models beside the ground truth, worst disagreements first.

    python tools/compare_detections.py output/static output/mutual_guidance

A model is the output folder of a run (its config.yaml and model_final.pth) or CONFIG,WEIGHTS. The
disagreement of an image is, summed over its objects, the difference of the highest and the lowest
IoU with which a model finds the object (0 if missed), plus half the difference of the highest and
the lowest number of false positives.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.evaluation import inference_context
from detectron2.structures import Instances
from torch import nn
from tqdm import tqdm

from mutual_guidance.checkpoint import CheckpointError
from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.engine import USER_ERRORS, Trainer, load_config
from mutual_guidance.engine.setup import (
    check_values,
    check_weights,
    resolve_classes,
    resolve_device,
)
from mutual_guidance.evaluation.ground_truth import ground_truths, load_records
from mutual_guidance.visualization import load_weights
from mutual_guidance.visualization.detections import disagreement, draw_comparison, match
from mutual_guidance.visualization.report import run_labels


def main() -> None:
    args = parse_args()
    try:
        compare(args)
    except (*USER_ERRORS, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted: nothing is complete; the same command draws all pictures.")


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="RUN, or CONFIG,WEIGHTS")
    parser.add_argument("--dataset", help="registered name; default: the first run's DATASETS.TEST")
    parser.add_argument("--images", type=int, default=12, metavar="N", help="how many to draw (12)")
    parser.add_argument(
        "--min-score", type=float, default=0.3, help="lowest score that is looked at (0.3)"
    )
    parser.add_argument("--output", type=Path, default=Path("output", "comparison"))
    args = parser.parse_args()
    if len(args.models) < 2:
        parser.error("name two models or more")
    if args.images < 1:
        parser.error("--images must be 1 or more")
    return args


def compare(args: argparse.Namespace) -> None:
    """Run the models, rank the images, draw the first ones and write comparison.json."""
    files = [model_files(model) for model in args.models]
    labels = run_labels([path if path.is_dir() else weights for path, _, weights in files])
    configs = [load_config(str(config), []) for _, config, _ in files]
    dataset = args.dataset or next(iter(configs[0].DATASETS.TEST), None)
    if dataset is None:
        raise ValueError(f"{files[0][1]} has no DATASETS.TEST: name a data set with --dataset")
    register_datasets(configs[0].DATASETS.REGISTER)
    check_datasets([dataset])
    models = [
        load_model(cfg, weights, dataset)
        for cfg, (_, _, weights) in zip(configs, files, strict=True)
    ]
    matches = {}  # by image id and label
    records = {record["image_id"]: record for record in load_records(dataset)}
    for label, (cfg, model) in zip(labels, models, strict=True):
        for image_id, detections in detect(cfg, model, dataset, label):
            detections = detections[detections.scores >= args.min_score]
            of_image = matches.setdefault(image_id, {})
            of_image[label] = match(detections, ground_truths(records[image_id]))
    entries = draw(records, matches, MetadataCatalog.get(dataset).thing_classes, args)
    path = args.output / "comparison.json"
    path.write_text(json.dumps(entries, indent=2))
    print(f"{len(entries)} of {len(records)} images drawn: {path}")


def model_files(model: str) -> tuple[Path, Path, Path]:
    """
    What was named, its config and its weights.

    Raises:
        ValueError: it is neither a folder nor CONFIG,WEIGHTS.
    """
    path = Path(model)
    if path.is_dir():
        return path, path / "config.yaml", path / "model_final.pth"
    config, comma, weights = model.rpartition(",")
    if not comma:
        raise ValueError(f"{model}: there is no such folder; name a run's folder or CONFIG,WEIGHTS")
    return path, Path(config), Path(weights)


def load_model(cfg: CfgNode, weights: Path, dataset: str) -> tuple[CfgNode, nn.Module]:
    """
    The model with its weights, and its config for that data set.

    Raises:
        ConfigError, CheckpointError: the config cannot run, or the weights are torn or do not fit.
    """
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), (dataset,)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(weights), "auto"
    check_values(cfg)
    check_weights(cfg, eval_only=True, resume=False)
    resolve_device(cfg)
    resolve_classes(cfg)
    model = Trainer.build_model(cfg)
    try:
        load_weights(model, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{weights} on {dataset}: {error}") from error
    return cfg, model


@torch.no_grad()
def detect(
    cfg: CfgNode, model: nn.Module, dataset: str, label: str
) -> Iterator[tuple[str | int, Instances]]:
    """Image id and detections, on the CPU, of every image."""
    with inference_context(model):
        for inputs in tqdm(Trainer.build_test_loader(cfg, dataset), desc=label, unit="batch"):
            for x, output in zip(inputs, model(inputs), strict=True):
                yield x["image_id"], output["instances"].to("cpu")


def draw(
    records: dict, matches: dict, class_names: list[str], args: argparse.Namespace
) -> list[dict]:
    """Draw the images on which the models differ most; return their entries, the worst first."""
    gts = {image_id: ground_truths(records[image_id]) for image_id in matches}
    values = {i: disagreement(list(of_image.values()), gts[i]) for i, of_image in matches.items()}
    chosen = sorted(values, key=values.get, reverse=True)[: args.images]
    args.output.mkdir(parents=True, exist_ok=True)
    entries = []
    for rank, image_id in enumerate(tqdm(chosen, desc="Drawing", unit="image")):
        source = records[image_id]["file_name"]
        image = utils.read_image(source, format="RGB")
        file = f"{rank:03d}_{Path(source).stem}.png"
        figure = draw_comparison(image, gts[image_id], matches[image_id], class_names)
        figure.savefig(args.output / file, dpi=100)
        entries.append({"image": source, "file": file, "disagreement": values[image_id]})
    return entries


if __name__ == "__main__":
    main()
