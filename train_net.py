"""
Train and evaluate a detector.

    python train_net.py --config-file configs/Shapes/retinanet_R_18.yaml
    python train_net.py --config-file configs/Shapes/retinanet_R_18.yaml --resume
    python train_net.py --config-file configs/Shapes/retinanet_R_18.yaml --num-gpus 8 \\
        OUTPUT_DIR output/mine SOLVER.IMS_PER_BATCH 64
    python train_net.py --config-file output/mine/config.yaml --eval-only \\
        MODEL.WEIGHTS output/mine/model_final.pth

Docs: docs/train.md and docs/evaluate.md.
"""

# ruff: noqa: E402

import signal

# A Ctrl-C while the rest is imported, or before there is anything to save, needs no traceback, here
# and in the processes that are started from here.
if __name__ != "train_net" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if __name__ == "__mp_main__":  # launch() has held it back until here
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))

import argparse
import os
import re
import shlex
import sys

# Before PyTorch reads it. Threads that wait for each other otherwise keep their cores turning, and
# beside another busy process a step takes several times as long. GNU's may turn for a moment:
# without, an idle machine loses a fifth (docs/performance.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import mutual_guidance.quiet  # noqa: F401 # isort: skip
from detectron2.utils import comm
from torch.distributed import is_torchelastic_launched

from mutual_guidance.arguments import Parser, add_opts
from mutual_guidance.engine import Interrupted, Trainer, evaluate, launch, setup
from mutual_guidance.engine.launch import told_once


def main(args: argparse.Namespace) -> dict | None:
    """Train or evaluate, in one of the processes; return the results of the data sets."""
    with told_once():
        cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    with told_once():
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
    try:
        return trainer.train()
    except Interrupted as stop:
        if comm.is_main_process():
            print(f"Stopped by {stop.signal.name}. {how_to_go_on(args)}", file=sys.stderr)
        raise


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """As Detectron2's ``default_argument_parser``; the pairs may also stand behind --opts."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", metavar="FILE", help="the config, or the first argument")
    parser.add_argument("--resume", action="store_true", help="go on from OUTPUT_DIR, if it can")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="of each machine")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="of this machine")
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="of the first machine")
    parser.add_argument(
        "pairs",
        nargs="*",
        metavar="KEY VALUE",
        help="changes of the config; --opts may precede",
    )
    add_opts(parser)
    args = parser.parse_args(argv)
    if not args.config_file and args.pairs and args.pairs[0].endswith((".yaml", ".yml")):
        args.config_file = args.pairs.pop(0)
    if not args.config_file:
        parser.error("no config is given: name one with --config-file FILE, as in configs/")
    args.opts = [*args.pairs, *args.opts]
    if args.num_machines > 1 and not re.fullmatch(r"tcp://.+:\d+|(file|env)://.*", args.dist_url):
        parser.error(
            f"--num-machines: name the first with --dist-url tcp://HOST:PORT, not {args.dist_url}"
        )
    if not 0 <= args.machine_rank < max(args.num_machines, 1):
        parser.error(f"--machine-rank {args.machine_rank}: --num-machines is {args.num_machines}")
    return args


def how_to_go_on(args: argparse.Namespace) -> str:
    """What to type to resume."""
    if is_torchelastic_launched():
        return "Go on with the same torchrun command, and --resume after train_net.py"
    resume = [] if args.resume else ["--resume"]
    return f"Go on with:\n  {shlex.join(['python', sys.argv[0], *resume, *sys.argv[1:]])}"


if __name__ == "__main__":
    launch(main, parse_args())
