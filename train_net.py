"""Train and evaluate a detector: the one entry point of the project (see --help)."""

import argparse
import shlex
import sys

from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.engine import (
    USER_ERRORS,
    Interrupted,
    NonFiniteLoss,
    Trainer,
    launch,
    sentence,
    setup,
)


def run(args: argparse.Namespace) -> None:
    """Train or evaluate, in one of the processes."""
    cfg = setup(args)
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
        run(args)
    except USER_ERRORS as error:
        # Once a machine, but for what only one process knows.
        is_shared = not isinstance(error, NonFiniteLoss)
        sys.exit(1 if is_shared and comm.get_local_rank() else f"error: {sentence(error)}")
    except Interrupted as stop:
        if comm.is_main_process():
            resume = [] if args.resume else ["--resume"]
            command = shlex.join(["python", sys.argv[0], *resume, *sys.argv[1:]])
            print(f"Stopped by {stop.signal.name}. Go on with:\n  {command}", file=sys.stderr)
        raise


if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args())
