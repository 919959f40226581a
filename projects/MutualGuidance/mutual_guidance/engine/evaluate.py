"""The evaluation of a trained model, as Detectron2's train_net.py does it."""

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..checkpoint import Checkpointer
from .launch import told_once
from .trainer import Trainer


def evaluate(cfg: CfgNode, resume: bool) -> dict:
    """
    Evaluate MODEL.WEIGHTS or, with ``resume``, the newest checkpoint of OUTPUT_DIR.

    Returns:
        The results of :meth:`Trainer.test`.

    Raises:
        SystemExit: they are not as TEST.EXPECTED_RESULTS says.
    """
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
    checkpointer.needs_all_weights = True
    with told_once():
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
