#!/usr/bin/env python3
"""
Draw the figures with which the paper explains the method, from the code itself.

    python tools/paper_figures.py amplification
    python tools/paper_figures.py candidates output/quickstart/mutual_guidance --object 0
"""

import argparse
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

from detectron2.modeling import build_model
from matplotlib.figure import Figure

from mutual_guidance.arguments import Parser, add_model, at_least_one, check_model
from mutual_guidance.engine import prepare
from mutual_guidance.engine.predictor import model_files
from mutual_guidance.errors import DatasetError, InputError, run_main
from mutual_guidance.figures import write_png
from mutual_guidance.visualization import (
    candidate_rows,
    first_annotated,
    load_image,
    load_weights,
    with_ids,
)
from mutual_guidance.visualization.paper import (
    candidates_table,
    draw_amplification,
    draw_candidates,
)

DPI = 120
AMPLIFICATION = """
Draw Figure 3: the amplified IoU of Eq. (1) for several sigma and scores.

    python tools/paper_figures.py amplification --sigmas 1 2 3
"""
CANDIDATES = """
Draw Figure 2: the anchors that matter most to one object of an image of DATASETS.TRAIN, their
qualities and what the strategies label them, as a picture and as a table on the terminal.

    python tools/paper_figures.py candidates output/quickstart/mutual_guidance --object 0
"""


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    run_main(args.draw, args)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    figures = parser.add_subparsers(required=True, metavar="FIGURE")
    of_sigmas = figures.add_parser(
        "amplification", doc=AMPLIFICATION, help="Figure 3, the amplified IoU"
    )
    of_sigmas.set_defaults(draw=amplification)
    of_sigmas.add_argument(
        "--sigmas", nargs="+", type=float, default=[1.0, 2.0, 3.0], help="of Eq. (1)"
    )
    of_object = figures.add_parser(
        "candidates", doc=CANDIDATES, help="Figure 2, an object's anchors"
    )
    of_object.set_defaults(draw=candidates)
    add_model(of_object)
    of_object.add_argument("--image-id", help="default: the first image with an object")
    of_object.add_argument(
        "--object", type=int, default=0, metavar="I",
        help="index in the image's annotation, without its crowds",
    )  # fmt: skip
    of_object.add_argument("--rows", type=at_least_one, default=13, help="anchors to show")
    for figure in (of_sigmas, of_object):
        output = Path("output/paper_figures")
        figure.add_argument("--output", type=Path, default=output, help="folder")
    args = parser.parse_args(argv)
    if args.draw is candidates:
        check_model(of_object, args)
    return args


def amplification(args: argparse.Namespace) -> None:
    """Write amplification.png."""
    if min(args.sigmas) < 1:
        raise InputError(f"--sigmas: Eq. (1) needs 1 or more, got {min(args.sigmas):g}")
    save(draw_amplification(args.sigmas), args.output / "amplification.png")


def candidates(args: argparse.Namespace) -> None:
    """Print the table and write candidates_IMAGE_OBJECT.png."""
    config_file, weights = model_files(args)
    cfg = prepare(config_file, args.opts, data=("TRAIN",))
    names = cfg.DATASETS.TRAIN
    records = with_ids(names, [args.image_id]) if args.image_id else first_annotated(names, 1)
    if not records:
        raise DatasetError(f"no image of {', '.join(names)} has an object")
    image = load_image(cfg, records[0])
    detector = build_model(cfg)
    load_weights(detector, weights)
    rows = candidate_rows(detector, image, args.object, args.rows)
    print(candidates_table(detector, rows))
    figure = draw_candidates(detector, image, args.object, rows)
    save(figure, args.output / f"candidates_{image.name}_{args.object}.png")


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, figure, DPI)
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
