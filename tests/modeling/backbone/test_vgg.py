"""VGG-16's start; tests/test_checkpoint.py holds its layers to torchvision's weights."""

import pytest
from torch import nn

from mutual_guidance.modeling import VGG16


def test_convolutions_start_as_torchvisions():
    convolutions = [layer for layer in VGG16().features if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 13
    for layer in convolutions:
        expected = (2 / (layer.out_channels * 9)) ** 0.5  # He et al., of the outputs
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert not layer.bias.any()
