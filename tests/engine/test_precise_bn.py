import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from mutual_guidance.engine.precise_bn import StoppablePreciseBN
from mutual_guidance.interrupt import Interrupted, note_signals, signal_of_any_process


def test_a_model_that_a_signal_has_left_works_on():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    batches = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0)) + 5
    signals = [signal.SIGTERM]

    def loader():
        yield batches[0]
        if signals:
            os.kill(os.getpid(), signals.pop())
            while signal_of_any_process() is None:
                time.sleep(0.01)
        yield batches[1]

    hook = StoppablePreciseBN(1, model, loader, 2)
    hook.trainer = SimpleNamespace(model=model)
    with note_signals(), pytest.raises(Interrupted):
        hook.update_stats()
    assert not model[0].running_mean.any() and hook.state_dict() == {"due": True}
    model(batches[0])
    assert torch.allclose(model[0].running_mean, 0.1 * batches[0].mean(0))
    hook.update_stats()
    assert torch.allclose(model[0].running_mean, batches.mean((0, 1))) and not hook.state_dict()


def test_processes_pool_their_statistics(monkeypatch):
    model = nn.Sequential(nn.BatchNorm1d(2))
    own, others = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [[[1.0]], [[4.0]]]
    )
    whole = torch.cat((own, others))
    mean = whole.mean(0)
    of_other = iter([others.mean(0), others.var(0, correction=0) + (others.mean(0) - mean) ** 2])
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", lambda value: [value])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: value.add_(next(of_other)))
    hook = StoppablePreciseBN(1, model, lambda: [own], 1)
    hook.trainer = SimpleNamespace(model=model)
    hook.update_stats()
    assert torch.allclose(model[0].running_mean, mean)
    assert torch.allclose(model[0].running_var, whole.var(0, correction=0))
