#!/usr/bin/env python3
"""
Draw the figures with which the paper explains the method, from the code itself.

    python tools/paper_figures.py amplification
    python tools/paper_figures.py candidates output/quickstart/mutual_guidance --object 0

*amplification* is Figure 3: the amplified IoU of Eq. (1) for several sigma and scores.
*candidates* is Figure 2: the anchors that matter most to one object of an image of DATASETS.TRAIN,
their qualities and what the strategies label them, as a picture and as a table on the terminal.
"""

import argparse
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tabulate import tabulate

from mutual_guidance.arguments import Parser, add_model, at_least_one, check_model
from mutual_guidance.assignment import amplify
from mutual_guidance.engine import prepare
from mutual_guidance.engine.predictor import model_files
from mutual_guidance.errors import DatasetError, InputError, run_main
from mutual_guidance.visualization import (
    CandidateRow,
    GroundTruthImage,
    candidate_rows,
    first_annotated,
    load_image,
    load_weights,
    with_ids,
)

SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)
LABEL_COLORS = {"positive": "#b7e4b0", "ignored": "#dddddd", "negative": "#f4b9b3"}
PRIOR_HEADERS = {"anchor_iou": "IoU anchor", "centerness": "centerness"}
DPI = 120


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    run_main(args.draw, args)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    figures = parser.add_subparsers(required=True, metavar="FIGURE")
    amplification = figures.add_parser("amplification", help="Figure 3: the amplified IoU")
    amplification.add_argument(
        "--sigmas", nargs="+", type=float, default=[1.0, 2.0, 3.0], help="of Eq. (1)"
    )
    amplification.set_defaults(draw=draw_amplification)
    candidates = figures.add_parser("candidates", help="Figure 2: an object's anchors")
    add_model(candidates)
    candidates.add_argument("--image-id", help="default: the first image with an object")
    candidates.add_argument(
        "--object", type=int, default=0, metavar="I", help="index in the image's annotation"
    )
    candidates.add_argument("--rows", type=at_least_one, default=13, help="anchors to show")
    candidates.set_defaults(draw=draw_candidates)
    for figure in (amplification, candidates):
        output = Path("output/paper_figures")
        figure.add_argument("--output", type=Path, default=output, help="folder")
    args = parser.parse_args(argv)
    if args.draw is draw_candidates:
        check_model(candidates, args)
    return args


def draw_amplification(args: argparse.Namespace) -> None:
    """Write amplification.png: a panel for each sigma, a curve for each score."""
    if min(args.sigmas) < 1:
        raise InputError(f"--sigmas: Eq. (1) needs 1 or more, got {min(args.sigmas):g}")
    prior = torch.linspace(0, 1, 201)
    figure = Figure(figsize=(4 * len(args.sigmas), 4), layout="constrained")
    all_axes = figure.subplots(1, len(args.sigmas), sharey=True, squeeze=False)[0]
    for axes, sigma in zip(all_axes, args.sigmas, strict=True):
        for score in SCORES:
            curve = amplify(prior, torch.tensor(score), sigma)
            axes.plot(prior, curve, label=f"score {score:g}")
        axes.set(title=f"σ = {sigma:g}", xlabel="IoU with the anchor", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("amplified IoU")
    all_axes[-1].legend(loc="lower right")
    save(figure, args.output / "amplification.png")


def draw_candidates(args: argparse.Namespace) -> None:
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
    print(format_table(detector, rows))
    figure = Figure(figsize=(13, 1.2 + max(4.5, 0.3 * len(rows))), layout="constrained")
    picture, table = figure.subplots(1, 2, width_ratios=(4, 6))
    figure.suptitle(f"{image.name}, object {args.object}, σ = {detector.matcher.sigma:g}")
    draw_boxes(picture, image, args.object, rows)
    draw_table(table, detector, rows)
    save(figure, args.output / f"candidates_{image.name}_{args.object}.png")


def quality_names(detector: DenseDetector) -> tuple[str, str, str, str]:
    """Headers of the qualities."""
    prior = PRIOR_HEADERS[detector.prior_name]
    return prior, "IoU regressed", "score", f"{prior} amplified"


def format_table(detector: DenseDetector, rows: list[CandidateRow]) -> str:
    """The table of the terminal: a label behind the quality that decides it."""
    prior, regressed, score, amplified = quality_names(detector)
    headers = ["", prior, "static", regressed, "Localize to Classify"]
    headers += [score, amplified, "Classify to Localize"]
    lines = [
        [name(i), r.prior, r.static, r.regressed, r.localize_to_classify]
        + [r.score, r.amplified, r.classify_to_localize]
        for i, r in enumerate(rows)
    ]
    return tabulate(lines, headers, tablefmt="pipe", floatfmt=".2f")


def draw_table(axes: Axes, detector: DenseDetector, rows: list[CandidateRow]) -> None:
    """The table of the picture: a label is the colour of the quality that decides it."""
    plain = "white"
    cells, colors = [], []
    for i, row in enumerate(rows):
        values = (row.prior, row.regressed, row.score, row.amplified)
        cells.append([name(i), *(f"{value:.2f}" for value in values)])
        labels = (row.static, row.localize_to_classify, None, row.classify_to_localize)
        colors.append([plain, *(LABEL_COLORS[label] if label else plain for label in labels)])
    prior, regressed, score, amplified = quality_names(detector)
    headers = ["", f"{prior}\nstatic", f"{regressed}\nLocalize to Classify"]
    headers += [score, f"{amplified}\nClassify to Localize"]
    table = axes.table(
        cells, colors, colLabels=headers, cellLoc="center", loc="center",
        colWidths=(0.06, 0.22, 0.26, 0.14, 0.28),
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.35)
    for column in range(len(headers)):
        table[0, column].set_height(2 * table[1, column].get_height())
    axes.axis("off")
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in LABEL_COLORS.values()]
    axes.legend(handles, LABEL_COLORS, loc="lower center", ncols=3, frameon=False)


def draw_boxes(
    axes: Axes, image: GroundTruthImage, gt_index: int, rows: list[CandidateRow]
) -> None:
    """The object, and those of the anchors that a strategy promotes or demotes."""
    axes.imshow((image.pixels * 0.75).astype("uint8"))  # darker, for the white dashes
    axes.axis("off")
    gt_box = image.inputs["instances"].gt_boxes.tensor[gt_index].tolist()
    add_box(axes, gt_box, "white", linestyle="--")
    places = set()
    for i, row in enumerate(rows):
        labels = (row.static, row.localize_to_classify, row.classify_to_localize)
        if labels.count("positive") in (0, 3):
            continue
        color = "red" if row.static == "positive" else "lime"
        add_box(axes, row.box, color)
        x, y = (round(max(corner, 0)) for corner in row.box[:2])
        while (x, y) in places:  # beside the name of an anchor with the same corner
            x += image.pixels.shape[1] // 20
        places.add((x, y))
        style = {"facecolor": color, "edgecolor": "none", "pad": 1}
        axes.text(x, y, name(i), color="black", fontsize=8, bbox=style)
    axes.set_title("red: demoted by a task, green: promoted by a task", fontsize=9)


def add_box(axes: Axes, box: list[float], color: str, **style) -> None:
    """An outline."""
    x0, y0, x1, y1 = box
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=color, lw=1.5, **style))


def name(index: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    turn, letter = divmod(index, 26)
    return chr(ord("A") + letter) + (str(turn) if turn else "")


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
