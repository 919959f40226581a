"""Detectron2's DefaultTrainer with the project's data, evaluators, interruptions and reports."""

import itertools
import json
import logging
import math
import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase, create_ddp_model
from detectron2.engine.hooks import EvalHook, LRScheduler
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from tabulate import tabulate
from torch.optim import Optimizer

from ..alive import sign_of_life
from ..checkpoint import Checkpointer
from ..data import build_test_loader, build_train_loader, register_datasets
from ..errors import ConfigError, UserError
from ..evaluation import build_evaluator, candidates_in_outputs
from ..evaluation.build import ap_evaluator
from ..interrupt import Interrupted, StopOnSignal, note_signals, signal_of_any_process
from ..modeling.late import use_now
from ..modeling.meta_arch import Guided
from ..modeling.meta_arch.curves import PERIOD
from ..run_files import CLASS_AP, EMA_RESULTS_FILE, RESULTS_FILE, write_text
from . import full_disk
from .console import summary
from .ema import EMAHook, build_ema
from .hooks import AssignmentPictures, DataWait, FirstProgress, KeepBest, ThinCheckpoints
from .precise_bn import StoppablePreciseBN
from .step import build_step
from .watchdog import SignsOfLife, watched

logger = logging.getLogger(__name__)


# It logs the traceback of whatever ends a training.
_loop_logger = logging.getLogger("detectron2.engine.train_loop")


class Trainer(DefaultTrainer):
    """Trains and evaluates what the config describes."""

    def __init__(self, cfg: CfgNode) -> None:
        """
        As DefaultTrainer's, which would put a model of the CPU on a GPU for many processes.

        Raises:
            ConfigError: the config has not been made ready.
        """
        TrainerBase.__init__(self)
        _check_ready(cfg)
        register_datasets(cfg.DATASETS.REGISTER)  # of another config of this process since
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.data_seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        # A copy of the model, so before mixed precision puts something around it.
        self.ema = build_ema(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg, self.data_seed)
        on_gpu = {} if cfg.MODEL.DEVICE.startswith("cuda") else {"device_ids": None}
        ddp_model = create_ddp_model(model, broadcast_buffers=False, **on_gpu)
        self._trainer = build_step(cfg, ddp_model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        if self.ema is not None:
            self.checkpointer.add_checkpointable("ema", self.ema)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list:
        cfg, self.cfg = self.cfg, self.cfg.clone()
        self.cfg.defrost()
        self.cfg.TEST.PRECISE_BN.ENABLED = False  # whose loader Detectron2 would build now
        hooks = super().build_hooks()
        self.cfg = cfg
        hooks[hooks.index(None)] = self._precise_bn()
        if self.ema is not None:
            kinds = [type(hook) for hook in hooks]
            hooks.insert(kinds.index(EvalHook), EvalHook(self.cfg.TEST.EVAL_PERIOD, self._test_ema))
            ema = EMAHook(self.ema, self.checkpointer.model, self.cfg.OUTPUT_DIR)
            hooks.insert(kinds.index(LRScheduler) + 1, ema)  # before the checkpoint is written
        if comm.is_main_process():
            hooks[-1:-1] = self._own_hooks()  # before the writers, which come last
        return hooks

    def _precise_bn(self) -> StoppablePreciseBN | None:
        """Detectron2's, where it has its own."""
        cfg = self.cfg.clone()
        if not cfg.TEST.PRECISE_BN.ENABLED or not get_bn_modules(self.model):
            return None
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # as Detectron2 has it
        build_loader = partial(self.build_train_loader, cfg, max(cfg.SEED, 0))
        period, num_iter = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER
        return StoppablePreciseBN(period, self.model, build_loader, num_iter)

    def _own_hooks(self) -> list:
        """Of the main process; after Detectron2's that evaluate and write checkpoints."""
        cfg = self.cfg
        hooks = [FirstProgress(), DataWait(cfg.DATALOADER.NUM_WORKERS)]
        if cfg.SOLVER.CHECKPOINT_KEEP > 0:
            hooks.append(ThinCheckpoints(cfg))
        if cfg.TEST.KEEP_BEST and cfg.TEST.EVAL_PERIOD > 0 and cfg.DATASETS.TEST:
            hooks.append(KeepBest(self.checkpointer.model, cfg))
        # Of the project's detectors: others have no strategy.
        if cfg.VIS_PERIOD > 0 and isinstance(self.checkpointer.model, Guided):
            hooks.append(AssignmentPictures(cfg))
        return hooks

    def train(self) -> dict | None:
        """
        Train to the end, or until SIGTERM, SIGINT or SIGHUP, which the main thread alone notes.

        Returns:
            The results of the last evaluation, as :meth:`test`; None if there was none.

        Raises:
            Interrupted: after a signal; a checkpoint has been written.
        """
        limit = self.cfg.SOLVER.HANG_SECONDS
        _loop_logger.addFilter(_is_worth_a_traceback)
        try:
            with note_signals(), watched(limit), full_disk.told(self.cfg.OUTPUT_DIR):
                super().train()
        finally:
            _loop_logger.removeFilter(_is_worth_a_traceback)
        return getattr(self, "_last_eval_results", None)

    def before_train(self) -> None:
        register_datasets(self.cfg.DATASETS.REGISTER)
        if not self.start_iter:
            self._write_config()
        super().before_train()
        told = summary(self.cfg, self.checkpointer.model, self.start_iter)
        logger.info(f"Training, with the keys in {self.cfg.OUTPUT_DIR}/config.yaml:\n{told}")
        if self.start_iter:
            self._make_up()

    def _make_up(self) -> None:
        """Do again what follows a checkpoint: what stopped the run may have come in between."""
        self.iter = self.storage.iter = self.start_iter - 1
        for hook in self._hooks:
            if isinstance(hook, EvalHook | KeepBest | AssignmentPictures):
                hook.after_step()
        if self.start_iter >= self.max_iter:
            self.checkpointer.save("model_final", iteration=self.iter)

    def after_train(self) -> None:
        """As Detectron2's, which would also evaluate a run that failed in its last iteration."""
        if self.iter < self.max_iter:
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, EvalHook)]
        super().after_train()

    def after_step(self) -> None:
        sign_of_life()
        done, cfg = self.iter + 1, self.cfg
        periods = (PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD, cfg.VIS_PERIOD)
        is_end = self.iter in (self.start_iter, self.max_iter - 1)
        if is_end or any(p > 0 and done % p == 0 for p in periods):
            use_now()  # what writes or evaluates now and then is about to
        try:
            super().after_step()
        except Interrupted as stop:  # in the middle of PreciseBN or an evaluation
            self._stop(stop.signal)
        signal = signal_of_any_process()
        if signal is not None and self.iter + 1 < self.max_iter:
            self._stop(signal)

    def _stop(self, signal: int) -> None:
        use_now()  # no checkpoint of an iteration whose loss is not finite
        self.checkpointer.save(f"model_{self.iter:07d}")
        comm.synchronize()  # the launcher ends the others with the first
        raise Interrupted(signal)

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's; the stream of images goes on where it was, too."""
        super().resume_or_load(resume)
        if self.start_iter > self.max_iter:
            raise ConfigError(
                f"{self.cfg.OUTPUT_DIR} has a training of {self.start_iter} iterations, more than "
                f"the {self.max_iter} that SOLVER gives now (MAX_ITER, or EPOCHS of the images): "
                "nothing is left to train; choose another OUTPUT_DIR for a shorter training"
            )
        if self.start_iter:
            with full_disk.told(self.cfg.OUTPUT_DIR):
                self._write_config()
                self._prolong()
            self._trainer.reset_data_loader(
                lambda: self.build_train_loader(self.cfg, self.data_seed, self.start_iter)
            )

    def _prolong(self) -> None:
        """Name what was the end, of a training that goes on behind it, by its iteration."""
        comm.synchronize()  # all have read it
        end = self.checkpointer.loaded_from
        was_end = os.path.basename(end) == "model_final.pth" and self.start_iter < self.max_iter
        if was_end and comm.is_main_process():
            path = os.path.join(self.cfg.OUTPUT_DIR, f"model_{self.start_iter - 1:07d}.pth")
            os.replace(end, path)
            self.checkpointer.tag_last_checkpoint(os.path.basename(path))

    def _write_config(self) -> None:
        if comm.is_main_process():
            write_text(os.path.join(self.cfg.OUTPUT_DIR, "config.yaml"), self.cfg.dump())

    def state_dict(self) -> dict:
        state = {**super().state_dict(), "data_seed": self.data_seed}
        # Detectron2's RetinaNet divides its losses by a mean that it keeps outside of its state; of
        # several processes, which have one each, that of the main one.
        if hasattr(self.checkpointer.model, "loss_normalizer"):
            state["loss_normalizer"] = self.checkpointer.model.loss_normalizer
        return state

    def misfit(self, state: Any) -> str | None:
        """Why the training cannot go on from a state, or None."""
        try:
            iteration, seed, trainer = (state[k] for k in ("iteration", "data_seed", "_trainer"))
            if not 0 <= int(iteration) < 2**31 or int(seed) < 0:
                return f"of iteration {iteration} of a stream of seed {seed}, which cannot be"
            missing = self._trainer.state_dict().keys() - trainer.keys()
            if missing:
                return f"without {', '.join(missing)}: of a run with other settings (SOLVER.AMP?)"
            return _optimizer_misfit(trainer["optimizer"], self._trainer.optimizer)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            return f"with a state that is not this trainer's ({type(error).__name__}: {error})"

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self.data_seed = state_dict["data_seed"]
        if "loss_normalizer" in state_dict:
            self.checkpointer.model.loss_normalizer = state_dict["loss_normalizer"]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        model = super().build_model(cfg)
        for module in model.modules():
            if isinstance(module, NaiveSyncBatchNorm):
                module.register_forward_pre_hook(_in_float32)
        return model.to(memory_format=torch.channels_last) if cfg.MODEL.CHANNELS_LAST else model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, seed: int = 0, first_iteration: int = 0) -> Iterable:
        """
        As Detectron2's, over the stream of images of ``seed``, from an iteration on; what overrides
        it gets both, too.
        """
        return build_train_loader(cfg, seed, first_iteration)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def build_ema_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """AP alone: files of detections and misalignment are those of the weights themselves."""
        return ap_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model, evaluators=None) -> dict:
        """
        As Detectron2's; signals end it, and the main process also logs one table a data set and
        writes ``evaluation.json`` to the output folder: {data set: {"bbox": {metric: percent}}},
        with "misalignment" beside "bbox" if TEST.MISALIGNMENT.
        """
        register_datasets(cfg.DATASETS.REGISTER)
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        elif not isinstance(evaluators, Sequence):
            evaluators = [evaluators]
        share_buffers(model)
        with candidates_in_outputs(model) if cfg.TEST.MISALIGNMENT else nullcontext():
            results = super().test(cfg, model, [_stoppable(e) for e in evaluators])
        report(cfg, results, RESULTS_FILE)
        return results

    def _test_ema(self) -> dict:
        logger.info("Evaluating the moving average of the weights")
        share_buffers(self.ema.module)
        names = self.cfg.DATASETS.TEST
        evaluators = [_stoppable(self.build_ema_evaluator(self.cfg, name)) for name in names]
        results = super().test(self.cfg, self.ema.module, evaluators)
        report(self.cfg, results, EMA_RESULTS_FILE)
        return {"ema": results}


def _check_ready(cfg: CfgNode) -> None:
    """Raise ConfigError for a config whose "auto" device and classes nothing has filled in."""
    if not cfg.DATASETS.CLASSES:
        raise ConfigError(
            "DATASETS.CLASSES is empty, the config has not been made ready: give the Trainer what "
            'engine.setup returns, or engine.prepare with data=("TRAIN", "TEST") and '
            "for_training=True"
        )


def _is_worth_a_traceback(record: logging.LogRecord) -> bool:
    """Not an error whose sentence is told, nor one that another process's end may have caused."""
    error = record.exc_info and record.exc_info[1]
    return not error or not (isinstance(error, UserError | OSError) or comm.get_world_size() > 1)


def _stoppable(
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
) -> DatasetEvaluators:
    """What Detectron2 evaluates with, be it nothing or several, so that it gives signs of life."""
    evaluators = evaluator if isinstance(evaluator, Sequence) else [evaluator]
    own = [e for e in evaluators if e is not None]
    return DatasetEvaluators([StopOnSignal(), SignsOfLife(), *own, StopOnSignal()])


def _in_float32(layer: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Give a layer its input in float32: in bfloat16 its E[x^2] - E[x]^2 would be of rounding."""
    return inputs[0].float()


def _optimizer_misfit(state: dict, optimizer: Optimizer) -> str | None:
    """How the sizes of a state differ from the optimiser's, which would not look itself."""
    shapes = [[p.shape for p in group["params"]] for group in optimizer.param_groups]
    if [len(group["params"]) for group in state["param_groups"]] != list(map(len, shapes)):
        return "with an optimiser's state of other parameters"
    for i, shape in enumerate(itertools.chain.from_iterable(shapes)):
        for name, value in state["state"].get(i, {}).items():
            if torch.is_tensor(value) and value.dim() and value.shape != shape:
                return f"with a {name} of {tuple(value.shape)} for a parameter of {tuple(shape)}"
    return None


def share_buffers(model: torch.nn.Module) -> None:
    """
    Give every process the BatchNorm statistics of the main one, which are those of checkpoints:
    each process has its own from training.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def report(cfg: CfgNode, results: dict, file: str) -> None:
    """Log one table a data set, if any, and write the results to a file of the output folder."""
    if not results or not comm.is_main_process():
        return
    names = cfg.DATASETS.TEST
    by_dataset = {names[0]: results} if len(names) == 1 else results
    for name, result in by_dataset.items():
        if "bbox" in result:
            logger.info(f"Results on {name}:\n{results_table(result['bbox'])}")
    path = os.path.join(cfg.OUTPUT_DIR, file)
    write_text(path, json.dumps(_as_json(by_dataset), indent=2, allow_nan=False))
    logger.info(f"Results saved to {path}")


def results_table(metrics: dict[str, float]) -> str:
    """Metrics in percent as a table: the means in a row, then a row a class."""
    means = {k: v for k, v in metrics.items() if not k.startswith(CLASS_AP)}
    classes = [(k.removeprefix(CLASS_AP), v) for k, v in metrics.items() if k.startswith(CLASS_AP)]
    table = tabulate([means.values()], headers=means.keys(), tablefmt="pipe", floatfmt=".1f")
    if not classes:
        return table
    per_class = tabulate(classes, ("class", "AP"), "pipe", floatfmt=".1f", disable_numparse=[0])
    return f"{table}\n\n{per_class}"


def _as_json(results):
    """JSON has no NaN, no infinity, and no numbers of NumPy's and PyTorch's kinds."""
    if isinstance(results, dict):
        return {k: _as_json(v) for k, v in results.items()}
    value = results.item() if hasattr(results, "item") else results
    return None if isinstance(value, float) and not math.isfinite(value) else value
