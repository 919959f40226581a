"""What happens between the steps of a training."""

import logging
import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..run_files import checkpoint_files, replace_file
from ..visualization import (
    ASSIGNMENTS_FOLDER,
    Film,
    compared_strategies,
    draw_assignments,
    first_annotated,
    load_image,
)

logger = logging.getLogger(__name__)

_NUM_IMAGES = 4
# Iterations after which the shares of their time are known.
_SETTLED = 60


class FirstProgress(HookBase):
    """Tell the first iteration's loss at once: Detectron2's writers write after twenty."""

    def before_step(self) -> None:
        self._start = time.perf_counter()

    def after_step(self) -> None:
        if self.trainer.iter > self.trainer.start_iter:
            return
        loss = self.trainer.storage.latest()["total_loss"][0]
        seconds = time.perf_counter() - self._start
        left = self.trainer.max_iter - self.trainer.iter - 1
        logger.info(
            f"iter: {self.trainer.iter}  total_loss: {loss:.4g}  time: {seconds:.1f} s, of which "
            f"some is the start; {left} to go"
        )


class DataWait(HookBase):
    """Tell once where more than half of the time goes to waiting for images."""

    def __init__(self, num_workers: int) -> None:
        """
        Args:
            num_workers: of the loader of each process.
        """
        self._num_workers = num_workers

    def after_step(self) -> None:
        if self.trainer.iter != self.trainer.start_iter + _SETTLED:
            return
        histories = self.trainer.storage.histories()
        waited, total = (histories[name].median(_SETTLED // 2) for name in ("data_time", "time"))
        if waited > total / 2:
            logger.warning(
                f"Of the {total:.2g} s of an iteration {waited:.2g} are spent waiting for images: "
                f"raise DATALOADER.NUM_WORKERS {self._num_workers} (of each process; this machine "
                f"has {os.cpu_count()} cores)"
            )


class ThinCheckpoints(HookBase):
    """Remove all but the newest checkpoints, of which a resume takes the first that loads."""

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of the training, SOLVER.CHECKPOINT_KEEP above 0.
        """
        self._cfg = cfg

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._cfg.SOLVER.CHECKPOINT_PERIOD and done != self.trainer.max_iter:
            return
        for path in checkpoint_files(self._cfg.OUTPUT_DIR)[self._cfg.SOLVER.CHECKPOINT_KEEP :]:
            with suppress(FileNotFoundError):  # who runs an experiment removes some as well
                os.remove(path)


class KeepBest(HookBase):
    """
    Keep the weights of the best AP of all evaluations, as ``model_best.pth``. (Detectron2's
    BestCheckpointer forgets the best on a resume, and lets that begin at its file.)
    """

    def __init__(self, model: nn.Module, cfg: CfgNode) -> None:
        """
        Args:
            model: without what surrounds it in training. cfg: of the training.
        """
        self._model, self._period = model, cfg.TEST.EVAL_PERIOD
        self._path = os.path.join(cfg.OUTPUT_DIR, "model_best.pth")
        self._best = -math.inf

    def before_train(self) -> None:
        if self.trainer.start_iter and os.path.isfile(self._path):
            try:
                kept = torch.load(self._path, map_location="cpu", weights_only=True, mmap=True)
                self._best = float(kept["AP"])
            except Exception:  # torn files fail in many ways
                logger.warning(f"{self._path} cannot be read: the next evaluation replaces it")

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done != self.trainer.max_iter:
            self._keep_if_best()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # nothing stopped it in its last iteration
            self._keep_if_best()

    def _keep_if_best(self) -> None:
        ap = mean_ap(self.trainer._last_eval_results)
        if not ap > self._best:  # nor where it is NaN
            return
        self._best = ap
        iteration = min(self.trainer.iter, self.trainer.max_iter - 1)  # one more in after_train
        data = {"model": self._model.state_dict(), "iteration": iteration, "AP": ap}
        replace_file(self._path, lambda f: torch.save(data, f))
        logger.info(f"AP {ap:.1f} after iteration {iteration} is the best so far: {self._path}")


def mean_ap(results: dict) -> float:
    """
    AP of :meth:`Trainer.test`'s results, in percent; the mean over several data sets, NaN where one
    has none, as evaluators of one's own may give.
    """
    groups = [results] if "bbox" in results else list(results.values())
    try:
        return sum(group["bbox"]["AP"] for group in groups) / len(groups)
    except (LookupError, TypeError, ZeroDivisionError):
        return math.nan


class AssignmentPictures(HookBase):
    """
    Every VIS_PERIOD iterations, and after the first and the last one, draw where the strategy
    labels otherwise than the static rule, for the first annotated images of the training set: into
    ``visualization/assignments`` of the output folder (see :class:`Film`) and into the event
    storage. The training is the same, bit for bit, with the hook and without.

    Detectron2's dense detectors take VIS_PERIOD as well, but draw nothing by it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of the training, VIS_PERIOD above 0.
        """
        self._cfg = cfg
        self._strategies = compared_strategies(cfg.MODEL.MUTUAL_GUIDANCE.STRATEGY)
        self._film = Film(os.path.join(cfg.OUTPUT_DIR, ASSIGNMENTS_FOLDER))

    def before_train(self) -> None:
        with _same_random_state():
            records = first_annotated(self._cfg.DATASETS.TRAIN, _NUM_IMAGES)
            self._images = [load_image(self._cfg, record) for record in records]
        self._film.forget_from(self.trainer.start_iter)
        names = ", ".join(image.name for image in self._images) or "no image (none has objects)"
        logger.info(
            f"Drawing the assignments of {names} every {self._cfg.VIS_PERIOD} iterations to "
            f"{self._film.folder}"
        )

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._cfg.VIS_PERIOD == 0 or done in (1, self.trainer.max_iter):
            with _same_random_state():
                self._draw()

    def _draw(self) -> None:
        detector = self.trainer.model
        if isinstance(detector, DistributedDataParallel):
            detector = detector.module
        iteration = self.trainer.iter
        for image in self._images:
            title = f"{image.name}, iteration {iteration}"
            picture, counts = draw_assignments(detector, image, title, self._strategies)
            self.trainer.storage.put_image(
                f"assignments/{image.name}", np.asarray(picture).transpose(2, 0, 1)
            )
            try:
                self._film.add(image.name, iteration, picture, counts)
            except OSError as error:
                logger.error(
                    f"The assignments of {title} could not be written to {self._film.folder} "
                    f"({error}); the training goes on without this picture"
                )


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Give Python, NumPy and PyTorch their random states of before back."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
