#!/usr/bin/env python3
"""
Draw where two strategies label differently, with the weights of one or several checkpoints.

    python tools/visualize_assignments.py output/quickstart/mutual_guidance --images 4

draws the first images of DATASETS.TRAIN with every checkpoint of a folder, in the way of the
training's own pictures (VIS_PERIOD) and into the same folder, and puts all pictures of an image
into an animated GIF.
"""

import argparse
import os
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tqdm import tqdm

from mutual_guidance.arguments import Parser, add_model, at_least_one, check_model
from mutual_guidance.assignment import STRATEGIES
from mutual_guidance.engine import prepare
from mutual_guidance.engine.predictor import model_files
from mutual_guidance.errors import InputError, printable, run_main
from mutual_guidance.run_files import checkpoint_files
from mutual_guidance.visualization import (
    ASSIGNMENTS_FOLDER,
    Film,
    GroundTruthImage,
    compared_strategies,
    draw_assignments,
    first_annotated,
    load_image,
    load_weights,
    with_ids,
)


def main(argv: list[str] | None = None) -> None:
    interrupted = "Interrupted: the pictures so far are whole; the same command draws them all."
    run_main(visualize, parse_args(argv), interrupted=interrupted)


def visualize(args: argparse.Namespace) -> None:
    """Draw the images that were asked for with every checkpoint."""
    checkpoints = find_checkpoints(args)
    output = args.output or default_output(checkpoints[-1], args.strategies)
    config_file, _ = model_files(args)
    cfg = prepare(config_file, args.opts, data=("TRAIN",))
    images = find_images(cfg, args.images, args.image_ids)
    strategies = args.strategies or compared_strategies(cfg.MODEL.MUTUAL_GUIDANCE.STRATEGY)
    draw(cfg, checkpoints, images, tuple(strategies), Film(output))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    add_model(parser)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--images", type=at_least_one, default=4, metavar="N", help="first images with objects"
    )
    choice.add_argument("--image-ids", nargs="+", metavar="ID", help="these images instead")
    parser.add_argument(
        "--strategies", nargs=2, choices=list(STRATEGIES), metavar=("FIRST", "SECOND"),
        help="the two to compare (default: static and the config's)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path,
        help=f"folder (default: {ASSIGNMENTS_FOLDER} beside the weights, and with --strategies or "
        "weights that are no checkpoint of the training one beside it; none with --config-file or "
        "--opts)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    check_model(parser, args)
    if not args.output and (args.config_file or args.opts):
        parser.error("--config-file and --opts may draw what the training did not: name --output")
    return args


def find_checkpoints(args: argparse.Namespace) -> list[Path]:
    """The one that is named, or those of the folder, the oldest first; InputError for none."""
    path = Path(args.run or args.weights)
    found = list(map(Path, reversed(checkpoint_files(str(path))))) if path.is_dir() else [path]
    if not found or not found[-1].is_file():
        raise InputError(f"{path} is no checkpoint, and no folder with any model_*.pth")
    return found


def default_output(checkpoint: Path, strategies: list[str] | None) -> Path:
    """The folder of the training's own pictures, for such; one of their own for others."""
    is_own = checkpoint.name in map(os.path.basename, checkpoint_files(str(checkpoint.parent)))
    others = [*([] if is_own else [checkpoint.stem]), *(strategies or [])]
    return checkpoint.parent / "_".join([ASSIGNMENTS_FOLDER, *others])


def find_images(cfg: CfgNode, count: int, image_ids: list[str] | None) -> list[GroundTruthImage]:
    """The images to draw. Raises InputError or DatasetError for none."""
    names = cfg.DATASETS.TRAIN
    records = with_ids(names, image_ids) if image_ids else first_annotated(names, count)
    if not records:
        raise InputError(f"--images {count}: no image of {', '.join(names)} to draw")
    return [load_image(cfg, record) for record in records]


def draw(
    cfg: CfgNode,
    checkpoints: list[Path],
    images: list[GroundTruthImage],
    strategies: tuple[str, str],
    film: Film,
) -> None:
    """Draw every image with every checkpoint, then the films."""
    detector = build_model(cfg)
    drawn: dict[int, Path] = {}
    with tqdm(total=len(checkpoints) * len(images), unit="picture") as progress:
        for path in checkpoints:
            iteration = load_weights(detector, path)
            if iteration in drawn:
                tqdm.write(f"{path}: of the same iteration as {drawn[iteration]}, left out")
                progress.update(len(images))
                continue
            drawn[iteration] = path
            for image in images:
                title = f"{image.name}, iteration {iteration}"
                picture, counts = draw_assignments(detector, image, title, strategies)
                film.add(image.name, iteration, picture, counts)
                progress.update()
    gifs = [film.write_gif(image.name) for image in images]
    print(printable(f"Pictures: {len(drawn) * len(images)}, in {film.folder}"))
    print(printable("\n".join(f"Film: {path}" for path in gifs if path)))


if __name__ == "__main__":
    main()
