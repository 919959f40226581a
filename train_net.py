"""Train and evaluate a detector: the one entry point of the project (see --help)."""

import argparse
import shlex
import sys

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from torch.distributed import is_torchelastic_launched

from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.engine import USER_ERRORS, Interrupted, Trainer, launch, sentence, setup


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train or evaluate, in one of the processes."""
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
        checkpointer.needs_all_weights = True
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        Trainer.test(cfg, model)
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def main(args: argparse.Namespace) -> None:
    """Run, and end with one sentence where the user can help it."""
    try:
        cfg = setup(args)
    except USER_ERRORS as error:  # all processes of a machine find the same
        sys.exit(1 if comm.get_local_rank() else f"error: {sentence(error)}")
    try:
        run(cfg, args)
    except USER_ERRORS as error:
        sys.exit(f"error: {sentence(error)}")
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
