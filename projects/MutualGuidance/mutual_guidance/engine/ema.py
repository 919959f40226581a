"""An exponential moving average of the weights."""

from itertools import chain

from detectron2.engine import HookBase
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoint import Checkpointer


class _Average(AveragedModel):
    def update_parameters(self, model: nn.Module) -> None:
        """As AveragedModel's, which would wait each time for its counter to reach the device."""
        if self.n_averaged == 0:  # a copy of the weights
            super().update_parameters(model)
            return
        states = [
            *zip(*(chain(m.parameters(), m.buffers()) for m in (self.module, model)), strict=True)
        ]
        floats = [pair for pair in states if pair[0].is_floating_point()]
        self.multi_avg_fn(*map(list, zip(*floats, strict=True)), self.n_averaged)
        for average, value in states:
            if not average.is_floating_point():  # BatchNorm's counters, which have no average
                average.copy_(value)
        self.n_averaged += 1


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """The average of the weights and of BatchNorm's statistics; at first it is the weights."""
    return _Average(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


class EMAHook(HookBase):
    """
    Takes the weights of every iteration into the average, which becomes ``model_ema_final.pth``
    at the end of training: a checkpoint of its own, for everything that loads weights.
    """

    def __init__(self, ema: AveragedModel, model: nn.Module, folder: str) -> None:
        """
        Args:
            ema: the average. model: what is trained, not wrapped by DistributedDataParallel.
            folder: where checkpoints go.
        """
        self.ema = ema
        self.model = model
        self.folder = folder

    def before_train(self) -> None:
        if self.trainer.start_iter >= self.trainer.max_iter:
            self._save()  # what stopped the run may have come before it

    def after_step(self) -> None:
        self.ema.update_parameters(self.model)
        if self.trainer.iter + 1 == self.trainer.max_iter:
            self._save()

    def _save(self) -> None:
        last = self.trainer.max_iter - 1
        Checkpointer(self.ema.module, self.folder).save("model_ema_final", iteration=last)
