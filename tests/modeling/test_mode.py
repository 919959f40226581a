import pytest
import torch

from mutual_guidance.modeling.mode import evaluation_mode


def test_every_module_has_its_own_mode_back():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    model[0].eval()  # as a frozen layer of a model in training
    with pytest.raises(RuntimeError), evaluation_mode(model):
        assert not model[1].training
        raise RuntimeError
    assert [m.training for m in model.modules()] == [True, False, True]
