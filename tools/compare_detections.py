#!/usr/bin/env python3
"""
Draw the detections of two or more models beside the ground truth, worst disagreements first.

    python tools/compare_detections.py output/static output/mutual_guidance

A model is the output folder of a training (its newest checkpoint) or a checkpoint in one. The
disagreement of an image is, summed over its objects, the difference of the highest and the lowest
IoU with which a model finds the object (0 if missed), plus half the difference of the highest and
the lowest number of false positives.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from tqdm import tqdm

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.data.images import read_image
from mutual_guidance.engine import Predictor, Trainer
from mutual_guidance.errors import InputError, printable, run_main
from mutual_guidance.evaluation.detections import detections_of
from mutual_guidance.evaluation.ground_truth import ground_truths, load_records
from mutual_guidance.evaluation.matching import disagreement, match
from mutual_guidance.figures import write_png
from mutual_guidance.run_files import write_text
from mutual_guidance.visualization.detections import draw_comparison
from mutual_guidance.visualization.report import run_labels

ENTRIES_FILE = "comparison.json"


def main(argv: list[str] | None = None) -> None:
    interrupted = "Interrupted: nothing is complete; the same command draws all pictures."
    run_main(compare, parse_args(argv), interrupted=interrupted)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="trained model: the output folder of a training, or a checkpoint in it",
    )
    parser.add_argument("--dataset", help="registered name; default: the first run's DATASETS.TEST")
    parser.add_argument(
        "--images", type=at_least_one, default=12, metavar="N", help="number to draw"
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="least score to look at",
    )
    parser.add_argument("--output", type=Path, default=Path("output/comparison"), help="folder")
    args = parser.parse_args(argv)
    if len(args.runs) < 2:
        parser.error("name two models or more")
    return args


def compare(args: argparse.Namespace) -> None:
    """Run the models, rank the images, draw the first ones and write comparison.json."""
    labels = run_labels(list(map(Path, args.runs)))
    predictors = [Predictor.from_run(run) for run in args.runs]
    cfg = predictors[0].cfg
    dataset = args.dataset or next(iter(cfg.DATASETS.TEST), None)
    if dataset is None:
        raise InputError(f"{args.runs[0]} has no DATASETS.TEST: name a data set with --dataset")
    register_datasets(cfg.DATASETS.REGISTER)  # again: a name may mean another folder in another run
    check_datasets([dataset])
    classes = MetadataCatalog.get(dataset).thing_classes
    for run, predictor in zip(args.runs, predictors, strict=True):
        if list(predictor.metadata.thing_classes) != list(classes):
            raise InputError(f"{run} was trained for other classes than those of {dataset}")
    args.output.mkdir(parents=True, exist_ok=True)
    old = earlier_pictures(args.output)
    matches = {}  # by image id and label
    records = {record.image_id: record for record in load_records(dataset)}
    for label, predictor in zip(labels, predictors, strict=True):
        for image_id, detections in detect(predictor, dataset, label):
            detections = detections[detections.scores >= args.min_score]
            of_image = matches.setdefault(image_id, {})
            of_image[label] = match(detections_of(detections), ground_truths(records[image_id]))
    for picture in old:
        picture.unlink(missing_ok=True)
    entries = draw(records, matches, classes, args)
    path = args.output / ENTRIES_FILE
    write_text(path, json.dumps(entries, indent=2))
    print(printable(f"{len(entries)} of {len(records)} images drawn: {path}"))


def earlier_pictures(folder: Path) -> list[Path]:
    """
    Those of an earlier comparison, which would stand between the new ones, and its list. Raises
    InputError for a comparison.json that is another's.
    """
    path = folder / ENTRIES_FILE
    try:
        entries = json.loads(path.read_text()) if path.exists() else []
        return [path, *(folder / Path(entry["file"]).name for entry in entries)]
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is of something else: choose another --output") from error


def detect(predictor: Predictor, dataset: str, label: str) -> Iterator[tuple[str | int, Instances]]:
    """Image id and detections, on the CPU, of every image."""
    loader = Trainer.build_test_loader(predictor.cfg, dataset)
    for inputs in tqdm(loader, desc=label, unit="batch"):
        for x, instances in zip(inputs, predictor.predict(inputs), strict=True):
            yield x["image_id"], instances


def draw(
    records: dict, matches: dict, class_names: list[str], args: argparse.Namespace
) -> list[dict]:
    """Draw the images on which the models differ most; return their entries, the worst first."""
    gts = {image_id: ground_truths(records[image_id]) for image_id in matches}
    values = {i: disagreement(list(of_image.values()), gts[i]) for i, of_image in matches.items()}
    chosen = sorted(values, key=values.get, reverse=True)[: args.images]
    entries = []
    for rank, image_id in enumerate(tqdm(chosen, desc="Drawing", unit="image")):
        source = records[image_id].file_name
        image = read_image(source, "RGB")
        file = f"{rank:03d}_{Path(source).stem}.png"
        figure = draw_comparison(image, gts[image_id], matches[image_id], class_names)
        write_png(args.output / file, figure)
        entries.append({"image": source, "file": file, "disagreement": values[image_id]})
    return entries


if __name__ == "__main__":
    main()
