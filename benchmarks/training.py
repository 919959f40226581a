#!/usr/bin/env python3
"""
Images a second of the training loader alone, of the model alone and of both, and the time and the
share of a training step that each strategy's assignment takes.

    python benchmarks/training.py --config-file configs/COCO-Detection/fssd_R_18.yaml \\
        --workers 0 1 2 --opts SOLVER.IMS_PER_BATCH 8

measures on the config's training set and device and prints two tables; --output writes the figures
as JSON. The loader's images are read from the disk's cache after a first pass.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import mutual_guidance.quiet  # noqa: F401 # isort: skip

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from mutual_guidance.arguments import Parser, add_opts
from mutual_guidance.assignment import STRATEGIES
from mutual_guidance.data import build_train_loader
from mutual_guidance.engine import Trainer, prepare
from mutual_guidance.engine.step import build_step
from mutual_guidance.errors import run_main
from mutual_guidance.machine import device_name
from mutual_guidance.modeling.late import use_now
from mutual_guidance.modeling.meta_arch.curves import PERIOD
from mutual_guidance.run_files import write_text

WARM_UP = 2  # batches


class Timed:
    """Something callable that adds up how long its calls take."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        synchronize()
        start = time.perf_counter()
        result = self.function(*args, **kwargs)
        synchronize()
        self.seconds += time.perf_counter() - start
        return result


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the detector")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="of the loader")
    parser.add_argument("--batches", type=int, default=10, help="measured for every figure")
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="STRATEGY",
        choices=list(STRATEGIES),
        default=list(STRATEGIES),
        help="that label",
    )
    parser.add_argument("--output", help="a JSON file")
    add_opts(parser)
    options = parser.parse_args()
    setup_logger(name="mutual_guidance")
    opts = [*options.opts, "MODEL.WEIGHTS", "", "OUTPUT_DIR", "", "DATASETS.TEST", ()]
    cfg = prepare(options.config_file, opts, data=("TRAIN",), for_training=True)

    loaders = {w: measure_loader(cfg, w, options.batches) for w in tqdm(options.workers, "loader")}
    batches = list(itertools.islice(build_train_loader(cfg, 0), WARM_UP + options.batches))
    steps = {s: measure_step(cfg, s, batches) for s in tqdm(options.strategies, "model")}
    both = {w: measure_both(cfg, w, options.batches) for w in tqdm(options.workers, "both")}
    model_speed = steps[options.strategies[0]]["images_per_second"]
    print_tables(loaders, steps, both, model_speed)
    if options.output:
        result = {
            "command": " ".join(sys.argv),
            "machine": device_name(cfg.MODEL.DEVICE),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "images_a_batch": cfg.SOLVER.IMS_PER_BATCH,
            "loader": loaders,
            "step": steps,
            "both": both,
        }
        write_text(options.output, json.dumps(result, indent=2))


def measure_loader(cfg: CfgNode, workers: int, count: int) -> float:
    """Images a second."""
    batches = iter(build_train_loader(with_workers(cfg, workers), 0))
    # What the workers have prefetched meanwhile is not on the clock of a long enough run.
    for _ in range(WARM_UP + 2 * workers):
        next(batches)
    start = time.perf_counter()
    images = sum(len(next(batches)) for _ in range(count))
    return images / (time.perf_counter() - start)


def measure_step(cfg: CfgNode, strategy: str, batches: list[list[dict]]) -> dict[str, float]:
    """Images a second and the share of assignment, of training steps on batches in memory."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.MUTUAL_GUIDANCE.STRATEGY = strategy
    trainer, model = make_trainer(cfg, itertools.cycle(batches))
    seconds = [time_steps(i, trainer) for i in range(len(batches))]
    # In steps of their own: waiting for the assignment's begin and end takes a GPU time.
    timed = model.matcher.match = Timed(model.matcher.match)
    assignment, shares = [], []
    for i in range(len(batches)):
        timed.seconds = 0.0
        step = time_steps(i, trainer)
        assignment.append(timed.seconds)
        shares.append(timed.seconds / step)
    return {
        "images_per_second": cfg.SOLVER.IMS_PER_BATCH / statistics.median(seconds[WARM_UP:]),
        "assignment_ms": 1000 * statistics.median(assignment[WARM_UP:]),
        "assignment_share": statistics.median(shares[WARM_UP:]),
    }


def time_steps(first: int, trainer: Any, count: int = 1) -> float:
    """Seconds of some training steps, until the device is done."""
    start = time.perf_counter()
    with EventStorage() as storage:
        for trainer.iter in range(first, first + count):
            storage.iter = PERIOD * trainer.iter  # a period's last labels again for the curves
            trainer.run_step()
        use_now()
    synchronize()
    return time.perf_counter() - start


def measure_both(cfg: CfgNode, workers: int, count: int) -> float:
    """Images a second of training from the disk."""
    cfg = with_workers(cfg, workers)
    trainer, _ = make_trainer(cfg, build_train_loader(cfg, 0))
    time_steps(0, trainer, WARM_UP)
    return count * cfg.SOLVER.IMS_PER_BATCH / time_steps(WARM_UP, trainer, count)


def make_trainer(cfg: CfgNode, loader: Iterable) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    return build_step(cfg, model, loader, Trainer.build_optimizer(cfg, model)), model


def with_workers(cfg: CfgNode, workers: int) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = workers
    return cfg


def print_tables(loaders: dict, steps: dict, both: dict, model_speed: float) -> None:
    rows = [(w, loaders[w], loaders[w] / model_speed, both[w]) for w in loaders]
    headers = ("workers", "loader (images/s)", "loader / model alone", "training (images/s)")
    print("\n" + tabulate(rows, headers, "pipe", floatfmt=("d", ".1f", ".1f", ".1f")))
    rows = [
        (s, v["images_per_second"], v["assignment_ms"], 100 * v["assignment_share"])
        for s, v in steps.items()
    ]
    headers = (
        "strategy",
        "model alone (images/s)",
        "assignment (ms)",
        "assignment (% of the step)",
    )
    print("\n" + tabulate(rows, headers, "pipe", floatfmt=".1f"))


if __name__ == "__main__":
    run_main(main)
