"""Detectron2's PreciseBN, over the same batches each time, of all processes, ended by signals."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from detectron2.engine.hooks import PreciseBN
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ..alive import sign_of_life
from ..interrupt import Interrupted, stop_if_asked


class StoppablePreciseBN(PreciseBN):
    """That a signal leaves as if it had not begun; a run that goes on makes it up."""

    def __init__(
        self,
        period: int,
        model: nn.Module,
        build_loader: Callable[[], Iterable],
        num_iter: int,
    ) -> None:
        """
        Args:
            build_loader: the first ``num_iter`` batches of what it makes are taken, every time.
            period, model: see :class:`PreciseBN`.
        """
        super().__init__(period, model, _Repeated(build_loader, num_iter), num_iter)
        self._due = False

    def before_train(self) -> None:
        if self._due:
            self.update_stats()

    def update_stats(self) -> None:
        """Raises Interrupted."""
        model = self.trainer.model
        buffers = [*model.buffers()]
        before = [buffer.clone() for buffer in buffers]
        layers = [(m, m.momentum, m._forward_pre_hooks.copy()) for m in get_bn_modules(model)]
        self._due = True
        try:
            super().update_stats()
            if comm.get_world_size() > 1:
                _pool([layer for layer, *_ in layers])
        except Interrupted:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
            for layer, momentum, hooks in layers:  # which fvcore only puts back at its end
                layer.momentum, layer._forward_pre_hooks = momentum, hooks
            self._data_iter = None
            raise
        self._due = False

    def state_dict(self) -> dict[str, bool]:
        return {"due": True} if self._due else {}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        self._due = state["due"]


def _pool(layers: Sequence[nn.BatchNorm2d]) -> None:
    """Give every process the statistics over the batches of all, each process counting alike."""
    sizes = [len(layer.running_mean) for layer in layers]
    means = torch.cat([layer.running_mean for layer in layers])
    variances = torch.cat([layer.running_var for layer in layers])
    mean = means.clone()
    torch.distributed.all_reduce(mean)
    mean /= comm.get_world_size()
    variances += (means - mean).square()
    torch.distributed.all_reduce(variances)
    variances /= comm.get_world_size()
    for layer, m, v in zip(layers, mean.split(sizes), variances.split(sizes), strict=True):
        layer.running_mean.copy_(m)
        layer.running_var.copy_(v)


class _Repeated:
    """The first batches of a loader, again and again, until a signal has been noted."""

    def __init__(self, build_loader: Callable[[], Iterable], num_batches: int) -> None:
        self.build_loader = build_loader
        self.num_batches = num_batches

    def __iter__(self) -> Iterator[list[dict]]:
        """Raises Interrupted."""
        while True:
            for batch in itertools.islice(self.build_loader(), self.num_batches):
                stop_if_asked()
                sign_of_life()
                yield batch
