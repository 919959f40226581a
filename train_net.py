"""Train and evaluate a detector: the one entry point of the project (see --help)."""

import sys

from detectron2.engine import default_argument_parser, launch

from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.data import DatasetError
from mutual_guidance.engine import ConfigError, Trainer, setup


def main(args) -> None:
    """Run in every process."""
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        Checkpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        Trainer.test(cfg, model)
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except (ConfigError, DatasetError) as error:
        sys.exit(f"error: {error}")
