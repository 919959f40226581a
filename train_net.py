"""Train and evaluate a detector: the one entry point of the project (see --help)."""

import argparse
import shlex
import sys

from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch.distributed import is_torchelastic_launched

from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.engine import Interrupted, Trainer, launch, setup
from mutual_guidance.engine.launch import told_once


def main(args: argparse.Namespace) -> dict | None:
    """Train or evaluate, in one of the processes; return the results of the data sets."""
    with told_once():
        cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
        checkpointer.needs_all_weights = True
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)  # with TEST.EXPECTED_RESULTS
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    try:
        return trainer.train()
    except Interrupted as stop:
        if comm.is_main_process():
            print(f"Stopped by {stop.signal.name}. {how_to_go_on(args)}", file=sys.stderr)
        raise


def how_to_go_on(args: argparse.Namespace) -> str:
    """What to type to resume."""
    if is_torchelastic_launched():
        return "Go on with the same torchrun command, and --resume after train_net.py"
    resume = [] if args.resume else ["--resume"]
    return f"Go on with:\n  {shlex.join(['python', sys.argv[0], *resume, *sys.argv[1:]])}"


if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args())
