import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine.hooks import PreciseBN
from torch import nn

from mutual_guidance.engine.precise_bn import Repeated, StoppablePreciseBN
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

    hook = StoppablePreciseBN(PreciseBN(1, model, Repeated(loader, 2), 2))
    hook.trainer = SimpleNamespace(model=model)
    with note_signals(), pytest.raises(Interrupted):
        hook.update_stats()
    assert not model[0].running_mean.any() and hook.state_dict() == {"due": True}
    model(batches[0])
    assert torch.allclose(model[0].running_mean, 0.1 * batches[0].mean(0))
    hook.update_stats()
    assert torch.allclose(model[0].running_mean, batches.mean((0, 1))) and not hook.state_dict()
