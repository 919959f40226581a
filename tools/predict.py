#!/usr/bin/env python3
"""
Predict with a trained detector: draw its boxes and write them as COCO JSON or VOC text.

    python tools/predict.py output/BCCD/retinanet_R_18 photos/ "more/**/*.png" --output found
    python tools/predict.py --config-file configs/BCCD/retinanet_R_18.yaml --weights model.pth a.jpg
    python tools/predict.py output/BCCD/retinanet_R_18 clip.mp4 --draw
    python tools/predict.py output/BCCD/retinanet_R_18 camera:0 --draw    # until Ctrl-C

Inputs are images, folders (every image below them) and globs, or one video file or camera.
"""

import argparse
import signal
import sys
import threading
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import mutual_guidance.quiet  # noqa: F401 # isort: skip

from detectron2.data import Metadata

from mutual_guidance.arguments import Parser, add_model, at_least_one, check_model
from mutual_guidance.data.inputs import Images, Video, find_images, is_video
from mutual_guidance.engine import Predictor
from mutual_guidance.engine.predictor import MIN_SCORE
from mutual_guidance.errors import InputError, printable, run_main
from mutual_guidance.interrupt import handled_by
from mutual_guidance.prediction import (
    CocoJson,
    DrawnImages,
    DrawnVideo,
    Summary,
    VocText,
    Writer,
    check_outputs,
    check_voc_ids,
    predict_all,
)

INTERRUPTED = 130  # the exit code of a shell's Ctrl-C


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # As Ctrl-C: a film without its end has no index. The main thread alone handles signals.
    is_main = threading.current_thread() is threading.main_thread()
    with handled_by(signal.default_int_handler) if is_main else nullcontext():
        return run_main(run, args)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_model(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, or a video or camera")
    parser.add_argument(
        "--output", type=Path, default=Path("output/predictions"), metavar="FOLDER", help="folder"
    )
    parser.add_argument("--draw", action="store_true", help="draw the boxes: images/ or a video")
    parser.add_argument("--coco", action="store_true", help="write predictions.json")
    parser.add_argument("--voc", action="store_true", help="write voc/comp4_det_test_CLASS.txt")
    parser.add_argument(
        "--min-score",
        type=float,
        default=MIN_SCORE,
        metavar="SCORE",
        help="least score of what is drawn and written",
    )
    parser.add_argument(
        "--batch-size", type=at_least_one, default=8, metavar="N", help="images at once"
    )
    args = parser.parse_args(argv)
    check_model(parser, args, "inputs")
    if not (args.draw or args.coco or args.voc):
        args.draw = args.coco = True
    return args


def run(args: argparse.Namespace) -> int:
    """Predict, write and tell; return the exit code."""
    video = open_video(args.inputs)
    images = Images({}, []) if video else find_images(args.inputs)
    names = [video.name] if video else list(images.paths)
    if args.voc:
        check_voc_ids(names)
    predictor = Predictor.from_args(args)
    writers = build_writers(args, video, predictor.metadata)
    inputs = [video.path] if video and video.path else images.paths.values()
    check_outputs(inputs, (path for writer in writers for path in writer.outputs(names)))
    args.output.mkdir(parents=True, exist_ok=True)
    source, total = (video, video.num_frames) if video else (images.paths.items(), len(names))
    summary = predict_all(predictor, source, writers, args.min_score, args.batch_size, total)
    if video and not summary.interrupted and (fault := video.fault()):
        summary.faults[video.path] = fault
    return tell(summary, images.others, args)


def open_video(inputs: list[str]) -> Video | None:
    """The video or camera, or None where all inputs are images."""
    videos = [name for name in inputs if is_video(name)]
    if videos and len(inputs) > 1:
        raise InputError(f"{videos[0]}: a video or camera must be the only input")
    return Video(videos[0]) if videos else None


def build_writers(
    args: argparse.Namespace, video: Video | None, metadata: Metadata
) -> list[Writer]:
    """What was asked for."""
    writers: list[Writer] = []
    if args.draw and video:
        writers.append(DrawnVideo(args.output, metadata, video.name, video.fps))
    elif args.draw:
        writers.append(DrawnImages(args.output, metadata))
    if args.coco:
        writers.append(CocoJson(args.output, metadata))
    if args.voc:
        writers.append(VocText(args.output, metadata))
    return writers


def tell(summary: Summary, others: list[str], args: argparse.Namespace) -> int:
    """Say what was done and what was not; return the exit code."""
    score = f"{args.min_score:g} or more (--min-score)"
    done = f"{summary.images} images, {summary.boxes} boxes with a score of {score}"
    print(f"{done}: {printable(str(args.output))}")
    if summary.images and not summary.boxes:
        best = f"the highest score of any box is {summary.best_score:.4f}"
        print(best if summary.best_score else "there is no box of any score that the config allows")
    if summary.images:
        print(
            f"{summary.images / summary.seconds:.1f} images a second "
            f"(the model alone: {summary.images / summary.model_seconds:.1f})"
        )
    if others:
        suffixes = Counter(Path(path).suffix or "no suffix" for path in others)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        print(f"left out, not images by their names: {len(others)} files ({printable(kinds)})")
    for name, reason in summary.faults.items():
        print(printable(f"not read: {name}: {reason}"), file=sys.stderr)
    if summary.interrupted:
        print("Interrupted: what was done until then is written", file=sys.stderr)
        return INTERRUPTED
    if summary.faults:
        print(f"error: {len(summary.faults)} inputs cannot be read as a whole", file=sys.stderr)
    return 1 if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
