import pytest
import torch
from torch import nn

from mutual_guidance.modeling.backbone.rfb import rfb, rfb_s


def convolutions(branch):
    """(kernel, output channels, stride, dilation) of each convolution of a branch."""
    return [
        (m.kernel_size, m.out_channels, m.stride[0], m.dilation[0])
        for m in branch
        if isinstance(m, nn.Conv2d)
    ]


def test_fine_block_has_the_recipes_seven_branches():
    # Of C = 64 channels: C/8 = 8, C/16 = 4 and 3C/32 = 6.
    tall, flat, square = (3, 1), (1, 3), (3, 3)
    one = ((1, 1), 8, 1, 1)
    assert [convolutions(branch) for branch in rfb_s(64, 32, "BN").branches] == [
        [one, (square, 8, 1, 1)],
        [one, (tall, 8, 1, 1), (square, 8, 1, 3)],
        [one, (flat, 8, 1, 1), (square, 8, 1, 3)],
        [one, (tall, 8, 1, 1), (square, 8, 1, 5)],
        [one, (flat, 8, 1, 1), (square, 8, 1, 5)],
        [((1, 1), 4, 1, 1), (flat, 6, 1, 1), (tall, 8, 1, 1), (square, 8, 1, 7)],
        [((1, 1), 4, 1, 1), (tall, 6, 1, 1), (flat, 8, 1, 1), (square, 8, 1, 7)],
    ]


def test_block_has_the_recipes_four_branches():
    # Of C = 64 channels: C/8 = 8, 3C/16 = 12 and C/4 = 16; the stride is before the dilated one.
    first, square = ((1, 1), 8, 1, 1), (3, 3)
    assert [convolutions(branch) for branch in rfb(64, 32, "BN", stride=2).branches] == [
        [((1, 1), 16, 2, 1), (square, 16, 1, 1)],
        [first, (square, 16, 2, 1), (square, 16, 1, 3)],
        [first, (square, 12, 1, 1), (square, 16, 2, 1), (square, 16, 1, 5)],
        [first, ((1, 7), 12, 1, 1), ((7, 1), 16, 2, 1), (square, 16, 1, 7)],
    ]


@pytest.mark.parametrize(("block", "side"), [(rfb_s, 12), (rfb, 12)])
def test_keeps_the_size(block, side):
    assert block(64, 32, "BN")(torch.rand(2, 64, side, side)).shape == (2, 32, side, side)
