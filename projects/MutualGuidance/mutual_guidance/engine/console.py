"""What a training tells on the terminal; log.txt in its folder has everything."""

import itertools
import logging
import os
import re
import sys

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from ..data import records_of
from ..errors import printable
from ..machine import device_name
from ..modeling.meta_arch import Guided

# Detectron2's progress and the project's own words, but for what the summary and the table of the
# results say again.
_TOLD = (
    "detectron2.engine.hooks",
    "detectron2.engine.train_loop",
    "detectron2.evaluation.evaluator",
    "detectron2.utils.events",
    "mutual_guidance",
)
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_TOLD_AGAIN = ("mutual_guidance.engine.setup", "mutual_guidance.evaluation.pascal_voc")

# By logger and folder; Detectron2 makes them once in a process.
_handlers: dict[tuple[str, str], list[logging.Handler]] = {}


class _Brief(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        is_told = record.name.startswith(_TOLD) and not record.name.startswith(_TOLD_AGAIN)
        return is_told or record.levelno >= logging.WARNING


class _Printable(logging.Filter):
    """Escapes what names of files could steer a terminal with; Detectron2's colours go."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(_COLOUR.sub("", record.getMessage())), None
        return True


_BRIEF, _PRINTABLE = _Brief(), _Printable()


def setup_logs(folder: str) -> None:
    """
    Log to ``log.txt`` in the folder, and what is worth reading to the terminal. That of an earlier
    run of this process, in another folder, ends.
    """
    # That there is no GPU, the summary tells.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for name in ("detectron2", "fvcore", "mutual_guidance"):
        _attach(logging.getLogger(name), folder)
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_PRINTABLE)
            if getattr(handler, "stream", None) is sys.stdout:
                handler.addFilter(_BRIEF)


def _attach(logger: logging.Logger, folder: str) -> None:
    """Give a logger the handlers of a folder in the place of those of another."""
    for handler in itertools.chain.from_iterable(_handlers.values()):
        logger.removeHandler(handler)
    others = logger.handlers.copy()
    # Called as default_setup calls it, which then finds them set up.
    own_name = {} if logger.name == "detectron2" else {"name": logger.name}
    setup_logger(folder, distributed_rank=comm.get_rank(), **own_name)
    if made := [handler for handler in logger.handlers if handler not in others]:
        _handlers[logger.name, folder] = made
    for handler in _handlers.get((logger.name, folder), ()):
        logger.addHandler(handler)
        file = str(getattr(handler.stream, "name", ""))
        is_log = file.startswith(os.path.join(folder, "log.txt"))
        if is_log and not os.fstat(handler.stream.fileno()).st_nlink:  # removed meanwhile
            handler.setStream(open(file, "a"))  # noqa: SIM115


def summary(cfg: CfgNode, model: nn.Module, start: int) -> str:
    """
    What is about to be trained, in less than ten lines.

    Args:
        model: the detector. start: the first iteration.
    """
    weights = cfg.MODEL.WEIGHTS or "random weights"
    size = f"{cfg.INPUT.SQUARE_SIZE} pixels square" if cfg.INPUT.SQUARE_SIZE else "any size"
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    solver = cfg.SOLVER
    rows = {
        "device": f"{device_name(cfg.MODEL.DEVICE)}, {_precision(cfg)}, {_processes()}",
        "data": f"train {_sizes(cfg, 'TRAIN')}; test {_sizes(cfg, 'TEST')}",
        "classes": f"{len(cfg.DATASETS.CLASSES)}: {', '.join(cfg.DATASETS.CLASSES[:8])}"
        + (", ..." if len(cfg.DATASETS.CLASSES) > 8 else ""),
        "detector": f"{cfg.MODEL.META_ARCHITECTURE}, {parameters:.1f} M parameters, images {size}, "
        f"from {'a checkpoint' if start else weights}",
        "strategy": _strategy(cfg, model),
        "schedule": f"iterations {start} to {solver.MAX_ITER}, a checkpoint every "
        f"{solver.CHECKPOINT_PERIOD}, {_evaluations(cfg)}",
        "batch": f"{solver.IMS_PER_BATCH} images, learning rate {solver.BASE_LR:g}",
        "output": cfg.OUTPUT_DIR,
    }
    return "\n".join(f"  {name:9}{text}" for name, text in rows.items())


def _strategy(cfg: CfgNode, model: nn.Module) -> str:
    guidance = cfg.MODEL.MUTUAL_GUIDANCE
    if not isinstance(model, Guided):
        return f"{cfg.MODEL.META_ARCHITECTURE}'s own labels, MODEL.MUTUAL_GUIDANCE is not used"
    keys = ("SIGMA", "NUM_POSITIVES", "CLS_TARGET", "STATIC_ITERS")
    return f"{guidance.STRATEGY} ({', '.join(f'{key} {guidance[key]}' for key in keys)})"


def _precision(cfg: CfgNode) -> str:
    amp = cfg.SOLVER.AMP
    return f"mixed precision with {amp.PRECISION}" if amp.ENABLED else "float32"


def _processes() -> str:
    count = comm.get_world_size()
    return f"{count} processes" if count > 1 else "1 process"


def _sizes(cfg: CfgNode, key: str) -> str:
    """The data sets with their numbers of images; built-in ones would take long to read again."""
    own = [entry["name"] for entry in cfg.DATASETS.REGISTER]
    names = [
        f"{name} ({len(records_of(name))} images)" if name in own else name
        for name in cfg.DATASETS[key]
    ]
    return ", ".join(names) or "none"


def _evaluations(cfg: CfgNode) -> str:
    period = cfg.TEST.EVAL_PERIOD
    return f"an evaluation every {period}" if period > 0 else "an evaluation at the end"
